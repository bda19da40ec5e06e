"""The pipeline, in order: load → canonicalize → recognize →
assign rules → emit → optimize → verify → save.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from lrp_onnx import __version__, contract
from lrp_onnx.compiled.memory import memory_of
from lrp_onnx.compiled.order import drop_unused, relevance_last
from lrp_onnx.compiled.verify import Runner, check_compiled
from lrp_onnx.contract import HEATMAP, START, TARGET, TARGETS, Contract, Preprocessing
from lrp_onnx.errors import ContractError, RuleError, UnsupportedModelError
from lrp_onnx.model.canonicalize import canonicalize
from lrp_onnx.model.graph import Graph, name_of
from lrp_onnx.model.heads.classifier import append_mean, find_head
from lrp_onnx.model.load import load_model
from lrp_onnx.model.normalize.batch import one_picture
from lrp_onnx.model.normalize.padded_pools import guard_pools
from lrp_onnx.model.preparation import IMAGENET, integer_pictures, pixel_box
from lrp_onnx.model.recognize import recognize
from lrp_onnx.model.shuffle import shuffle_weights
from lrp_onnx.plan.plan import Plan
from lrp_onnx.plan.text import block_summary
from lrp_onnx.relevance.composites.assign import (
    Assigned,
    Choices,
    applied_rules,
    assign,
    depends_on_exporter,
)
from lrp_onnx.relevance.composites.presets import DEFAULT, find_composite
from lrp_onnx.relevance.emit import Backward, LedgerEntry
from lrp_onnx.relevance.graph.append import append
from lrp_onnx.relevance.graph.builder import Builder
from lrp_onnx.relevance.graph.emission import DEFAULT_EMISSION, Emission, find_emission
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.outputs import append_outputs, check_outputs, feature_map, tensor_names
from lrp_onnx.relevance.start import START_VALUES, start_relevance


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a compilation may be told."""

    composite: str = DEFAULT
    outputs: tuple[str, ...] = (HEATMAP,)
    """``heatmap``, ``relevance``, ``attention``, or names of inner tensors of the model."""
    start: str | None = None
    """``logit``, ``probability``, ``one`` or ``contrastive``; None leaves it to the composite."""
    bias: str | None = None
    """``keep`` or ``drop`` the bias in every denominator; None leaves it to the composite."""
    rules: Mapping[str, str] = field(default_factory=dict)
    """Node-name pattern, or kind of step (``@first``) → rule
    as text; the first that fits wins over the composite.
    """
    explain: str | None = None
    """Name of the graph output to explain, where there are several."""
    input_size: tuple[int, int] | None = None
    """Height and width, for models that leave them open."""
    resolution: tuple[int, int] | str | None = None
    """Where relevance stops: at the feature map nearest to the picture of this height and width, or
    of this name; None for the picture itself.
    """
    many_targets: bool = False
    """One picture a run and any number of targets, which share its forward pass."""
    optimize_for: str | Emission = DEFAULT_EMISSION
    """``cpu``, ``cuda``, ``tensorrt``, ``web`` or ``portable``,
    or single choices: which of equivalent operators are used.
    """
    randomize: int = 0
    """Layers nearest to the logits whose weights are shuffled:
    a sanity test of maps. Such a file predicts nothing.
    """
    seed: int = 0
    """Of the shuffling."""
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()


