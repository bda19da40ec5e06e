"""Make the reference values of transformers in `tests/oracles/`, by running LXT and Zennit.

    python -m tools.oracles.attention --output tests/oracles

LXT (Achtibat et al., the authors of AttnLRP) does both of its forms here: the explicit one, whose
functions have the paper's rules in place of gradients, and the efficient one, which patches modules
so that Gradient × Input is what the rules give. All runs are in float64.

Needs torch, torchvision, lxt 2.1, zennit 0.5.1, transformers 4.52 with tokenizers 0.21, and onnx.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tools.oracles import networks  # first: it makes torchvision importable, which zennit imports

# isort: split
import lxt.explicit.functional as lf
import numpy as np
import onnx
import torch
from lxt.efficient import monkey_patch, monkey_patch_zennit
from lxt.efficient.patches import (
    layer_norm_forward,
    non_linear_forward,
    patch_attention,
    patch_method,
)
from lxt.explicit.rules import EpsilonRule, identity
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import vision_transformer
from transformers import ViTConfig, ViTForImageClassification
from transformers.activations import GELUActivation
from transformers.models.vit import modeling_vit
from zennit import rules
from zennit.composites import LayerMapComposite
from zennit.core import Composite
from zennit.layer import Sum

Arrays = dict[str, NDArray[Any]]
SIZE, PATCH, WIDTH, HEADS, DEPTH, CLASSES, SEED = 12, 4, 16, 2, 2, 5, 3
GAMMAS = rules.Gamma(0.25), rules.Gamma(0.05)
"""Of the patch convolution, and of the other linear layers."""
SUM_EPSILON, PRODUCT_EPSILON = 1e-8, 1e-8
"""What LXT adds to the denominators of sums and, before it halves, of products."""


def vit() -> nn.Module:
    """torchvision's vision transformer, thin."""
    return vision_transformer.VisionTransformer(
        image_size=SIZE,
        patch_size=PATCH,
        num_layers=DEPTH,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        mlp_dim=24,
        num_classes=CLASSES,
    )


class HuggingFace(nn.Module):
    """The vision transformer of Hugging Face, thin."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ViTConfig(
            image_size=SIZE,
            patch_size=PATCH,
            num_hidden_layers=DEPTH,
            num_attention_heads=HEADS,
            hidden_size=WIDTH,
            intermediate_size=24,
            num_labels=CLASSES,
            attn_implementation="eager",
        )
        self.net = ViTForImageClassification(sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of `images` (N, 3, H, W)."""
        logits: Tensor = self.net(images).logits
        return logits


class Scale(nn.Module):
    """A learnt factor for every channel, the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """`x` times the factors."""
        return x * self.factor


class Mixing(nn.Module):
    """ConvNeXt's block, then the two of an MLP-Mixer, with modules that Zennit's rules can hold."""

    def __init__(self) -> None:
        super().__init__()
        tokens = (SIZE // PATCH) ** 2
        self.stem = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, eps=1e-6) for _ in range(3))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(n, 2 * n), nn.GELU(), nn.Linear(2 * n, n))
            for n in (WIDTH, tokens, WIDTH)
        )
        self.scale = Scale(WIDTH)
        self.sums = nn.ModuleList(Sum() for _ in range(3))
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of `images` (N, 3, H, W)."""
        x = self.stem(images)
        y = self.norms[0](self.depthwise(x).permute(0, 2, 3, 1))
        x = self._sum(0, x, self.scale(self.mlps[0](y)).permute(0, 3, 1, 2))
        x = torch.flatten(x, 2).transpose(1, 2)
        x = self._sum(1, x, self.mlps[1](self.norms[1](x).transpose(1, 2)).transpose(1, 2))
        x = self._sum(2, x, self.mlps[2](self.norms[2](x)))
        return self.head(torch.flatten(self.pool(x.transpose(1, 2)), 1))

    def _sum(self, index: int, x: Tensor, y: Tensor) -> Tensor:
        """`x` + `y`: an Add where it is exported, a module that Zennit sees where it is run."""
        if torch.jit.is_tracing():
            return x + y
        total: Tensor = self.sums[index](torch.stack([x, y], dim=-1))
        return total


