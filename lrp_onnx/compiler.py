"""The compiler's pipeline.

load → find the head → recognize → assign rules → emit → append → order → verify → save
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from lrp_onnx import __version__
from lrp_onnx.compiled.conservation import names_of, unread_constants, with_casts
from lrp_onnx.compiled.memory import memory_of
from lrp_onnx.compiled.opset import lower
from lrp_onnx.compiled.order import drop_unused, forget_symbolic_shapes, relevance_last
from lrp_onnx.compiled.runner import Runner
from lrp_onnx.compiled.stored import store_constants
from lrp_onnx.compiled.unchanged import forward_part
from lrp_onnx.compiled.verify import check_compiled
from lrp_onnx.contract import (
    BOXES,
    C3_REGION,
    HEATMAP,
    INPUTS,
    PREDICTED,
    PREFIX,
    RELEVANCE,
    START,
    TARGET,
    TARGETS,
    Contract,
    Preprocessing,
    is_compiled,
)
from lrp_onnx.errors import ChoiceError, ContractError, RuleError
from lrp_onnx.files.compiled import checked
from lrp_onnx.files.description import Description, describe_model
from lrp_onnx.files.forward import hash_of
from lrp_onnx.files.models import load_proto
from lrp_onnx.files.writing import write_bytes
from lrp_onnx.maps.c3 import C3Options
from lrp_onnx.maps.chain import Chain, parse_chain
from lrp_onnx.model.canonicalize import canonicalize
from lrp_onnx.model.graph import Graph, name_of
from lrp_onnx.model.heads.classifier import find_head
from lrp_onnx.model.heads.logits import append_logits
from lrp_onnx.model.load import normalise
from lrp_onnx.model.normalize.batch import one_picture
from lrp_onnx.model.normalize.padded_pools import guard_pools
from lrp_onnx.model.preparation import IMAGENET, from_graph, pixel_box
from lrp_onnx.model.recognize import recognize
from lrp_onnx.model.shuffle import shuffle_weights
from lrp_onnx.notation import suggestion
from lrp_onnx.plan.kinds import MOST_AXES
from lrp_onnx.plan.plan import Plan
from lrp_onnx.plan.text import block_summary
from lrp_onnx.relevance.composites.assign import (
    KIND,
    OVERRIDE,
    WHICH,
    Assigned,
    Choices,
    Composite,
    applied_rules,
    assign,
    depends_on_exporter,
)
from lrp_onnx.relevance.composites.presets import DEFAULT, default_for, find_composite
from lrp_onnx.relevance.emit import Backward, LedgerEntry
from lrp_onnx.relevance.graph.append import append
from lrp_onnx.relevance.graph.builder import Builder
from lrp_onnx.relevance.graph.emission import (
    DEFAULT_EMISSION,
    ELSEWHERE,
    EMISSIONS,
    PURPOSES,
    Emission,
    find_emission,
)
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.outputs import append_outputs, check_outputs, feature_map, tensor_names
from lrp_onnx.relevance.rules.table import parse_rule
from lrp_onnx.relevance.start import START_VALUES, entered, reads_start, start_relevance
from lrp_onnx.selection import FORMATS, Selection, selected


def _is_whole(value: Any, least: int, most: float = inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_size(value: Any) -> bool:
    sizes = range(1, MOST_AXES + 1)
    return isinstance(value, tuple) and len(value) in sizes and all(_is_whole(v, 1) for v in value)


def _are_names(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) and name for name in value)


_FITTING: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "outputs": (
        lambda v: v is None or (_are_names(v) and len(set(v)) == len(v)),
        "a tuple of different names, such as ('heatmap', 'c3')",
    ),
    "explain": (lambda v: v is None or (isinstance(v, str) and v != ""), "a name"),
    "boxes": (lambda v: v is None or (isinstance(v, str) and v != ""), "the name of an output"),
    "input_size": (
        lambda v: v is None or _is_size(v),
        "(height, width), each at least 1, or (size,) for every axis",
    ),
    "resolution": (
        lambda v: v is None or _is_size(v) or (isinstance(v, str) and v != ""),
        "(height, width), the name of a feature map, a fraction such as '1/8', or 'full'",
    ),
    "many_targets": (lambda v: isinstance(v, bool), "True or False"),
    "static": (lambda v: isinstance(v, bool), "True or False"),
    "opset": (lambda v: v is None or _is_whole(v, 13, 20), "a whole number from 13 to 20"),
    "randomize": (lambda v: _is_whole(v, 0), "a whole number, at least 0"),
    "seed": (lambda v: _is_whole(v, 0), "a whole number, at least 0"),
    "preprocessing": (
        lambda v: v is None or isinstance(v, Preprocessing),
        "a Preprocessing, such as runtime.preprocess.parse_preprocessing('imagenet')",
    ),
    "max_memory": (
        lambda v: v is None or (isinstance(v, int | float) and v > 0),
        "a number of bytes above 0",
    ),
    "labels": (
        lambda v: isinstance(v, tuple) and all(isinstance(name, str) for name in v),
        "a tuple of class names",
    ),
}
"""Field of `Options` → whether a value fits, and which ones do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The choices of a compilation.

    Raises:
        RuleError: values that are unknown or do not fit, all of them at once. Whether names of
            nodes and tensors, and sizes, fit a model shows when it is compiled.
    """

    composite: str | None = None
    """Name of a composite; None for the default of the model's family (`presets.default_for`)."""
    outputs: tuple[str, ...] | None = None
    """``heatmap``, ``heatmap_raw``, ``c3``, ``relevance``, ``attention``, or names of inner tensors
    of the model. None for ``heatmap``, and ``c3`` too where the post-processing has C3 or C1C.
    """
    start: str | None = None
    """``logit``, ``probability``, ``one`` or ``contrastive``; None for the composite's own."""
    post: str | None = None
    """Post-processing of ``heatmap``, a chain as text (see `maps.chain`) or ``none``; None for the
    composite's own.
    """
    bias: str | None = None
    """``keep`` or ``drop`` the bias in the denominators of rules that have a bias; None for the
    composite's own choice.
    """
    rules: Mapping[str, str] = field(default_factory=dict)
    """Pattern of node names, or kind of step (``@first``) → rule as text. The first match overrides
    the composite.
    """
    explain: str | None = None
    """Name of the graph output to explain; needed if there are several. With indices behind it some
    of its elements (see `selection.Selection`): ``scores[:, :, 120]``.
    """
    boxes: str | None = None
    """The output with the boxes of a detector, so that the one that is explained is marked:
    ``cxcywh:output0[:, :4, :]``, or ``xyxy:`` or ``xywh:``; its boxes are in the order of the
    explained output's.
    """
    input_size: tuple[int, ...] | None = None
    """Height and width, for a model with a symbolic input size: a length for signals, depth, height
    and width for volumes; one number is for every axis.
    """
    resolution: tuple[int, ...] | str | None = None
    """Where relevance stops: at the feature map of this height and width (see `input_size`) that is
    nearest to the picture, at the feature map of this name, at the last one of the size that is
    nearest to a fraction of the picture's (``1/8``), or at the picture itself (``full``). None for
    the composite's own choice, or for the picture where outputs are asked for that lie before that.
    """
    many_targets: bool = False
    """Whether a run takes one picture and any number of targets, which share its forward pass."""
    inputs: str | None = None
    """One of `contract.INPUTS`: whether `target` and `start` are optional inputs, required ones, or
    none. None for optional where the file is for ONNX Runtime's CPU and CUDA providers, else for a
    required `target`: other runtimes ignore optional inputs without a warning.
    """
    static: bool = False
    """Whether the batch is one picture and every weight that follows from others is stored: what
    runtimes without symbolic sizes read. Files grow two to three times.
    """
    opset: int | None = None
    """Opset of the compiled file, 13 to 20; None for the lowest that its operators and the
    original's opset allow.
    """
    optimize_for: str | Emission = DEFAULT_EMISSION
    """Runtime whose operators are chosen: ``cpu``, ``cuda``, ``tensorrt``, ``web``, ``openvino`` or
    ``portable``; or an `Emission` with each choice.
    """
    randomize: int = 0
    """Number of layers, nearest to the logits, whose weights are shuffled: a sanity test of maps.

    The predictions of such a file mean nothing.
    """
    seed: int = 0
    """Seed of the shuffling."""
    preprocessing: Preprocessing | None = None
    """How a picture becomes the model's input; None for what the file's metadata states."""
    labels: tuple[str, ...] = ()
    """Class names in the order of the logits; empty for those in the file's metadata."""
    max_memory: float | None = None
    """Bytes that the model's weights in other files, and a run of it, may take; nothing that takes
    more is read or run. None for half of the machine's memory.
    """

    def __post_init__(self) -> None:
        for name in ("outputs", "input_size", "resolution", "labels"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        if faults := [*self._unknown(), *self._misread(), *self._unfit()]:
            raise RuleError("; ".join(faults))

    def _unknown(self) -> Iterator[str]:
        """Faults of values that are one of a few names."""
        for name, known in (
            ("start", START_VALUES),
            ("bias", ("keep", "drop")),
            ("inputs", INPUTS),
            ("optimize_for", EMISSIONS),
        ):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Emission) and value not in known:
                yield f"{name}={value!r} is not known; {suggestion(str(value), known)}"
        for pattern in self.rules:
            if pattern.startswith(KIND) and pattern[1:] not in WHICH:
                kinds = [KIND + name for name in WHICH]
                yield f"there is no kind of step {pattern!r}; {suggestion(pattern, kinds)}"

    def _misread(self) -> Iterator[str]:
        """Faults of values with a grammar."""
        texts: list[tuple[str, str, Callable[[str], object]]] = [
            (f"rules[{node!r}]: ", text, parse_rule) for node, text in self.rules.items()
        ]
        if self.composite is not None:
            texts.insert(0, ("", self.composite, find_composite))
        if self.post is not None:
            texts.append((f"post={self.post!r}: ", self.post, parse_chain))
        for place, text, read in texts:
            try:
                read(text)
            except RuleError as error:
                yield f"{place}{error}"

    def _unfit(self) -> Iterator[str]:
        """Faults of types and ranges."""
        for name, (fits, expected) in _FITTING.items():
            value = getattr(self, name)
            if not fits(value):
                yield f"{name} is {value!r}; it is {expected}"
        if self.inputs == "none" and self.many_targets:
            yield "a file for many targets needs the input target: --inputs target"

    @property
    def emission(self) -> Emission:
        """The choices of operators."""
        if isinstance(self.optimize_for, Emission):
            return self.optimize_for
        return find_emission(self.optimize_for)

    @property
    def chosen(self) -> Composite:
        """The composite; where the model's family decides, the default of most."""
        return find_composite(self.composite or DEFAULT)

    @property
    def chain(self) -> Chain:
        """The post-processing of ``heatmap``; defaults of all families have the same."""
        return parse_chain(self.chosen.post if self.post is None else self.post)

    def of_family(self, plan: Plan) -> Options:
        """These options with the default composite of the model's family, unless one is chosen."""
        return self if self.composite else replace(self, composite=default_for(plan))

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the outputs that the compiled file gives."""
        if self.outputs is not None:
            return self.outputs
        region = any(isinstance(step, C3Options) for step in self.chain.steps)
        return (HEATMAP, C3_REGION) if region else (HEATMAP,)

    @property
    def about_model(self) -> dict[str, Any]:
        """The fields that say what the model is, and nothing of how it is explained, by name."""
        names = ("explain", "boxes", "input_size", "preprocessing", "labels")
        return {name: getattr(self, name) for name in names}

    @property
    def input_form(self) -> str:
        """One of `contract.INPUTS`."""
        return self.inputs or ("target" if self.emission.required_target else "optional")

    @property
    def stored(self) -> bool:
        """Whether weights that follow from others are stored, not computed."""
        return self.static or self.emission.stored_weights

    @property
    def purpose(self) -> str:
        """What the file is for, in words."""
        return PURPOSES.get(self.runtime, "operators chosen one by one")

    @property
    def runtime(self) -> str:
        """Name of the runtime that operators are chosen for; ``custom`` for an `Emission`."""
        return self.optimize_for if isinstance(self.optimize_for, str) else "custom"


DEFAULTS = Options()
NO_YES = ("no", "yes")
"""Names of the classes of a model with one number, where nothing else names them."""
LIBRARIES = ("onnx", "onnx-ir", "onnx-graphsurgeon")
"""Libraries whose versions a compiled file states, besides lrp-onnx."""


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """A compiled model, its metadata, and the decisions of the compiler."""

    model: onnx.ModelProto
    contract: Contract
    plan: Plan
    rules: Mapping[str, Assigned]
    """Step name → its rule and the reason for it."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph outputs that the compiler added."""
        return tuple(
            value.name
            for value in self.model.graph.output
            if value.name not in self.contract.outputs
        )

    def summary(self) -> dict[str, Any]:
        """The compiler's decisions as JSON-ready data."""
        contract = self.contract
        return {
            "composite": contract.composite,
            "start": contract.start_value,
            "post": contract.post,
            "outputs": list(self.outputs),
            "input": contract.input,
            "explained": contract.explained,
            "classes": contract.classes,
            "blocks": list(contract.blocks),
            "rules": dict(contract.rules),
            "versions": dict(contract.versions),
            "notes": list(self.plan.notes),
        }

    def save(self, path: Path | str, *, force: bool = False) -> Path:
        """Write the model to `path`, completely or not at all, and return the path.

        Raises:
            OutputExistsError: `path` exists and `force` is not set.
            OutputError: `path` cannot be written.
        """
        return write_bytes(Path(path), self.model.SerializeToString(), force=force)


