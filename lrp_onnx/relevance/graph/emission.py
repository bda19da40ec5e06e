"""How equations become operators, where runtimes differ in
what is fast and in what is there at all.

The facts are those of ONNX Runtime 1.31's CPU and CUDA providers, its operator lists for the web,
and TensorRT's list of ONNX operators. Maps are the same whichever is chosen, to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lrp_onnx.errors import RuleError


@dataclass(frozen=True, slots=True, kw_only=True)
class Emission:
    """Choices among equivalent operators; what each is
    worth is measured by tools/benchmark/passes.py.
    """

    telescoped: bool = True
    """Relevance stays ``activation ⊙ coefficient`` until somebody
    needs the product, so that proportional rules divide by nothing.
    """
    signs: bool = True
    """What is known not to be negative saves its absolute
    value and half of every rule that tells signs apart.
    """
    ratios: bool = True
    """A quotient of relevance is its coefficient times a ratio of the forward pass: nothing but a
    product remains in the way of relevance, and the ratio serves every target.
    """
    remainders: bool = True
    """At a ratio split the main branch is what the rectified sum leaves beside the shortcut: the
    runtime's own fusion of convolution, sum and ReLU stays whole.
    """
    stabilizer_in_bias: bool = True
    """A stabilizer is added by the convolution that computes the denominator, as part of its bias.
    """
    flipped_convolutions: bool = True
    """Backward through a convolution of stride 1 is a
    convolution with flipped weights, not a ConvTranspose.
    """
    declared_shapes: bool = True
    """The shape of every tensor of relevance is stated: what
    a runtime cannot prove equal leaves its fast layouts.
    """
    relevance_last: bool = True
    """What depends on the target stands last in the file: a runtime then computes denominators when
    they are needed, instead of holding all of them.
    """
    blocked_masks: bool = False
    """ReLU's derivative as a depthwise convolution with a tanh: the CPU provider
    keeps channels in blocks around convolutions, additions and products, and
    leaves that layout for a comparison. Elsewhere a comparison is cheaper.
    """
    indexed_pools: bool = False
    """Max pooling hands back with MaxPool's second output and ScatterElements, which TensorRT and
    WebGPU do not have; otherwise with comparisons, one for every place in the window.
    """


PLAIN = Emission()
EMISSIONS: Mapping[str, Emission] = {
    "cpu": Emission(blocked_masks=True, indexed_pools=True),
    "cuda": Emission(indexed_pools=True),
    "tensorrt": PLAIN,
    "web": PLAIN,
    "portable": PLAIN,
}
"""What `--optimize-for` may name."""
DEFAULT_EMISSION = "cpu"


def find_emission(name: str) -> Emission:
    """What is right for the runtime called `name`; raises RuleError where none is."""
    if name not in EMISSIONS:
        raise RuleError(
            f"there is nothing to optimize for called {name!r}: it is {', '.join(EMISSIONS)}"
        )
    return EMISSIONS[name]