def seeded(net: nn.Module) -> tuple[nn.Module, NDArray[Any]]:
    """`net` in eval mode and float64, its values float32-representable, and its input (2, 3, H, W).

    Weights are He-normal by their last axes; vectors, tokens and positions are random too.
    """
    draw = np.random.default_rng(SEED)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if value.dim() > 1 and "token" not in name and "position" not in name:
                values = draw.normal(0, (1.5 / value[0].numel()) ** 0.5, value.shape)
            else:
                centre = 1.0 if value.dim() == 1 and not name.endswith("bias") else 0.0
                values = draw.normal(centre, 0.3, value.shape)
            value.copy_(torch.from_numpy(values.astype(np.float32)))
    images = draw.normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    return net.double().eval(), images


def explicit(net: Any, images: Tensor, *, constant_attention: bool = False) -> Tensor:
    """torchvision's forward pass, every operation with LXT's rule in the place of its gradient.

    Modules of `net` are called as they are: who calls this gives them rules.
    """
    x = torch.flatten(net.conv_proj(images), 2).transpose(1, 2)
    token = net.class_token.detach().expand(len(images), -1, -1)
    x = lf.add2(torch.cat([token, x], 1), net.encoder.pos_embedding.detach(), epsilon=SUM_EPSILON)
    for block in net.encoder.layers:
        y = _attention(block.self_attention, _norm(block.ln_1, x), constant_attention)
        x = lf.add2(x, y, epsilon=SUM_EPSILON)
        up, activation, _, down, _ = block.mlp
        y = down(identity(activation, up(_norm(block.ln_2, x))))
        x = lf.add2(x, y, epsilon=SUM_EPSILON)
    logits: Tensor = net.heads.head(_norm(net.encoder.ln, x)[:, 0])
    return logits


def _norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    normed: Tensor = lf.layer_norm(x, norm.weight, norm.bias, norm.eps)
    return normed