def plan_model(
    path: Path | str, options: Options = Options()
) -> tuple[Graph, Plan, dict[str, Assigned]]:
    """The first half of a compilation: the normalised graph, its plan, and the rule of every step
    by name.

    Raises:
        ModelFileError: the file cannot be read.
        UnsupportedModelError: the model cannot be explained; every reason is listed.
        RuleError: a rule or composite is unknown or does not fit.
    """
    _ = options.chain  # raises RuleError before the file is read
    source = str(path)
    proto = load_proto(path, max_memory=options.max_memory)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    compiled = is_compiled(metadata)
    remarks: tuple[str, ...] = ()
    if compiled:
        file = checked(proto, source, folder=Path(path).parent, max_memory=options.max_memory)
        contract, remarks = file.contract, tuple(filter(None, [file.changed]))
        if contract.randomized:
            raise RuleError(
                f"the weights of {contract.randomized} layers of {source} are shuffled, for a "
                "sanity test of maps: give the model that it was compiled from"
            )
        proto = forward_part(proto, contract)
        known = [name for name, kind in contract.outputs.items() if kind != "other"]
        if options.explain is None and len(known) == 1:
            options = replace(options, explain=known[0] + contract.selection)
    size = options.input_size
    if size is None and _leaves_size_open(proto):
        size = describe_model(metadata, Path(path)).input_size
    names = {value.name for value in proto.graph.output}
    asked = options.explain
    asked = asked if asked is None or asked in names else selected(asked)[0]
    graph = normalise(
        proto, source, input_size=size, explained=asked, max_memory=options.max_memory
    )
    if options.static:
        graph = one_picture(graph, source=source)
    head = find_head(graph, source=source, output=options.explain)
    graph = append_logits(graph, head)
    fold = options.chosen.fold_batch_norm
    if options.randomize:
        layers = canonicalize(graph, head.logits, source=source, fold_batch_norm=fold)
        graph = shuffle_weights(graph, layers, layers=options.randomize, seed=options.seed)
    plan = recognize(graph, head, source=source, fold_batch_norm=fold)
    description = description_of(path, options, graph, plan)
    notes = (*_notes(plan, options), *description.remarks)
    if compiled:
        notes += ("the file is compiled: the part of it that predicts is compiled anew", *remarks)
    plan = replace(plan, notes=(*plan.notes, *notes))
    preparation = description.preprocessing or IMAGENET
    box = pixel_box(preparation, plan) if plan.axes == 2 else None
    choices = Choices(bias=options.bias, overrides=options.rules, box=box)
    return graph, plan, assign(plan, options.of_family(plan).chosen, choices)