DEFAULTS = Options()


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """A compiled model and what was decided on the way."""

    model: onnx.ModelProto
    contract: Contract
    plan: Plan
    rules: Mapping[str, Assigned]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that were added."""
        return tuple(
            value.name
            for value in self.model.graph.output
            if value.name not in self.contract.outputs
        )

    def summary(self) -> dict[str, Any]:
        """What was decided, as JSON-ready data."""
        promise = self.contract
        return {
            "composite": promise.composite,
            "start": promise.start_value,
            "outputs": list(self.outputs),
            "input": promise.input,
            "explained": promise.explained,
            "classes": promise.classes,
            "blocks": list(promise.blocks),
            "rules": dict(promise.rules),
            "versions": dict(promise.versions),
            "notes": list(self.plan.notes),
        }

    def save(self, path: Path | str, *, force: bool = False) -> Path:
        """Write the file atomically; raises OutputExistsError
        where `path` exists and `force` is not set.
        """
        from lrp_onnx.files.writing import write_bytes

        return write_bytes(Path(path), self.model.SerializeToString(), force=force)


def plan_model(
    path: Path | str, options: Options = Options()
) -> tuple[Graph, Plan, dict[str, Assigned]]:
    """The first half of a compilation: the normalised graph, its plan, and every step's rule.

    Raises:
        ModelFileError, UnsupportedModelError, RuleError.
    """
    composite, source = find_composite(options.composite), str(path)
    graph = load_model(path, input_size=options.input_size)
    if contract.is_compiled(graph.model.metadata_props):
        raise UnsupportedModelError(
            f"{path} cannot be compiled:",
            ["it is a compiled file already: compile the original, or explain with this one"],
        )
    head = find_head(graph, source=source, output=options.explain)
    graph = append_mean(graph, head)
    fold = composite.fold_batch_norm
    if options.randomize:
        layers = canonicalize(graph, head.logits, source=source, fold_batch_norm=fold)
        graph = shuffle_weights(graph, layers, layers=options.randomize, seed=options.seed)
    of = recognize(graph, head, source=source, fold_batch_norm=fold)
    if options.randomize:
        count = options.randomize
        note = (
            f"the weights of the {count} layers nearest to "
            "the logits are shuffled: a sanity test of maps"
        )
        of = replace(of, notes=(*of.notes, note))
    stated = options.preprocessing or contract.read_description(graph.model.metadata_props)[0]
    prepared = stated or integer_pictures(graph, of) or IMAGENET
    choices = Choices(bias=options.bias, overrides=options.rules, box=pixel_box(prepared, of))
    of = replace(of, notes=(*of.notes, *depends_on_exporter(of, composite)))
    return graph, of, assign(of, composite, choices)


def compile_model(
    path: Path | str, options: Options = DEFAULTS, *, runner: Runner | None = None, **choices: Any
) -> Compiled:
    """Compile the classifier at `path` into a model that also computes its relevance.

    Args:
        path: an ONNX file.
        options: composite, outputs, start value, overrides.
        choices: fields of `Options` by name, over those of `options`:
            ``compile_model(path, composite="lrp-resnet")``.
        runner: runs a model on a batch; where given, the compiled
        model is run against the original and must predict the same.

    Raises:
        ModelFileError: the file cannot be read.
        UnsupportedModelError: the model cannot be explained; every reason is listed.
        RuleError: a rule or composite is unknown or does not fit.
        ContractError: the class names do not fit.
        VerificationError: the result failed a check.
    """
    options = replace(options, **choices)
    graph, of, assigned = plan_model(path, options)
    composite = find_composite(options.composite)
    start = options.start or composite.start
    if start not in START_VALUES:
        raise RuleError(f"the start value {start!r} is not known: it is {', '.join(START_VALUES)}")
    chosen = options.optimize_for
    emission = chosen if isinstance(chosen, Emission) else find_emission(chosen)
    graph = guard_pools(graph, indices=emission.indexed_pools)
    if options.many_targets:
        graph = one_picture(graph, source=str(path))
    forward = ir.to_proto(graph.model)
    check_outputs(forward, of, options.outputs, coarse=options.resolution is not None)
    coarse = feature_map(of, options.resolution) if options.resolution else None
    if options.labels and len(options.labels) != of.classes:
        raise ContractError(
            f"there are {len(options.labels)} class names, and {path} has {of.classes} classes"
        )
    batch = TARGETS if options.many_targets else None
    builder = Builder(
        taken=tensor_names(forward), other_types=_not_float32(graph), emission=emission, batch=batch
    )
    backward = Backward(of, builder, {name: found.rule for name, found in assigned.items()})
    backward.run(start_relevance(builder, of, start), until=coarse)
    outputs = append_outputs(
        backward, options.outputs, at=coarse, times_input=composite.times_input
    )
    model = append(
        builder,
        forward,
        inputs={TARGET: ("INT64", [TARGETS]), START: ("FLOAT", ["starts", of.classes])},
        defaults={
            TARGET: np.array([contract.PREDICTED], np.int64),
            START: np.zeros((1, of.classes), np.float32),
        },
        outputs=outputs,
    )
    ledger = tuple(map(_ledger, backward.ledger))
    model = relevance_last(model) if emission.relevance_last else model
    model = drop_unused(
        model, keep=frozenset(term["b"] for entry in ledger for term in entry["terms"])
    )
    memory_fixed, memory_each = memory_of(model)
    preprocessing, labels = contract.read_description(graph.model.metadata_props)
    promise = Contract(
        input=of.input,
        outputs=of.outputs,
        explained=of.logits,
        layout=of.layout,
        classes=of.classes,
        composite=options.composite,
        start_value=start,
        versions={"lrp-onnx": __version__}
        | {name: version(name) for name in ("onnx", "onnx-ir", "onnx-graphsurgeon")},
        rules=applied_rules(of, assigned),
        blocks=tuple(map(block_summary, of.blocks)),
        ledger=ledger,
        many_targets=options.many_targets,
        resolution=of.cut_points[coarse] if coarse else None,
        optimized_for=chosen if isinstance(chosen, str) else "custom",
        randomized=options.randomize,
        memory_fixed=memory_fixed,
        memory_each=memory_each,
        preprocessing=options.preprocessing or preprocessing or integer_pictures(graph, of),
        labels=options.labels or labels,
    )
    onnx.helper.set_model_props(
        model, {p.key: p.value for p in forward.metadata_props} | promise.to_metadata()
    )
    model.producer_name, model.producer_version = "lrp-onnx", __version__
    check_compiled(model, forward, promise, runner)
    return Compiled(model, promise, of, assigned)


def _not_float32(graph: Graph) -> frozenset[str]:
    """Floating and integer tensors that relevance arithmetic
    has to convert; unknown types are taken for float32.
    """
    inner = (value for node in graph.nodes for value in node.outputs)
    every = (*graph.inputs, *graph.model.graph.initializers.values(), *inner)
    return frozenset(
        name_of(v) for v in every if v.dtype is not None and v.dtype != ir.DataType.FLOAT
    )


def _ledger(entry: LedgerEntry) -> dict[str, Any]:
    """An entry as tensor names, for the file's metadata."""

    def factors(relevance: Relevance) -> list[str]:
        return [
            v.name
            for v in (relevance.coefficient, relevance.activation)
            if v is not None and v.number != 1.0
        ]

    return {
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
