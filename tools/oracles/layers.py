"""Zennit's rules on single small layers: the arrays of `layers.npz`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from zennit import rules
from zennit.core import Hook

Arrays = dict[str, NDArray[Any]]

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv_k1": (nn.Conv2d(2, 3, 1), (2, 7, 6)),
    "conv_k1_s2": (nn.Conv2d(2, 3, 1, stride=2), (2, 7, 6)),
    "conv_k3_p0_nobias": (nn.Conv2d(2, 3, 3, bias=False), (2, 7, 6)),
    "conv_k3_p1": (nn.Conv2d(2, 3, 3, padding=1), (2, 7, 6)),
    "conv_k3_s2_p1_odd": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 7, 5)),
    "conv_k3_s2_p1_even": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 8, 6)),
    "conv_k3_s3_p2": (nn.Conv2d(2, 3, 3, stride=3, padding=2), (2, 7, 6)),
    "conv_k3_p2_d2": (nn.Conv2d(2, 3, 3, padding=2, dilation=2), (2, 7, 6)),
    "conv_k3_s2_p1_d2": (nn.Conv2d(2, 3, 3, stride=2, padding=1, dilation=2), (2, 7, 6)),
    "conv_k3_p1_g2": (nn.Conv2d(4, 4, 3, padding=1, groups=2), (4, 5, 4)),
    "conv_k3_s2_p1_g2": (nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2), (4, 5, 6)),
    "conv_k7_s2_p3": (nn.Conv2d(2, 3, 7, stride=2, padding=3), (2, 9, 8)),
    "conv_k13_s12_p01": (nn.Conv2d(2, 3, (1, 3), stride=(1, 2), padding=(0, 1)), (2, 7, 6)),
    "dense": (nn.Linear(12, 5), (12,)),
    "mean_k2": (nn.AvgPool2d(2), (2, 7, 6)),
    "mean_k3_s2_p1_counted": (nn.AvgPool2d(3, 2, 1, count_include_pad=True), (2, 7, 6)),
    "mean_k3_s2_p1_uncounted": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 7, 6)),
    "mean_global": (nn.AdaptiveAvgPool2d(1), (2, 7, 6)),
    "max_k3_s2_p1_ties": (nn.MaxPool2d(3, 2, 1), (2, 7, 6)),
}
"""Layer and input shape without the batch."""


def _weighted(low: float, high: float) -> dict[str, Hook]:
    """The rules of layers with weights; `.no_bias` is Zennit's `zero_params='bias'`."""
    bias = {"zero_params": "bias"}
    return {
        "epsilon": rules.Epsilon(1e-6),
        "epsilon.no_bias": rules.Epsilon(1e-6, **bias),
        "epsilon_0.25": rules.Epsilon(0.25),
        "gamma_0.25": rules.Gamma(0.25),
        "gamma_0.25.no_bias": rules.Gamma(0.25, **bias),
        "gamma_1.0": rules.Gamma(1.0),
        "zplus": rules.ZPlus(),
        "zplus.no_bias": rules.ZPlus(**bias),
        "alphabeta_2_1": rules.AlphaBeta(2, 1),
        "alphabeta_2_1.no_bias": rules.AlphaBeta(2, 1, **bias),
        "alphabeta_3_2": rules.AlphaBeta(3, 2),
        "wsquare": rules.WSquare(),
        "wsquare.no_bias": rules.WSquare(**bias),
        "flat": rules.Flat(),
        "zbox": rules.ZBox(low, high),
    }


def layer_arrays(low: float, high: float) -> Arrays:
    """Inputs, parameters and relevances (float32, computed
    in float64) of every layer, by `<layer>.<rule>.<array>`.

    The batch is 2: image 0 is signed, image 1 is nonnegative
    with a third of its values 0, as after a ReLU.
    """
    draw = np.random.default_rng(0)
    arrays: Arrays = {"low": np.array([low], np.float32), "high": np.array([high], np.float32)}
    for name, (layer, shape) in LAYERS.items():
        layer.double()
        with torch.no_grad():
            for key, parameter in layer.named_parameters():
                parameter.copy_(_tensor(draw.normal(size=parameter.shape)))
                arrays[f"{name}.layer.{key}"] = parameter.numpy().astype(np.float32)
        values = draw.normal(size=(2, *shape))
        values[1] = np.where(draw.random(shape) < 1 / 3, 0.0, np.abs(values[1]))
        if isinstance(layer, nn.MaxPool2d):
            values = np.round(values)  # many ties
        inputs = _tensor(values)
        incoming = _tensor(draw.normal(size=layer(inputs).shape))
        arrays |= {
            f"{name}.layer.input": inputs.numpy(),
            f"{name}.layer.incoming": incoming.numpy(),
        }
        arrays[f"{name}.layer.output"] = layer(inputs).detach().numpy()
        for rule, hook in _rules_of(layer, low, high).items():
            arrays[f"{name}.{rule}.relevance"] = _apply(layer, hook, inputs, incoming)
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def _rules_of(layer: nn.Module, low: float, high: float) -> dict[str, Hook | None]:
    if isinstance(layer, nn.MaxPool2d):
        return {"gradient": None}
    if isinstance(layer, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        return {"norm": rules.Norm(), "gradient": None}
    return {**_weighted(low, high)}


def _apply(layer: nn.Module, hook: Hook | None, inputs: Tensor, incoming: Tensor) -> NDArray[Any]:
    inputs = inputs.clone().requires_grad_()
    handles = hook.copy().register(layer) if hook else None
    (found,) = torch.autograd.grad(layer(inputs), inputs, incoming)
    if handles:
        handles.remove()
    relevance: NDArray[Any] = found.numpy()
    return relevance


def _tensor(values: NDArray[Any]) -> Tensor:
    """Float64 with float32-representable values."""
    return torch.from_numpy(values.astype(np.float32)).double()