def _leaves_size_open(proto: onnx.ModelProto) -> bool:
    """Whether a picture's height and width have no fixed sizes."""
    shapes = [value.type.tensor_type.shape.dim for value in proto.graph.input]
    return any(
        len(shape) == 4 and sum(size.dim_value <= 0 for size in shape[1:]) >= 2 for shape in shapes
    )


def description_of(path: Path | str, options: Options, graph: Graph, plan: Plan) -> Description:
    """How pictures become the model's input, and its class names: of the options, else of the
    model's metadata, else of files beside it, else (pictures alone) of the graph itself.

    Raises:
        ContractError: our own metadata in the model is damaged.
    """
    found = describe_model(
        graph.model.metadata_props,
        Path(path),
        classes=plan.classes,
        channels=plan.input_shape[plan.channel_axis],
    )
    if options.preprocessing is not None:
        found = replace(
            found, preprocessing=options.preprocessing, preprocessing_from="the options"
        )
    elif found.preprocessing is None and (said := from_graph(graph, plan)) is not None:
        found = replace(found, preprocessing=said[0], preprocessing_from=said[1])
    if options.labels:
        found = replace(found, labels=options.labels, labels_from="the options")
    elif plan.single and not found.labels:
        found = replace(found, labels=NO_YES, labels_from="the sign of the model's one number")
    if plan.axes != 2:  # signals and volumes come as arrays that are the model's input
        return replace(found, preprocessing=None, preprocessing_from="")
    if found.preprocessing is None:
        return found
    return replace(found, preprocessing=found.preprocessing.for_layout(plan.layout))


