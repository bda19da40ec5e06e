"""Make `tests/oracles/baselines.npz`: what Captum and pytorch-grad-cam make of the oracle networks.

    python -m tools.oracles.baselines tests/oracles/baselines.npz

Needs torch, torchvision, captum and grad-cam. The test that
compares with the values needs none of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.oracles import networks  # first: it makes torchvision importable

# isort: split
import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from tools.oracles.networks import CASES

STEPS = 8
SIDE, STRIDE = 7, 2


def main() -> int:
    found: dict[str, torch.Tensor] = {}
    for case in CASES:
        net, images = networks.build(case)
        net = net.float().eval()
        last = [
            module
            for module in net.modules()
            if type(module).__name__ in ("BasicBlock", "Bottleneck")
        ][-1]
        x = torch.from_numpy(images)
        targets = net(x).argmax(1)
        exact = IntegratedGradients(net).attribute(
            x, target=targets, n_steps=STEPS, method="gausslegendre"
        )
        coarse = LayerGradCam(net, last).attribute(x, target=targets, relu_attributions=True)
        probability = torch.nn.Sequential(net, torch.nn.Softmax(1))
        hidden = Occlusion(probability).attribute(
            x, sliding_window_shapes=(3, SIDE, SIDE), strides=(3, STRIDE, STRIDE), target=targets
        )
        with GradCAM(model=net, target_layers=[last]) as cam:
            shown = cam(
                input_tensor=x, targets=[ClassifierOutputTarget(int(target)) for target in targets]
            )
        found |= {
            f"{case.name}.captum.integrated_gradients": exact.sum(1),
            f"{case.name}.captum.grad_cam": coarse[:, 0],
            f"{case.name}.captum.occlusion": hidden[:, 0],
            f"{case.name}.pytorch_grad_cam.grad_cam": torch.from_numpy(np.asarray(shown)),
        }
    np.savez_compressed(
        sys.argv[1],
        **{name: value.detach().numpy().astype(np.float32) for name, value in found.items()},
    )
    print(
        Path(sys.argv[1]).stat().st_size,
        {name: tuple(value.shape) for name, value in found.items()},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
