"""How equations become operators, where runtimes differ in what is fast and in what is there at all.

The facts are those of ONNX Runtime 1.31's CPU and CUDA providers, its operator lists for the web, and TensorRT's list
of ONNX operators. Maps are the same whichever is chosen, to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lrp_onnx.errors import RuleError


@dataclass(frozen=True, slots=True)
class Emission:
    """Choices among equivalent operators."""

    title: str
    blocked_masks: bool
    """ReLU's derivative as a depthwise convolution with a tanh: the CPU provider keeps channels in blocks around
    convolutions, additions and products, and leaves that layout for a comparison. Elsewhere a comparison is cheaper.
    """
    indexed_pools: bool
    """Max pooling hands back with MaxPool's second output and ScatterElements, which TensorRT and WebGPU do not have;
    otherwise with comparisons, one for every place in the window.
    """


EMISSIONS: Mapping[str, Emission] = {
    "cpu": Emission("ONNX Runtime's CPU provider", True, True),
    "cuda": Emission("ONNX Runtime's CUDA provider", False, True),
    "tensorrt": Emission("TensorRT: no MaxPool indices", False, False),
    "web": Emission("onnxruntime-web on WebGPU: no MaxPool indices, no ScatterElements", False, False),
    "portable": Emission("any ONNX runtime: the plainest operators", False, False),
}
"""What `--optimize-for` may name."""
DEFAULT_EMISSION = "cpu"


def find_emission(name: str) -> Emission:
    """What is right for the runtime called `name`; raises RuleError where none is."""
    if name not in EMISSIONS:
        raise RuleError(f"there is nothing to optimize for called {name!r}: it is {', '.join(EMISSIONS)}")
    return EMISSIONS[name]