def _notes(plan: Plan, options: Options) -> Iterator[str]:
    """Notes on these options for the readers of the plan."""
    if options.randomize:
        yield (
            f"the weights of the {options.randomize} layers nearest to the logits are shuffled: "
            "a sanity test of maps"
        )
    fitting = options.of_family(plan)
    if options.composite is None and fitting.composite != DEFAULT:
        yield (
            f"the network is a transformer: its composite is {fitting.composite}, the default of "
            "these; --composite chooses another"
        )
    yield from depends_on_exporter(plan, fitting.chosen)
    left_out = [type(step).__name__ for step in options.chain.of_pictures]
    if plan.axes != 2 and left_out:
        yield f"{' and '.join(left_out)} is for pictures: the maps are not post-processed with it"


def compile_model(
    path: Path | str, options: Options = DEFAULTS, *, runner: Runner | None = None, **choices: Any
) -> Compiled:
    """Compile the classifier at `path` into a model that also computes its relevance.

    Args:
        path: an ONNX file.
        options: composite, outputs, start value, overrides.
        runner: runs a model on a batch. If given, it runs the original and the compiled model,
            which must predict the same.
        choices: fields of `Options` by name, which override those of `options`:
            ``compile_model(path, composite="lrp-resnet")``.

    Raises:
        ModelFileError: the file cannot be read.
        UnsupportedModelError: the model cannot be explained; every reason is listed.
        RuleError: a rule or composite is unknown or does not fit.
        ContractError: the class names do not fit.
        VerificationError: the result failed a check.
    """
    options = replace(options, **choices)
    graph, plan, assigned = plan_model(path, options)
    options = _for_axes(options, plan)
    plan = replace(plan, notes=(*plan.notes, *runtime_notes(options)))
    options = options.of_family(plan)
    start = options.start or options.chosen.start
    graph = _for_runtime(graph, options, source=str(path))
    forward = ir.to_proto(graph.model)
    options = replace(options, outputs=_outputs(forward, options))
    coarse = _cut_point(plan, options)
    check_outputs(forward, plan, options.given, coarse=coarse is not None)
    plan = replace(plan, notes=(*plan.notes, *_unreached(plan, assigned, coarse)))
    if options.labels and len(options.labels) != plan.classes:
        raise ContractError(
            f"there are {len(options.labels)} class names, but {path} has {plan.classes} classes: "
            "give one name per class"
        )
    backward = _emit(graph, forward, plan, assigned, options, start=start, until=coarse)
    ledger: tuple[Mapping[str, Any], ...] = tuple(
        _ledger(entry, backward.builder) for entry in backward.ledger
    )
    model = _appended(backward, forward, options, ledger, at=coarse)
    # `verify` reads the tensors of the ledger, even where no node reads them.
    model = drop_unused(model, keep=names_of(ledger))
    constants = unread_constants(model, ledger)
    model = drop_unused(model)
    ledger = with_casts(model, ledger, backward.builder.casts, stored=constants)
    memory_fixed, memory_each = memory_of(model)
    if not options.emission.declared_shapes:
        model = forget_symbolic_shapes(model)
    model = lower(model, options.opset, original=graph.opset)
    description = description_of(path, options, graph, plan)
    metadata = {entry.key: entry.value for entry in forward.metadata_props}
    contract = Contract(
        input=plan.input,
        outputs=plan.outputs,
        explained=plan.logits,
        layout=plan.layout,
        classes=plan.classes,
        composite=options.composite or DEFAULT,
        start_value=start,
        post=str(options.chain),
        versions={"lrp-onnx": __version__} | {name: version(name) for name in LIBRARIES},
        rules=applied_rules(plan, assigned),
        blocks=tuple(map(block_summary, plan.blocks)),
        ledger=ledger,
        constants=constants,
        inputs=options.input_form,
        many_targets=options.many_targets,
        resolution=plan.cut_points[coarse] if coarse else None,
        optimized_for=options.runtime,
        purpose=options.purpose,
        randomized=options.randomize,
        memory_fixed=memory_fixed,
        memory_each=memory_each,
        preprocessing=description.preprocessing,
        labels=description.labels,
        selection=plan.selection,
        start_shape=plan.start_shape,
        boxes=_boxes(plan, options, metadata),
        sources=description.sources,
        forward=hash_of(model, [*plan.outputs]),
    )
    # Of what is explained, the contract says it.
    others = {key: value for key, value in metadata.items() if not key.startswith(PREFIX)}
    onnx.helper.set_model_props(model, others | contract.to_metadata())
    model.producer_name, model.producer_version = "lrp-onnx", __version__
    notes = check_compiled(model, forward, contract, runner, max_memory=options.max_memory)
    return Compiled(model, contract, replace(plan, notes=(*plan.notes, *notes)), assigned)


