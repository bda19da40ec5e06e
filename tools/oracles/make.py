"""Make the reference values of `tests/oracles/` by running Zennit and torch's autograd in float64.

    python -m tools.oracles.make --output tests/oracles
    python -m tools.oracles.make --output tests/oracles --check

Needs torch, torchvision, zennit 0.5.1, onnx and onnxruntime. The
tests that compare with the values do not need the first three.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from tools.oracles import networks  # first: it makes torchvision importable, which zennit imports

# isort: split
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from zennit import composites, rules
from zennit.core import Composite, Hook
from zennit.layer import Sum
from zennit.torchvision import ResNetCanonizer
from zennit.types import Activation, AvgPool, BatchNorm, Convolution

from tools.oracles.layers import layer_arrays
from tools.oracles.networks import CASES, Case, ThinResNet

Arrays = dict[str, NDArray[Any]]
Make = Callable[..., Composite]

LOW, HIGH = -3.0, 3.0
"""The input box of every z-box rule here."""
CHECK_TOLERANCE = 1e-6
"""Largest difference that `--check` allows, relative to an array's largest absolute value."""
UNCHECKED = ("float32_error",)
"""Arrays that depend on the machine: the rounding error of float32 kernels."""


def guarded(z: Tensor) -> Tensor:
    """iNNvestigate's denominator: `z`, with 1e-7 in the place of exact zeros only."""
    return z + 1e-7 * (z == 0)


def _layers(
    conv: Hook, *, dense: Hook, first: Hook | None = None, stabilizer: object = 1e-6
) -> Make:
    """`first` (or `conv`) at the first convolution, `conv`
    at the rest, Norm at sums and means, Pass at ReLUs.
    """
    norm = rules.Norm(stabilizer=stabilizer)
    common = [(Activation, rules.Pass()), (Sum, norm), (AvgPool, norm), (BatchNorm, rules.Pass())]
    rest = [*common, (Convolution, conv), (nn.Linear, dense)]
    return lambda **options: composites.SpecialFirstLayerMapComposite(
        rest, [(Convolution, first or conv)], **options
    )


def _box(**options: object) -> Composite:
    return composites.EpsilonGammaBox(low=LOW, high=HIGH, **options)


ZENNIT: dict[str, Make] = {
    "epsilon_plus": composites.EpsilonPlus,
    "epsilon_plus_flat": composites.EpsilonPlusFlat,
    "epsilon_alpha2_beta1": composites.EpsilonAlpha2Beta1,
    "epsilon_alpha2_beta1_flat": composites.EpsilonAlpha2Beta1Flat,
    "epsilon_gamma_box": _box,
    "excitation_backprop": composites.ExcitationBackprop,
}
"""Zennit's own composites that take `zero_params`: each is also run as `<name>.no_bias`."""
GRADIENT_LIKE: dict[str, Make] = {
    "guided_backprop": composites.GuidedBackprop,
    "deconvnet": composites.DeconvNet,
}

SMALL = rules.Epsilon(1e-6)
BY_RULE: dict[str, Make] = {
    "conv_epsilon_0.25": _layers(rules.Epsilon(0.25), dense=SMALL),
    "conv_gamma_0.25": _layers(rules.Gamma(0.25), dense=SMALL),
    "conv_gamma_1.0": _layers(rules.Gamma(1.0), dense=SMALL, first=rules.ZBox(LOW, HIGH)),
    "conv_zplus": _layers(rules.ZPlus(), dense=SMALL, first=rules.ZBox(LOW, HIGH)),
    "conv_alphabeta_2_1": _layers(rules.AlphaBeta(2, 1), dense=SMALL, first=rules.WSquare()),
    "conv_alphabeta_3_2": _layers(rules.AlphaBeta(3, 2), dense=SMALL),
    "conv_wsquare": _layers(rules.WSquare(), dense=SMALL),
    "conv_flat": _layers(rules.Flat(), dense=SMALL),
}
DENSE = rules.Epsilon(0.1)
INNVESTIGATE: dict[str, Make] = {
    "preset_a": _layers(rules.ZPlus(), dense=DENSE),
    "preset_a_flat": _layers(rules.ZPlus(), dense=DENSE, first=rules.Flat()),
    "preset_b": _layers(rules.AlphaBeta(2, 1), dense=DENSE),
    "preset_b_flat": _layers(rules.AlphaBeta(2, 1), dense=DENSE, first=rules.Flat()),
    "lrp_z": _layers(rules.Epsilon(guarded), dense=rules.Epsilon(guarded), stabilizer=guarded),
    "lrp_epsilon": _layers(rules.Epsilon(1e-7), dense=rules.Epsilon(1e-7), stabilizer=1e-7),
}