def _attention(attention: Any, x: Tensor, constant: bool) -> Tensor:
    """Self-attention; `attention.projections` are its three linear layers."""
    count, tokens, width = x.shape
    query, key, value = (
        projection(x).reshape(count, tokens, HEADS, -1).transpose(1, 2)
        for projection in attention.projections
    )
    scale = torch.tensor((width // HEADS) ** -0.5, dtype=x.dtype)
    key = key.transpose(-1, -2)
    scores = lf.matmul(lf.mul2(query, scale), key, epsilon=PRODUCT_EPSILON)
    weights = lf.softmax(scores, -1)
    if constant:
        # The rule of a product gives half to each factor, and the values are to have all of it.
        mixed = EpsilonRule(lambda v: weights.detach() @ v, epsilon=PRODUCT_EPSILON)(value)
    else:
        mixed = lf.matmul(weights, value, epsilon=PRODUCT_EPSILON)
    mixed = mixed.transpose(1, 2).reshape(count, tokens, width)
    projected: Tensor = attention.out_proj(mixed)
    return projected


def _with_projections(net: Any) -> None:
    """Write the one matrix of queries, keys and values as three linear layers."""
    for block in net.encoder.layers:
        attention, layers = block.self_attention, []
        weights = attention.in_proj_weight.detach().chunk(3)
        for weight, bias in zip(weights, attention.in_proj_bias.detach().chunk(3), strict=True):
            layer = nn.Linear(WIDTH, WIDTH).to(weight)
            layer.weight.data, layer.bias.data = weight.clone(), bias.clone()
            layers.append(layer)
        attention.projections = nn.ModuleList(layers)
        plain = attention.out_proj
        attention.out_proj = nn.Linear(WIDTH, WIDTH).to(plain.weight)
        attention.out_proj.load_state_dict(plain.state_dict())


def gammas() -> Composite:
    """Zennit's γ-rule at the patch convolution and at the other linear layers."""
    patch, linear = GAMMAS
    return LayerMapComposite([(nn.Conv2d, patch), (nn.Linear, linear)])


@contextmanager
def epsilons(net: nn.Module) -> Iterator[None]:
    """Zennit's ε-rule, ε 1e-6, at every convolution and linear layer."""
    rule = rules.Epsilon(1e-6)
    with LayerMapComposite([(nn.Conv2d, rule), (nn.Linear, rule)]).context(net):
        yield


def relevance(
    forward: Callable[[Tensor], Tensor], images: NDArray[Any], *, times_input: bool
) -> NDArray[Any]:
    """What arrives at `images` from the predicted class: its logit's relevance, or if
    `times_input` the patched gradient times the input.
    """
    inputs = torch.from_numpy(images).double().requires_grad_()
    logits = forward(inputs)
    one = torch.nn.functional.one_hot(logits.argmax(1), CLASSES).to(logits)
    (found,) = torch.autograd.grad(logits, inputs, one if times_input else one * logits.detach())
    if times_input:
        found = found * inputs.detach()
    values: NDArray[Any] = found.numpy().astype(np.float32)
    return values


def vit_arrays(images: NDArray[Any]) -> Arrays:
    """Maps of torchvision's network: LXT's explicit form, then its efficient one, which patches
    the classes of torchvision and of Zennit for good.
    """
    found: Arrays = {}
    net, _ = seeded(vit())
    _with_projections(net)
    for name, constant in (("attn_lrp", False), ("cp_lrp", True)):
        run = partial(explicit, net, constant_attention=constant)
        with epsilons(net):
            found[name] = relevance(run, images, times_input=False)
        with gammas().context(net):
            found[f"{name}_gamma"] = relevance(run, images, times_input=False)
    net, _ = seeded(vit())
    monkey_patch(vision_transformer)
    found["efficient_cp_lrp"] = relevance(net, images, times_input=True)
    monkey_patch_zennit()
    with gammas().context(net):
        found["efficient_cp_lrp_gamma"] = relevance(net, images, times_input=True)
    return found


def hugging_face_arrays(images: NDArray[Any]) -> Arrays:
    """The map of Hugging Face's network by LXT's efficient AttnLRP."""
    net, _ = seeded(HuggingFace())
    monkey_patch(
        modeling_vit,
        {
            modeling_vit: patch_attention,
            nn.LayerNorm: partial(patch_method, layer_norm_forward),
            GELUActivation: partial(patch_method, non_linear_forward, keep_original=True),
        },
    )
    return {"efficient_attn_lrp": relevance(net, images, times_input=True)}


def mixing_arrays(images: NDArray[Any]) -> Arrays:
    """Maps of the network without attention, by Zennit alone."""
    net, _ = seeded(Mixing())
    common = [(nn.GELU, rules.Pass()), (nn.LayerNorm, rules.Pass()), (Scale, rules.Pass())]
    common += [(Sum, rules.Norm()), (nn.AdaptiveAvgPool1d, rules.Norm())]
    by_name = {
        "epsilon": (rules.Epsilon(), rules.Epsilon()),
        "gamma": GAMMAS,
        "zplus": (rules.ZPlus(), rules.ZPlus()),
        "alphabeta": (rules.AlphaBeta(2, 1), rules.Epsilon()),
    }
    found = {}
    for name, (convolution, linear) in by_name.items():
        composite = LayerMapComposite([(nn.Conv2d, convolution), (nn.Linear, linear), *common])
        with composite.context(net):
            found[name] = relevance(net, images, times_input=False)
    return found


MAKE: dict[str, tuple[Callable[[], nn.Module], Callable[[NDArray[Any]], Arrays]]] = {
    "mixing": (Mixing, mixing_arrays),  # before LXT patches Zennit
    "vit": (vit, vit_arrays),
    "vit-hugging-face": (HuggingFace, hugging_face_arrays),
}


def main() -> None:
    """Write the files of every network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    folder = parser.parse_args().output
    for make, _ in MAKE.values():  # exported as they are, before anything is patched
        net, images = seeded(make())
        name = next(name for name, (other, _) in MAKE.items() if other is make)
        model = networks.export(net, images, keep_batch_norm=False)
        networks.verify_logits(model, images, networks.logits_of(net, images))
        onnx.save(model, folder / f"{name}.onnx")
    for name, (make, arrays) in MAKE.items():
        net, images = seeded(make())
        logits = networks.logits_of(net, images).astype(np.float32)
        stored: dict[str, Any] = {"input": images, "logits": logits, **arrays(images)}
        np.savez_compressed(folder / f"{name}.npz", **stored)


if __name__ == "__main__":
    main()