def _for_axes(options: Options, plan: Plan) -> Options:
    """The options for the input's number of axes: C3 is for pictures alone.

    Raises:
        RuleError: post-processing for pictures, or the region of C3, was asked for other input.
    """
    if plan.axes != 2 and options.preprocessing is not None:
        raise RuleError(
            f"--preprocess is for pictures, and the model's input has shape {plan.input_shape}: "
            "leave it out; its inputs are arrays that are prepared already"
        )
    chain = options.chain
    if plan.axes == 2 or not (chain.of_pictures or C3_REGION in options.given):
        return options
    outputs = tuple(name for name in options.given if name != C3_REGION)
    if options.post is not None or not chain.of_pictures or not outputs:
        raise RuleError(
            f"C3 and C1C are for pictures (N, C, H, W), and the model's input has shape "
            f"{plan.input_shape}: leave them out, for example with --post smooth or --post none"
        )
    return replace(options, post=str(chain.for_axes(plan.axes)), outputs=outputs)


def _boxes(plan: Plan, options: Options, metadata: Mapping[str, str]) -> str:
    """Where the boxes of detections are, as text; empty where that is not known. A file that is
    compiled again says it in its `metadata`, where the same is explained.

    Raises:
        ChoiceError: it is no output of the model, or no box is explained.
    """
    again = is_compiled(metadata) and options.explain is None
    text = options.boxes or (metadata.get(BOXES, "") if again else "")
    name, _ = selected(text.partition(":")[2] if text.partition(":")[0] in FORMATS else text)
    if text and name not in plan.outputs:
        known = ", ".join(plan.outputs)
        raise ChoiceError("boxes cannot be marked:", [f"{text}: the outputs are {known}"])
    selection = Selection.read(plan.selection)
    if text and (selection is None or len(selection.others) != 1):
        fault = "no box is explained: name one in a table of boxes, as 'scores[:, :, 120]'"
        raise ChoiceError("boxes cannot be marked:", [f"{text}: {fault}"])
    return text


