"""How equations become operators: runtimes differ in what is fast, in what they have at all, and in
what they compute wrongly without a warning.

Maps are the same whichever operators are chosen, to rounding. `FACTS` holds what was seen on which
runtime and the choice that follows; the choices for every runtime (`EMISSIONS`) are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    relevance_last: bool = True
    """What depends on the target stands last in the file: a runtime then computes denominators when
    they are needed, instead of holding all of them.
    """
    declared_shapes: bool = False
    """The shape of every tensor of relevance is stated: ONNX Runtime leaves its fast layouts where
    it cannot prove that two shapes are equal. Otherwise no tensor inside the graph has a stated
    shape with a symbolic size.
    """
    blocked_masks: bool = False
    """ReLU's derivative is a depthwise convolution with a tanh, otherwise a comparison."""
    indexed_pools: bool = False
    """Max pooling hands relevance back with MaxPool's second output and ScatterElements; otherwise
    with a comparison for every place in the window.
    """
    separate_weights: bool = False
    """The weight of a ConvTranspose is ``Neg(Neg(w))``: a tensor of its own, which adds nothing to
    the file.
    """
    clipped_minima: bool = False
    """Minima and maxima are Clips, or choices by a comparison; otherwise Min and Max."""
    matrices_last: bool = False
    """A stored matrix stands on the right of a product with a batch, between two Transposes;
    otherwise on the left where that is its place.
    """
    widest_concat: int | None = None
    """Most inputs of a Concat; more are nested."""
    required_target: bool = False
    """The input `target` has to be given, unless `--inputs` says otherwise."""
    stored_weights: bool = False
    """Weights that follow from stored ones (rectified, squared, flipped) are stored too, not
    computed in the graph: files grow.
    """
    loops: bool = False
    """Connected components are found in a Loop that ends when nothing changes; otherwise by
    squaring a matrix, whose cost is the same for every map.
    """
    doubles: bool = False
    """What decides a region or a level is computed in float64, as Python does; otherwise in
    float32, where values nearer than its precision to a threshold may fall on the other side.
    """


@dataclass(frozen=True, slots=True)
class Fact:
    """What was seen on a runtime, and the choice of operators that follows."""

    runtimes: str
    """Where it was seen: runtimes and versions."""
    seen: str
    """What they do."""
    choice: str
    """Field of `Emission`."""
    value: Any
    """Its value where the fact is heeded."""
    forms: tuple[str, ...]
    """The files that heed it, by what `--optimize-for` calls them."""