@contextmanager
def exactly_merged(net: nn.Module, composite: Composite) -> Iterator[None]:
    """`composite` on `net`, with the merged batch norms made exact identities.

    Zennit's merge sets a batch norm's statistics to 0 and 1
    and leaves its ε, so each one still divides by √(1 + ε).
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [norm.eps for norm in norms]
    with composite.context(net):
        try:
            for norm in norms:
                norm.eps = 0.0
            yield
        finally:
            for norm, eps in zip(norms, kept, strict=True):
                norm.eps = eps


def relevance(
    net: ThinResNet, images: Tensor, start: Tensor, composite: Composite | None
) -> NDArray[Any]:
    """The map (N, 3, H, W) of `images` from `start` (N,
    classes) at the logits; the gradient without a composite.
    """
    inputs = images.clone().requires_grad_()
    with exactly_merged(net, composite) if composite else nullcontext():
        (found,) = torch.autograd.grad(net(inputs), inputs, start)
    values: NDArray[Any] = found.numpy()
    return values


def maps(case: Case, net: ThinResNet, images: Tensor, logits: Tensor) -> Arrays:
    """Every method's map (N, 3, H, W) in the precision of
    `images`; N is 2, or 1 (the first image) to save space.
    """
    one = torch.nn.functional.one_hot(logits.argmax(1), case.classes).to(images)
    start = one * logits
    lead = len(images) if case.name == "basic" else 1

    def run(make: Make, count: int, **options: object) -> NDArray[Any]:
        return relevance(
            net, images[:count], start[:count], make(canonizers=[ResNetCanonizer()], **options)
        )

    gradient = relevance(net, images[:lead], one[:lead], None)
    found = {name: run(make, lead) for name, make in (ZENNIT | GRADIENT_LIKE).items()}
    found |= {"gradient": gradient, "gradient_x_input": gradient * images[:lead].numpy()}
    found |= {f"{name}.no_bias": run(make, 1, zero_params="bias") for name, make in ZENNIT.items()}
    by_rule = INNVESTIGATE if case.stride_in_1x1 else BY_RULE | INNVESTIGATE
    return found | {name: run(make, 1) for name, make in by_rule.items()}


def case_arrays(case: Case) -> tuple[Arrays, dict[str, onnx.ModelProto]]:
    """The arrays of one network, and its ONNX models by file name."""
    net, images = networks.build(case)
    logits = networks.logits_of(net, images)
    exact = maps(case, net, torch.from_numpy(images).double(), torch.from_numpy(logits))
    rough = maps(case, net.float(), torch.from_numpy(images), torch.from_numpy(logits).float())
    net.double()
    peaks = {name: np.abs(value).max() for name, value in exact.items()}
    arrays: Arrays = {
        "input": images,
        "logits": logits.astype(np.float32),
        "target": logits.argmax(1),
        "low": np.full(3, LOW, np.float32),
        "high": np.full(3, HIGH, np.float32),
        "methods": np.array(list(exact)),
        "max_abs": np.array(list(peaks.values()), np.float32),
        "float32_error": np.array(
            [np.abs(rough[n] - exact[n]).max() / peaks[n] for n in exact], np.float32
        ),
    }
    models = {
        f"{case.name}.folded.onnx": networks.export(net, images, keep_batch_norm=False),
        f"{case.name}.bn.onnx": networks.export(net, images, keep_batch_norm=True),
    }
    for model in models.values():
        networks.verify_logits(model, images, logits)
    return arrays | {name: value.astype(np.float32) for name, value in exact.items()}, models


def report(name: str, arrays: Arrays) -> None:
    """Print each method's largest |R|, that over the start,
    and the error of the same run in float32.
    """
    start = float(arrays["logits"][0].max())
    print(
        f"\n{name}: start {start:.4f}\n  {'method':34s} {'N':>2s} {'max |R|':>10s} "
        f"{'/ start':>10s} {'float32':>9s}"
    )
    for method, peak, error in zip(
        arrays["methods"], arrays["max_abs"], arrays["float32_error"], strict=True
    ):
        print(
            f"  {method:34s} {len(arrays[method]):2d} "
            f"{peak:10.3g} {peak / start:10.3g} {error:9.1e}"
        )


def check(path: Path, arrays: Arrays) -> list[str]:
    """What differs between the file at `path` and `arrays`, one line each."""
    if not path.is_file():
        return [f"{path} is missing"]
    faults = []
    with np.load(path) as kept:
        if set(kept.files) != set(arrays):
            faults.append(f"{path.name}: other names: {sorted(set(kept.files) ^ set(arrays))}")
        for name in sorted(set(kept.files) & set(arrays) - set(UNCHECKED)):
            if not _same(kept[name], arrays[name]):
                faults.append(f"{path.name}: {name} differs")
    return faults


def _same(kept: NDArray[Any], made: NDArray[Any]) -> bool:
    if kept.shape != made.shape or kept.dtype.kind != made.dtype.kind:
        return False
    if kept.dtype.kind != "f":
        return bool((kept == made).all())
    return bool(np.abs(kept - made).max() <= CHECK_TOLERANCE * np.abs(kept).max())


def main() -> int:
    """Write the oracles, or with --check compare the written ones; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, required=True, help="the folder of the .onnx and .npz files"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; compare with what the folder has"
    )
    options = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    faults: list[str] = []
    files: dict[str, Arrays] = {"layers": layer_arrays(LOW, HIGH)}
    for case in CASES:
        arrays, models = case_arrays(case)
        files[case.name] = arrays
        report(case.name, arrays)
        for name, model in models.items():
            if options.check:
                kept = onnx.load(options.output / name)
                networks.verify_logits(kept, arrays["input"], arrays["logits"])
            else:
                onnx.save(model, options.output / name)
    for name, arrays in files.items():
        path = options.output / f"{name}.npz"
        if options.check:
            faults += check(path, arrays)
        else:
            stored: dict[str, Any] = {**arrays}
            np.savez_compressed(path, **stored)
    print(f"\n{'file':28s} {'bytes':>8s}")
    for path in sorted(options.output.iterdir()):
        print(f"{path.name:28s} {path.stat().st_size:8d}")
    print("\n".join(faults) if faults else "all agree" if options.check else "written")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
