"""How equations become operators: runtimes differ in what is fast and in what they have at all.

The facts are those of ONNX Runtime 1.31's CPU and CUDA providers, its operator lists for the web,
and TensorRT's list of ONNX operators. Maps are the same whichever is chosen, to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lrp_onnx.errors import RuleError


@dataclass(frozen=True, slots=True, kw_only=True)
class Emission:
    """Choices among equivalent operators.

    `tools/benchmark/passes.py` measures what each is worth.
    """

    telescoped: bool = True
    """Relevance stays ``activation ⊙ coefficient`` until a rule needs the product: proportional
    rules then divide by nothing.
    """
    signs: bool = True
    """A tensor that is known not to be negative needs no absolute value, and half of every rule
    that tells signs apart falls away.
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
    """The transpose of a convolution of stride 1 is a convolution with flipped weights, not a
    ConvTranspose.
    """
    declared_shapes: bool = True
    """The shape of every tensor of relevance is stated: a runtime leaves its fast layouts where it
    cannot prove that two shapes are equal.
    """
    relevance_last: bool = True
    """What depends on the target stands last in the file: a runtime then computes denominators when
    they are needed, instead of holding all of them.
    """
    blocked_masks: bool = False
    """ReLU's derivative is a depthwise convolution with a tanh: the CPU provider keeps channels in
    blocks around convolutions, additions and products, and leaves that layout for a comparison.
    Elsewhere a comparison is cheaper.
    """
    indexed_pools: bool = False
    """Max pooling hands relevance back with MaxPool's second output and ScatterElements, which
    TensorRT and WebGPU do not have; otherwise with a comparison for every place in the window.
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
    """The choices for the runtime called `name`; raises RuleError where the name is not known."""
    if name not in EMISSIONS:
        raise RuleError(
            f"there is nothing to optimize for called {name!r}: it is {', '.join(EMISSIONS)}"
        )
    return EMISSIONS[name]
