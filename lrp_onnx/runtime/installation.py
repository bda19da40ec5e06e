"""The installed ONNX Runtime: which package it is, and whether it works."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import logging
from typing import Any

from lrp_onnx.errors import ProviderError

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
"""Packages with the same import name: the last one installed overwrites the other's files, and
removing one breaks both.
"""
REPAIR = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install lrp-onnx"
"""The second command installs the package that lrp-onnx needs on this platform."""

_log = logging.getLogger(__name__)


@functools.cache
def onnx_runtime() -> Any:
    """The module onnxruntime. Logs one warning if it works although both packages are installed.

    Raises:
        ProviderError: it is missing or broken.
    """
    names = installed()
    fault = ""
    try:
        module = importlib.import_module("onnxruntime")
    except ImportError as error:
        fault = str(error)
    else:
        if not hasattr(module, "InferenceSession"):
            fault = "its files are gone, as happens when one of two packages is uninstalled"
    if fault:
        present = " and ".join(names) or "neither onnxruntime nor onnxruntime-gpu"
        raise ProviderError(
            f"ONNX Runtime cannot be imported ({fault}); installed: {present}. Run `{REPAIR}`"
        )
    if len(names) > 1:
        _log.warning(
            "%s are both installed and overwrite each other: run `%s`", " and ".join(names), REPAIR
        )
    return module


def installed() -> list[str]:
    """Which of `DISTRIBUTIONS` are installed."""
    present = []
    for name in DISTRIBUTIONS:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        present.append(name)
    return present