NAMES = ("cpu", "cuda", "tensorrt", "web", "openvino", "portable")
"""What `--optimize-for` may name."""
ELSEWHERE = ("tensorrt", "web", "openvino", "portable")
"""All but those that are for ONNX Runtime's own CPU and CUDA providers."""
FACTS = (
    Fact(
        "ONNX Runtime 1.31 (CPU provider)",
        "leaves the layout with channels in blocks for a comparison, not for Conv and Tanh: "
        "2 to 10 % of a run",
        "blocked_masks",
        True,
        ("cpu",),
    ),
    Fact(
        "ONNX Runtime 1.31 (CPU provider)",
        "leaves that layout where it cannot prove that two shapes are equal, and the start's "
        "length is not the batch's",
        "declared_shapes",
        True,
        ("cpu", "cuda"),
    ),
    Fact(
        "ONNX Runtime 1.18 to 1.32 (CPU and CUDA providers)",
        "have MaxPool's second output and ScatterElements, one node each instead of a comparison "
        "for every place in the window. OpenCV 5.0, MNN 3.6 and IREE 3.13 compute them wrongly "
        "without a warning; WebGPU (onnxruntime-webgpu 1.27) and TensorRT (10.15's list) do not "
        "have MaxPool's second output",
        "indexed_pools",
        True,
        ("cpu", "cuda"),
    ),
    Fact(
        "OpenCV 5.0 (DNN, its new engine)",
        "pads channels to whole blocks, divides by what is in the padding, 0 or nearly, where a "
        "convolution's bias holds the stabilizer, and a later convolution spreads the NaN; a "
        "stabilizer that an Add brings in is in the padding too",
        "stabilizer_in_bias",
        False,
        ("portable",),
    ),
    Fact(
        "tract 0.23.9",
        "does not let the batch be fixed where the shape of a tensor inside the graph states a "
        "symbol for it: it cannot unify N with the number",
        "declared_shapes",
        False,
        ELSEWHERE,
    ),
    Fact(
        "OpenVINO 2024.4 to 2026.4.1 (CPU plugin)",
        "keeps repacked weights by layout and address: a Conv and a ConvTranspose that share a "
        "square weight get the same one, and the map is wrong without a warning",
        "separate_weights",
        True,
        ELSEWHERE,
    ),
    Fact(
        "OpenCV 4.14 (DNN)",
        "crashes where a stored matrix stands on the left of a product with a batch",
        "matrices_last",
        True,
        ("portable",),
    ),
    Fact(
        "onnxruntime-web 1.30 (WebGPU by its default import)",
        "has eight storage buffers a shader: a Concat of eight inputs or more is dropped without "
        "an error",
        "widest_concat",
        7,
        ELSEWHERE,
    ),
    Fact(
        "ONNX Runtime 1.27 (WebGPU provider: onnxruntime-web/webgpu)",
        "has neither Min nor Max, which then run on the CPU, with a copy of the tensor there and "
        "back; Clip and Where it has",
        "clipped_minima",
        True,
        ("web",),
    ),
    Fact(
        "onnxruntime-node 1.30, onnxruntime-openvino 1.24.1, tinygrad 0.14; onnxruntime-web 1.30; "
        "OpenVINO, tract 0.23.9, IREE 3.13; onnxsim 0.8.1, onnxslim 0.1.98",
        "ignore an input with a default without a warning; refuse it; do not have it; remove it",
        "required_target",
        True,
        ELSEWHERE,
    ),
    Fact(
        "TensorRT 8.4 (its list of operators); OpenCV 4.14; MNN 3.6.1; onnx2torch 1.5.15; "
        "ONNX Runtime 1.32's quantisation tools",
        "want the weights of convolutions as stored tensors",
        "stored_weights",
        True,
        ("tensorrt", "portable"),
    ),
    Fact(
        "ONNX Runtime 1.18.1 and 1.32 (CPU provider)",
        "run a Loop that ends when nothing changes: a quarter of the squarings' time. OpenCV 5.0 "
        "computes it wrongly without a warning; OpenCV 4.14 and tract 0.23.9 do not read it",
        "loops",
        True,
        ("cpu", "cuda"),
    ),
    Fact(
        "ONNX Runtime 1.18.1 and 1.32 (CPU provider); the CUDA provider by its list of kernels",
        "have products, sums and comparisons in float64; TensorRT and WebGPU have no float64",
        "doubles",
        True,
        ("cpu", "cuda"),
    ),
)
"""What was seen on which runtime; tests/relevance/graph/test_facts.py has a case for each."""


def choices_of(name: str) -> Emission:
    """The operators that the facts choose for the file called `name`."""
    return Emission(**{fact.choice: fact.value for fact in FACTS if name in fact.forms})


EMISSIONS: Mapping[str, Emission] = {name: choices_of(name) for name in NAMES}
"""Name of `--optimize-for` → its operators."""
PURPOSES: Mapping[str, str] = {
    "cpu": "ONNX Runtime's CPU provider",
    "cuda": "ONNX Runtime's CUDA provider",
    "tensorrt": "TensorRT",
    "web": "ONNX Runtime in browsers and Node.js",
    "openvino": "OpenVINO",
    "portable": "every runtime that was tried",
}
"""What the files are for."""
DEFAULT_EMISSION = "cpu"


def find_emission(name: str) -> Emission:
    """The choices for the runtime called `name`; raises RuleError where the name is not known."""
    if name not in EMISSIONS:
        raise RuleError(
            f"there is nothing to optimize for called {name!r}: it is {', '.join(EMISSIONS)}"
        )
    return EMISSIONS[name]