def _outputs(forward: onnx.ModelProto, options: Options) -> tuple[str, ...]:
    """The outputs of the compiled file: the region of C3 is left out where the model has a tensor
    of that name and nobody asked for the output.
    """
    taken = {C3_REGION} & tensor_names(forward) if options.outputs is None else frozenset()
    return tuple(name for name in options.given if name not in taken)


def _cut_point(plan: Plan, options: Options) -> str | None:
    """The feature map where relevance stops, None for the picture."""
    if options.resolution is not None:
        return feature_map(plan, options.resolution)
    coarse = feature_map(plan, options.chosen.resolution)
    if coarse is None:
        return None
    names = plan.before(coarse)
    before = {plan.input, *(step.output for step in plan.steps if step.name in names)} - {coarse}
    return None if {RELEVANCE, *before} & set(options.given) else coarse


def _unreached(plan: Plan, assigned: Mapping[str, Assigned], coarse: str | None) -> Iterator[str]:
    """A note for every override whose layers lie before the feature map where relevance stops."""
    if coarse is None:
        return
    before = plan.before(coarse)
    reached = {entry.why for name, entry in assigned.items() if name not in before}
    for why in dict.fromkeys(entry.why for entry in assigned.values()):
        if why.startswith(OVERRIDE) and why not in reached:
            yield (
                f"the {why} changes nothing: relevance stops at '{coarse}', behind its layers; "
                "--resolution full goes to the pixels"
            )


