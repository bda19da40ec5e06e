"""The composites that people know by name, and ours."""

from __future__ import annotations

import difflib

from lrp_onnx.errors import RuleError
from lrp_onnx.plan.plan import Plan
from lrp_onnx.relevance.composites.assign import Composite, Entry
from lrp_onnx.relevance.rules.attention import (
    Halves,
    SoftmaxTaylor,
    Values,
)
from lrp_onnx.relevance.rules.joins import (
    Gate,
    GradientJoin,
    GradientProduct,
    MainOnly,
    Parts,
    Ratio,
    Signed,
    Symmetric,
    ZPlusJoin,
)
from lrp_onnx.relevance.rules.linear import (
    REFERENCE_EPSILON,
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Norm,
    WholeBlock,
    WSquare,
    ZBox,
    ZPlus,
)
from lrp_onnx.relevance.rules.passing import (
    AverageStandIn,
    DeconvRelu,
    Gradient,
    GuidedRelu,
    LayerNorm,
    Pass,
    Route,
    WinnerTakeAll,
)
from lrp_onnx.relevance.rules.spread import Spread

_TAIL: tuple[Entry, ...] = (
    ("normalization", Pass()),
    ("reshape", Pass()),
    ("routing", Route()),
    ("product", Gate()),
    ("attention", Values()),
    ("matrix product", Halves()),
    ("gate path", Gradient()),
    ("concatenation", Parts()),
)
_C3_WITHOUT_TIES = "c3(size=14, expansion=bilinear, outside=rank)"
_HEAD: tuple[Entry, ...] = (("preparation", Pass()),)
_ZENNIT: tuple[Entry, ...] = (
    ("activation", Pass()),
    ("join", Signed()),
    ("average pooling", Norm()),
    ("affine", Pass()),
    ("max pooling", WinnerTakeAll()),
    *_TAIL,
)
_GAMMA_PLUS: tuple[Entry, ...] = (
    ("upper convolution", Gamma()),
    ("convolution", ZPlus()),
    ("dense", Epsilon()),
    ("join", ZPlusJoin()),
    *_ZENNIT,
)
_ZENNIT_SOURCE = "Zennit (Anders et al. 2021)"
_INVESTIGATE: tuple[Entry, ...] = (
    ("activation", Pass()),
    ("join", Signed(epsilon=1e-7)),
    ("average pooling", Norm(epsilon=1e-7)),
    ("affine", Epsilon(epsilon=1e-7)),
    ("max pooling", WinnerTakeAll()),
    *_TAIL,
)
_INVESTIGATE_SOURCE = "iNNvestigate (Alber et al. 2019)"
_GRADIENT: tuple[Entry, ...] = (
    ("join", GradientJoin()),
    ("product", GradientProduct()),
    ("matrix product", GradientProduct()),
    ("concatenation", Parts()),
    ("everything", Gradient()),
)
_TRANSFORMER: tuple[Entry, ...] = (
    ("first", Gamma()),
    ("convolution", Gamma(gamma=0.05)),
    ("dense", Gamma(gamma=0.05)),
    ("affine", Epsilon()),
    ("join", Signed()),
    ("average pooling", Norm()),
    ("max pooling", WinnerTakeAll()),
    ("activation", Pass()),
    ("normalization", LayerNorm()),
    *_TAIL,
)
_REFERENCE: tuple[Entry, ...] = (
    ("first", ZPlus(ones=True, epsilon=REFERENCE_EPSILON, signed=False, bias="drop")),
    ("convolution", ZPlus(epsilon=REFERENCE_EPSILON, signed=False, bias="drop")),
    ("dense", ZPlus(epsilon=REFERENCE_EPSILON, signed=False, bias="drop")),
    ("max pooling", AverageStandIn(kernel=2, epsilon=REFERENCE_EPSILON, signed=False)),
    ("average pooling", Norm(epsilon=REFERENCE_EPSILON, signed=False)),
    ("activation", Pass()),
    ("affine", Pass()),
    *_TAIL,
)


def _reference(title: str, *joins: Entry) -> Composite:
    return Composite(
        title=title,
        source="released code of Otsuki et al., ECCV 2024",
        start="probability",
        fold_batch_norm=False,
        entries=(*_HEAD, *joins, *_REFERENCE),
    )


def _zennit(title: str, *entries: Entry) -> Composite:
    return Composite(title=title, source=_ZENNIT_SOURCE, entries=(*_HEAD, *entries, *_ZENNIT))


def _investigate(title: str, *entries: Entry) -> Composite:
    return Composite(
        title=title, source=_INVESTIGATE_SOURCE, entries=(*_HEAD, *entries, *_INVESTIGATE)
    )


