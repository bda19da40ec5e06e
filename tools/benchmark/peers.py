"""Other people's LRP on the torch model, for the benchmark: run as they are, never copied."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Run = Callable[[NDArray[np.float32]], object]
ZENNIT = {
    "epsilon-plus-flat": "EpsilonPlusFlat",
    "epsilon-gamma-box": "EpsilonGammaBox",
    "epsilon-plus": "EpsilonPlus",
}
"""Our name of a composite → Zennit's."""


def torch_methods(
    model: Any, given: argparse.Namespace, missing: list[str], precision: str
) -> dict[str, Run]:
    """Name → what runs it on a batch: forward, Gradient ×
    Input, and Captum's and Zennit's where installed.
    """
    torch.set_num_threads(given.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    model = model.to(given.device)
    model = model.half() if precision == "fp16" else model
    found: dict[str, Run] = {
        "torch forward": lambda x: forward(model, x, given.device),
        "torch Gradient x Input": lambda x: gradient(model, x, given.device),
    }
    if "captum" not in missing:
        found["Captum LRP"] = captum_method(model, given.device)
    if "zennit" not in missing:
        wanted = [name for name in ZENNIT if name in given.composite]
        found |= {
            f"Zennit {ZENNIT[name]}": zennit_method(model, ZENNIT[name], given.device)
            for name in wanted
        }
    return found


def forward(model: nn.Module, x: NDArray[np.float32], device: str) -> object:
    with torch.no_grad():
        return model(torch.from_numpy(x).to(device)).cpu()


def gradient(model: nn.Module, x: NDArray[np.float32], device: str) -> object:
    picture = torch.from_numpy(x).to(device).requires_grad_(True)
    scores = model(picture)
    scores.max(1).values.sum().backward()
    return (picture * picture.grad).sum(1).cpu()


def captum_method(model: nn.Module, device: str) -> Run:
    """Captum's LRP with its default rules; a ReLU of its own for every use, which Captum needs."""
    import copy

    from captum.attr import LRP

    single = copy.deepcopy(model)
    for block in single.modules():
        if hasattr(block, "relu"):
            block.relu = nn.ReLU(inplace=False)

    def run(x: NDArray[np.float32]) -> object:
        picture = torch.from_numpy(x).to(device).requires_grad_(True)
        with torch.no_grad():
            target = single(picture).argmax(1)
        return LRP(single).attribute(picture, target=target)

    return run


def zennit_method(model: nn.Module, name: str, device: str) -> Run:
    import copy

    from zennit import composites
    from zennit.attribution import Gradient
    from zennit.torchvision import ResNetCanonizer

    own = copy.deepcopy(model)
    for norm in own.modules():  # its canonizer would apply a normalisation's eps twice
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_var += norm.eps
            norm.eps = 0.0
    options: dict[str, Any] = {"canonizers": [ResNetCanonizer()]}
    if name == "EpsilonGammaBox":
        options |= {"low": -3.0, "high": 3.0}
    composite = getattr(composites, name)(**options)

    def run(x: NDArray[np.float32]) -> object:
        picture = torch.from_numpy(x).to(device)
        with Gradient(model=own, composite=composite) as attributor:
            with torch.no_grad():
                target = own(picture).argmax(1)
            classes = own.fc.out_features
            return attributor(picture, torch.eye(classes, device=device)[target])

    return run
