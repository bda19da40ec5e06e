"""The facts about runtimes: each has a case that shows what the file does about it.

Files that heed a fact have what it asks for, and the same file without it does not, so that no case
can pass by itself. That the runtimes behave as the facts say is in tests/runtimes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import onnx
import pytest
from networks import resnet

from lrp_onnx.compiler import compile_model
from lrp_onnx.relevance.composites.presets import DEFAULT
from lrp_onnx.relevance.graph.emission import ELSEWHERE, EMISSIONS, FACTS, NAMES, Emission, Fact

Save = Callable[[onnx.ModelProto], Path]
Case = Callable[[onnx.ModelProto], bool]


def readers_of(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def weights_of_transposes_are_their_own(model: onnx.ModelProto) -> bool:
    """No Conv reads the weight of a ConvTranspose."""
    readers = readers_of(model)
    weights = [n.input[1] for n in model.graph.node if n.op_type == "ConvTranspose"]
    assert weights
    return all({r.op_type for r in readers[w]} == {"ConvTranspose"} for w in weights)


def concats_are_narrow(model: onnx.ModelProto) -> bool:
    widths = [len(n.input) for n in model.graph.node if n.op_type == "Concat"]
    assert widths, "the network has a 3x3 maximum: nine places to bring together"
    return max(widths) <= 7


def minima_are_clips(model: onnx.ModelProto) -> bool:
    kinds = {n.op_type for n in model.graph.node}
    assert kinds & {"Min", "Clip"}
    return "Min" not in kinds


def pools_have_indices(model: onnx.ModelProto) -> bool:
    two = [n for n in model.graph.node if n.op_type == "MaxPool" and len(n.output) == 2]
    return bool(two) and any(n.op_type == "ScatterElements" for n in model.graph.node)


def masks_are_convolutions(model: onnx.ModelProto) -> bool:
    return any(n.op_type == "Tanh" for n in model.graph.node)


def shapes_are_stated(model: onnx.ModelProto) -> bool:
    """Those of relevance, with a symbol for the batch."""
    return any(value.name.startswith("lrp/") for value in model.graph.value_info)


def test_no_inner_shape_has_a_symbol_but_for_onnx_runtime(saved: Save) -> None:
    """Exporters state them too: tract then cannot fix the batch."""
    path = saved(onnx.shape_inference.infer_shapes(resnet("bottleneck", size=(32, 32))))
    for name in NAMES:
        model = compile_model(path, optimize_for=name).model
        inner = [size for v in model.graph.value_info for size in v.type.tensor_type.shape.dim]
        assert any(size.dim_param for size in inner) == EMISSIONS[name].declared_shapes


def stabilizers_are_in_biases(model: onnx.ModelProto) -> bool:
    """Some quotient's denominator is what a convolution gives."""
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    denominators = [made_by.get(n.input[1]) for n in model.graph.node if n.op_type == "Div"]
    assert denominators
    return "Conv" in denominators


def target_is_required(model: onnx.ModelProto) -> bool:
    return "target" not in {t.name for t in model.graph.initializer}


def weights_are_stored(model: onnx.ModelProto) -> bool:
    stored = {t.name for t in model.graph.initializer}
    kinds = ("Conv", "ConvTranspose", "Gemm")
    return all(n.input[1] in stored for n in model.graph.node if n.op_type in kinds)


def regions_are_found_in_loops(model: onnx.ModelProto) -> bool:
    return any(n.op_type == "Loop" for n in model.graph.node)


def regions_are_decided_in_float64(model: onnx.ModelProto) -> bool:
    casts = [n for n in model.graph.node if n.op_type == "Cast"]
    return any(onnx.TensorProto.DOUBLE in (a.i for a in n.attribute) for n in casts)


def stored_matrices_stand_last(model: onnx.ModelProto) -> bool:
    """Those of relevance: the shares of the windows that a strided shortcut subsamples."""
    stored = {t.name for t in model.graph.initializer}
    products = [n for n in model.graph.node if n.op_type == "MatMul"]
    assert any(n.input[1] in stored for n in products), "columns stand there in every form"
    return not any(n.input[0] in stored for n in products)


CASES: dict[str, Case] = {
    "matrices_last": stored_matrices_stand_last,
    "separate_weights": weights_of_transposes_are_their_own,
    "widest_concat": concats_are_narrow,
    "clipped_minima": minima_are_clips,
    "indexed_pools": pools_have_indices,
    "blocked_masks": masks_are_convolutions,
    "declared_shapes": shapes_are_stated,
    "stabilizer_in_bias": stabilizers_are_in_biases,
    "required_target": target_is_required,
    "stored_weights": weights_are_stored,
    "loops": regions_are_found_in_loops,
    "doubles": regions_are_decided_in_float64,
}
OF_REGIONS = {"loops", "doubles"}
"""Choices that only a chain with C3 has to make."""


def test_every_fact_has_a_case_and_says_where_it_was_seen() -> None:
    assert {fact.choice for fact in FACTS} == set(CASES)
    for fact in FACTS:
        assert any(letter.isdigit() for letter in fact.runtimes), "a version"
        assert fact.seen and set(fact.forms) <= set(NAMES)


def test_what_a_runtime_needs_comes_from_the_facts_alone() -> None:
    plain = Emission()
    for name, emission in EMISSIONS.items():
        chosen = {fact.choice: fact.value for fact in FACTS if name in fact.forms}
        for field in fields(Emission):
            default = getattr(plain, field.name)
            assert getattr(emission, field.name) == chosen.get(field.name, default)
    assert set(ELSEWHERE) == set(NAMES) - {"cpu", "cuda"}


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.choice)
def test_files_heed_the_fact(fact: Fact, saved: Save) -> None:
    """In `gradient`, whose plain convolutions and transposes share their weights; minima are those
    of rules that tell signs apart, stabilizers those of rules that divide. Regions are C3's;
    matrices are in the default alone.
    """
    post = "c3" if fact.choice in OF_REGIONS else "none"
    shares = ("clipped_minima", "stabilizer_in_bias")
    composite = dict.fromkeys(shares, "lrp-resnet").get(fact.choice, "gradient")
    composite = DEFAULT if fact.choice == "matrices_last" else composite
    path = saved(resnet("bottleneck", size=(32, 32), widths=(8, 16)))
    case = CASES[fact.choice]
    for name in fact.forms:
        # Stored weights are tensors of their own already.
        heeding = EMISSIONS[name]
        if fact.choice == "separate_weights":
            heeding = replace(heeding, stored_weights=False)
        plain = getattr(Emission(), fact.choice)
        other = plain if plain != fact.value else True
        ignoring = replace(heeding, **{fact.choice: other})
        model, without = (
            compile_model(
                path, composite=composite, optimize_for=one, post=post, resolution="full"
            ).model
            for one in (heeding, ignoring)
        )
        expected = fact.value is not False
        assert case(model) == expected, name
        assert case(without) != expected, name