COMPOSITES: dict[str, Composite] = {
    "c3-lrp": Composite(
        title="C3-LRP to the letter: every residual block one layer "
        "of the epsilon rule (Eq. 1), epsilon rule elsewhere",
        source="Doublet et al., JSAI 2024",
        post="c3",
        entries=(
            *_HEAD,
            ("block join", WholeBlock()),
            ("join", Signed(epsilon=REFERENCE_EPSILON, signed=False)),
            ("dense", Epsilon(epsilon=REFERENCE_EPSILON, signed=False, bias="drop")),
            ("convolution", Epsilon(epsilon=REFERENCE_EPSILON, signed=False)),
            ("affine", Epsilon(epsilon=REFERENCE_EPSILON, signed=False)),
            ("average pooling", Norm(epsilon=REFERENCE_EPSILON, signed=False)),
            ("max pooling", WinnerTakeAll()),
            ("activation", Pass()),
            *_TAIL,
        ),
    ),
    "c3-lrp-zplus": Composite(
        title="C3-LRP on what its authors' code probably was: Eq. 1 at "
        "the blocks, z+ and their stand-ins elsewhere (our reading)",
        source="Doublet et al., JSAI 2024, with the base of Otsuki et al., ECCV 2024",
        post="c3",
        start="probability",
        entries=(*_HEAD, ("block join", WholeBlock()), ("join", Ratio()), *_REFERENCE),
    ),
    "lrp-resnet": Composite(
        title="relevance split by magnitude at every shortcut, z+ elsewhere; conserves relevance",
        source="Otsuki et al., ECCV 2024, with clean pooling and first layer",
        entries=(
            *_HEAD,
            ("join", Ratio()),
            ("convolution", ZPlus(epsilon=1e-9, bias="drop")),
            ("dense", ZPlus(epsilon=1e-9, bias="drop")),
            ("affine", Pass()),
            ("average pooling", Norm(epsilon=1e-9)),
            ("max pooling", WinnerTakeAll()),
            ("activation", Pass()),
            *_TAIL,
        ),
    ),
    "lrp-resnet-reference": _reference(
        "the released ECCV 2024 code: split by magnitude, stand-ins included", ("join", Ratio())
    ),
    "lrp-resnet-reference-symmetric": _reference(
        "its ablation: shortcuts take half", ("join", Symmetric())
    ),
    "lrp-resnet-reference-main-only": _reference(
        "its ablation: identity shortcuts take nothing, projections by magnitude",
        ("identity join", MainOnly()),
        ("join", Ratio()),
    ),
    "lrp-resnet-reference-main-only-symmetric": _reference(
        "its ablation: identity shortcuts take nothing, projections half",
        ("identity join", MainOnly()),
        ("join", Symmetric()),
    ),
    "residual-c3": Composite(
        title="why this class rather than others: as epsilon-gamma-plus, but what a strided "
        "shortcut takes is spread over the positions that it skips, and relevance stops at 1/8 of "
        "the picture; then C3 without ties",
        source="ours (models/EVALUATION.md), with the C3 of Doublet et al., JSAI 2024",
        post=_C3_WITHOUT_TIES,
        start="contrastive",
        resolution="1/8",
        entries=(
            *_HEAD,
            ("first", WSquare()),
            ("subsampling convolution", Spread(rule="gamma")),
            *_GAMMA_PLUS,
        ),
    ),
    "epsilon-gamma-plus": Composite(
        title="why this class rather than others: epsilon on dense layers, gamma 0.25 on the "
        "convolutions near them, z+ below, w-square on the first layer, joins by positive "
        "part",
        source="ours, found by a search over known rules (tools/study/search.py)",
        post="smooth",
        start="contrastive",
        entries=(
            *_HEAD,
            ("first", WSquare()),
            *_GAMMA_PLUS,
        ),
    ),
    "epsilon-plus": _zennit(
        "epsilon rule on dense layers, z+ on convolutions",
        ("convolution", ZPlus()),
        ("dense", Epsilon()),
    ),
    "epsilon-plus-flat": _zennit(
        "epsilon-plus with the flat rule on the first layer",
        ("first", Flat()),
        ("convolution", ZPlus()),
        ("dense", Epsilon()),
    ),
    "epsilon-alpha2-beta1": _zennit(
        "epsilon on dense layers, alpha2-beta1 on convolutions",
        ("convolution", AlphaBeta()),
        ("dense", Epsilon()),
    ),
    "epsilon-alpha2-beta1-flat": _zennit(
        "epsilon-alpha2-beta1 with the flat rule on the first layer",
        ("first", Flat()),
        ("convolution", AlphaBeta()),
        ("dense", Epsilon()),
    ),
    "epsilon-gamma-box": _zennit(
        "epsilon on dense layers, gamma 0.25 on convolutions, z-box on the first",
        ("first", ZBox()),
        ("convolution", Gamma()),
        ("dense", Epsilon()),
    ),
    "transformer-c3": Composite(
        title="why this class rather than others, in networks with attention: attention counts as "
        "a constant, epsilon on linear layers, layer normalisation by AttnLRP's rule, and "
        "relevance stops at 1/8 of the picture, or at the patches; then C3 without ties",
        source="ours, chosen by tools/study/families.py (models/EVALUATION.md)",
        post=_C3_WITHOUT_TIES,
        start="contrastive",
        resolution="1/8",
        entries=(
            *_HEAD,
            ("first", Gamma()),
            ("convolution", Epsilon()),
            ("dense", Epsilon()),
            *_TRANSFORMER,
        ),
    ),
    "attn-lrp": Composite(
        title="AttnLRP: relevance also through queries, keys and the softmax of attention; gamma "
        "0.25 on the first layer, 0.05 on the other linear layers",
        source="Achtibat et al., ICML 2024",
        entries=(
            *_HEAD,
            ("attention", Halves()),
            ("softmax", SoftmaxTaylor()),
            ("elementwise product", Halves()),
            *_TRANSFORMER,
        ),
    ),
    "cp-lrp-gamma": Composite(
        title="CP-LRP: attention counts as a constant, relevance goes to its values; gamma 0.25 on "
        "the first layer, 0.05 on the other linear layers",
        source="Ali et al., ICML 2022, with the gamma of Achtibat et al. 2024",
        entries=(*_HEAD, *_TRANSFORMER),
    ),
    "excitation-backprop": Composite(
        title="excitation backpropagation: z+ everywhere",
        source="Zhang et al. 2016, as in Zennit",
        entries=(
            *_HEAD,
            ("join", Signed()),
            ("average pooling", Norm()),
            ("convolution", ZPlus()),
            ("dense", ZPlus()),
            ("affine", Pass()),
            ("activation", Pass()),
            ("max pooling", WinnerTakeAll()),
            *_TAIL,
        ),
    ),
    "guided-backprop": Composite(
        title="gradient with negative signals cut at every ReLU",
        source="Springenberg et al. 2015",
        entries=(("activation", GuidedRelu()), *_GRADIENT),
    ),
    "deconvnet": Composite(
        title="gradient with ReLU applied to the signal instead of its mask",
        source="Zeiler and Fergus 2014",
        entries=(("activation", DeconvRelu()), *_GRADIENT),
    ),
    "gradient": Composite(
        title="the gradient of the target",
        source="Simonyan et al. 2014",
        start="one",
        entries=_GRADIENT,
    ),
    "gradient-x-input": Composite(
        title="the gradient of the target times the input",
        source="Shrikumar et al. 2016",
        start="one",
        entries=_GRADIENT,
        times_input=True,
    ),
    "lrp-z": _investigate(
        "LRP-0 everywhere",
        ("convolution", Epsilon(epsilon=0.0)),
        ("dense", Epsilon(epsilon=0.0)),
        ("affine", Epsilon(epsilon=0.0)),
        ("average pooling", Norm(epsilon=0.0)),
        ("join", Signed(epsilon=0.0)),
    ),
    "lrp-epsilon": _investigate(
        "epsilon rule everywhere, epsilon 1e-7",
        ("convolution", Epsilon(epsilon=1e-7)),
        ("dense", Epsilon(epsilon=1e-7)),
    ),
    "preset-a": _investigate(
        "epsilon 0.1 on dense layers, alpha1-beta0 on convolutions",
        ("convolution", ZPlus(epsilon=1e-7)),
        ("dense", Epsilon(epsilon=0.1)),
    ),
    "preset-a-flat": _investigate(
        "preset-a with the flat rule on the first layer",
        ("first", Flat()),
        ("convolution", ZPlus(epsilon=1e-7)),
        ("dense", Epsilon(epsilon=0.1)),
    ),
    "preset-b": _investigate(
        "epsilon 0.1 on dense layers, alpha2-beta1 on convolutions",
        ("convolution", AlphaBeta(epsilon=1e-7)),
        ("dense", Epsilon(epsilon=0.1)),
    ),
    "preset-b-flat": _investigate(
        "preset-b with the flat rule on the first layer",
        ("first", Flat()),
        ("convolution", AlphaBeta(epsilon=1e-7)),
        ("dense", Epsilon(epsilon=0.1)),
    ),
}
"""Every composite by its name."""

DEFAULT = "residual-c3"
"""The residual rule, then C3: see models/EVALUATION.md for how it was chosen and what it scores."""


TRANSFORMERS = "transformer-c3"
"""The default of transformers."""


def default_for(plan: Plan) -> str:
    """The default composite of a model's family."""
    return TRANSFORMERS if plan.is_transformer else DEFAULT


def find_composite(name: str) -> Composite:
    """The composite called `name`; raises RuleError with the nearest names."""
    if name not in COMPOSITES:
        close = difflib.get_close_matches(name, COMPOSITES, 2)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise RuleError(
            f"there is no composite {name!r}; {hint}`lrp-onnx composites` lists them all (methods "
            "that are not LRP, such as grad-cam, are for compare and evaluate)"
        )
    return COMPOSITES[name]