def runtime_notes(options: Options) -> Iterator[str]:
    """A note where the compiled file is for ONNX Runtime alone."""
    if options.runtime in PURPOSES and options.runtime not in ELSEWHERE:
        yield (
            f"the compiled file is for {options.purpose} alone, other runtimes may compute it "
            "wrongly without a warning: --optimize-for portable is for them"
        )


def _for_runtime(graph: Graph, options: Options, *, source: str) -> Graph:
    """The forward graph with guarded pools and, for many targets, a batch of one picture."""
    graph = guard_pools(graph, indices=options.emission.indexed_pools)
    return one_picture(graph, source=source) if options.many_targets else graph


def _emit(
    graph: Graph,
    forward: onnx.ModelProto,
    plan: Plan,
    assigned: Mapping[str, Assigned],
    options: Options,
    *,
    start: str,
    until: str | None,
) -> Backward:
    """The backward pass from the logits to the picture, or to the feature map `until`."""
    builder = Builder(
        taken=tensor_names(forward),
        other_types=_not_float32(graph),
        emission=options.emission,
        batch=TARGETS if options.many_targets else None,
    )
    backward = Backward(plan, builder, {name: entry.rule for name, entry in assigned.items()})
    if plan.pooled and reads_start(options.input_form):
        backward.entering = entered
    backward.run(start_relevance(builder, plan, start, options.input_form), until=until)
    return backward


