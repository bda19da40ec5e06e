"""Equivalent operators: every choice of them gives the same map, and the plain ones are plain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from float64 import run_float64
from networks import Network, picture, resnet, single_layer
from zoo_files import PRECISIONS, REFUSED, families, feeds

from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import RuleError
from lrp_onnx.relevance.composites.presets import COMPOSITES, DEFAULT
from lrp_onnx.relevance.graph.emission import DEFAULT_EMISSION, EMISSIONS, Emission

Save = Callable[[onnx.ModelProto], Path]
SAME = 1e-5
"""Largest difference between two choices, relative to the map's maximum: sums in another order."""
EXACT = 1e-9
ROUNDED = {"stored_weights": 1e-6}
"""Choices that round by themselves: what is stored is float32, also where this evaluator computes
in float64.
"""
OTHERS = [name for name in EMISSIONS if name != DEFAULT_EMISSION]
FAMILIES = [
    name for name in families() if name not in REFUSED and PRECISIONS.get(name) != "bfloat16"
]


@pytest.mark.parametrize("composite", COMPOSITES)
def test_every_choice_gives_the_same_map(composite: str, saved: Save) -> None:
    model = resnet(size=(32, 40), widths=(8, 16), gate="Sigmoid")
    path, x = saved(model), {"x": picture(model, batch=2)}
    expected = run_onnx(compile_model(path, composite=composite).model, x)["heatmap"]
    for name in OTHERS:
        found = run_onnx(compile_model(path, composite=composite, optimize_for=name).model, x)[
            "heatmap"
        ]
        assert relative(found, expected) < SAME, name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_operators_give_the_same_map_for_every_family(
    family: str, tmp_path: Path
) -> None:
    file = families()[family][0]
    compiled = [
        compile_model(
            file.save(tmp_path), composite="gradient", optimize_for=name, **file.options
        ).model
        for name in ("cpu", "portable")
    ]
    maps = [run_onnx(model, feeds(file, model), optimize=False)["heatmap"] for model in compiled]
    assert relative(maps[1], maps[0]) < SAME


@pytest.mark.parametrize(
    "name", [name for name, emission in EMISSIONS.items() if not emission.indexed_pools]
)
def test_plain_operators_are_plain(name: str, saved: Save) -> None:
    for composite in COMPOSITES:
        model = compile_model(
            saved(resnet(size=(32, 32))), composite=composite, optimize_for=name
        ).model
        assert "ScatterElements" not in {node.op_type for node in model.graph.node}
        assert all(len(node.output) == 1 for node in model.graph.node if node.op_type == "MaxPool")


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("size", [(9, 9), (8, 11), (6, 7)])
@pytest.mark.parametrize(
    "pool",
    [
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [1, 3], "pads": [0, 1, 2, 0]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        {"kernel_shape": [2, 3], "dilations": [2, 1], "pads": [1, 0, 1, 2]},
    ],
)
def test_max_pooling_hands_back_to_the_first_maximum(
    pool: dict[str, list[int]], size: tuple[int, int], rectified: bool, saved: Save
) -> None:
    """With ties everywhere (whole numbers from -2 to 2),
    against the places that ONNX Runtime itself names.
    """
    path = saved(single_layer("max", (2, 3, *size), rectified=rectified, **pool))
    x = np.random.default_rng(0).integers(-2, 3, (2, 3, *size)).astype(np.float32)
    by_index, by_comparison = (
        run_onnx(
            compile_model(
                path, composite="gradient", outputs=("relevance",), optimize_for=name
            ).model,
            {"x": x},
        )
        for name in ("cpu", "portable")
    )
    assert np.abs(by_index["relevance"]).sum() > 0
    np.testing.assert_array_equal(by_comparison["relevance"], by_index["relevance"])


def test_an_unknown_runtime(saved: Save) -> None:
    message = "'abacus' is not known; there are cpu, cuda, tensorrt, web, openvino, portable"
    with pytest.raises(RuleError, match=message):
        compile_model(saved(resnet()), optimize_for="abacus")


def test_what_depends_on_the_target_stands_last(saved: Save) -> None:
    for composite in COMPOSITES:
        model = compile_model(
            saved(resnet(size=(32, 32), gate="Sigmoid")), composite=composite
        ).model
        depends, seen = {"target", "start"}, False
        for node in model.graph.node:
            later = not depends.isdisjoint(node.input)
            assert later or not seen, (
                f"{composite}: {node.name} stands behind what depends on the target"
            )
            seen = seen or later
            depends.update(node.output if later else ())
        assert seen


def test_a_pool_whose_border_is_cut_off(saved: Save) -> None:
    """Windows that do not reach the last row and column leave them at zero."""
    net = Network(0)
    y = net.node("MaxPool", "x", kernel_shape=[2, 2], strides=[3, 3], name="layer")
    path = saved(net.model(net.node("Flatten", y), ["N", 2, 9, 10]))
    x = np.random.default_rng(1).normal(size=(1, 2, 9, 10)).astype(np.float32)
    maps = [
        run_onnx(compile_model(path, composite="gradient", optimize_for=name).model, {"x": x})[
            "heatmap"
        ]
        for name in ("cpu", "portable")
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert (maps[1][:, 2::3] == 0).all() and (maps[1][:, :, 9] == 0).all()


CHOICES = [field.name for field in fields(Emission)]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_every_choice_alone_leaves_every_map_as_it_is(choice: str, kind: str, saved: Save) -> None:
    """In float64, where only algebra counts, to 1e-9 of the
    maximum; in float32 to 1e-5 where the map is stable.
    """
    path = saved(
        resnet(kind, size=(32, 32), widths=(8, 16), gate="Sigmoid" if kind == "basic" else None)
    )
    x = {"x": picture(onnx.load(path))}
    best = EMISSIONS["portable" if choice == "widest_concat" else "cpu"]
    other = replace(best, **{choice: not getattr(best, choice)})
    if choice == "widest_concat":
        other = replace(best, widest_concat=None)
    differs = False
    of_regions = choice in ("loops", "doubles")
    fitting = [n for n, c in COMPOSITES.items() if not of_regions or "c3" in c.post]
    fitting = fitting if kind == "basic" else fitting[::3]
    whole: dict[str, Any] = {}
    if choice == "matrices_last":  # those of strided shortcuts, all the way to the pixels
        fitting, whole = [DEFAULT], {"resolution": "full"}
    for composite in fitting:
        models = [
            compile_model(path, composite=composite, optimize_for=one, **whole).model
            for one in (best, other)
        ]
        if models[0].graph == models[1].graph:
            continue
        differs = True
        exact = [run_float64(model, x)["heatmap"] for model in models]
        assert relative(exact[1], exact[0]) < ROUNDED.get(choice, EXACT), composite
        rounded = run_onnx(models[1], x)["heatmap"]
        assert relative(rounded, exact[1]) < 1e-4, composite
    assert differs, "the choice changes nothing"


@pytest.mark.parametrize(
    ("choice", "composite"), [("telescoped", "lrp-z"), ("signs", "epsilon-plus")]
)
def test_what_is_known_makes_files_smaller(choice: str, composite: str, saved: Save) -> None:
    """Quotients that cancel, and signs: fewer nodes with them than without."""
    path = saved(resnet("basic", size=(16, 16), widths=(8, 8)))
    with_it = EMISSIONS["cpu"]
    numbers = [
        len(
            compile_model(path, composite=composite, optimize_for=one, post="none").model.graph.node
        )
        for one in (with_it, replace(with_it, **{choice: False}))
    ]
    assert numbers[0] < numbers[1]