def _appended(
    backward: Backward,
    forward: onnx.ModelProto,
    options: Options,
    ledger: Sequence[Mapping[str, Any]],
    *,
    at: str | None,
) -> onnx.ModelProto:
    """The forward model and the backward pass in one model, without unused nodes."""
    times_input = options.chosen.times_input
    outputs = append_outputs(
        backward, options.given, at=at, times_input=times_input, chain=options.chain
    )
    inputs, defaults = _inputs(backward, options.input_form)
    model = append(backward.builder, forward, inputs=inputs, defaults=defaults, outputs=outputs)
    if options.emission.relevance_last:
        model = relevance_last(model, backward.at[backward.plan.logits].coefficient.name)
    if options.stored:
        model = store_constants(model, keep=names_of(ledger))
    return model


def _inputs(
    backward: Backward, form: str
) -> tuple[dict[str, tuple[str, list[int | str | None]]], dict[str, np.ndarray[Any, Any]]]:
    """The inputs of `form` (one of `contract.INPUTS`) beside the picture: name → (element type,
    shape, None for the batch), and name → default value.
    """
    plan, many = backward.plan, backward.builder.batch
    rows = many or plan.input_shape[0]
    both: dict[str, tuple[str, list[int | str | None]]] = {
        TARGET: ("INT64", [rows]),
        START: ("FLOAT", [rows, *plan.start_shape]),
    }
    if form == "optional":
        sizes: list[int | str | None] = [*plan.start_shape]
        zeros = (1, *plan.start_shape)
        if len(sizes) > 1:  # zeros of one element stand for all: the file stays small
            sizes = [f"start_{axis}" for axis in range(1, len(sizes) + 1)]
            zeros = (1,) * (len(sizes) + 1)
        both = {TARGET: ("INT64", [TARGETS]), START: ("FLOAT", ["starts", *sizes])}
        return both, {
            TARGET: np.array([PREDICTED], np.int64),
            START: np.zeros(zeros, np.float32),
        }
    return {name: both[name] for name in form.split(",") if name in both}, {}


def _not_float32(graph: Graph) -> frozenset[str]:
    """Names of tensors that relevance arithmetic must cast to float32; unknown types count as
    float32.
    """
    computed = (value for node in graph.nodes for value in node.outputs)
    values = (*graph.inputs, *graph.model.graph.initializers.values(), *computed)
    return frozenset(
        name_of(v) for v in values if v.dtype is not None and v.dtype != ir.DataType.FLOAT
    )


def _ledger(entry: LedgerEntry, builder: Builder) -> dict[str, Any]:
    """A ledger entry as tensor names, for the file's metadata.

    A view of a tensor of the model that nothing else reads is not in the file: how it is made
    stands in the entry.
    """

    def factors(relevance: Relevance) -> list[str]:
        return [
            v.name
            for v in (relevance.coefficient, relevance.activation)
            if v is not None and v.number != 1.0
        ]

    written: dict[str, Any] = {
        "step": entry.step,
        "received": factors(entry.received),
        "passed": [factors(relevance) for relevance in entry.passed],
        "terms": [
            {
                "s": t.quotient.name,
                "z": t.denominator.name,
                "b": t.bias.name,
                "factor": t.factor,
                "e": t.stabilizer,
            }
            for t in entry.terms
        ],
    }
    views = {name: _view(builder, name) for name in sorted(names_of([written]) & set(builder.seen))}
    return written | ({"views": views} if views else {})


def _view(builder: Builder, name: str) -> dict[str, Any]:
    """How a view is made, as JSON-ready data."""
    source = builder.seen[name]
    view = builder.views[source]
    return {"of": source, "shape": list(view.shape), "order": list(view.order)}
