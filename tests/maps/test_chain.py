"""Chains of steps: the table, the text form, and errors that say what to write instead."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrp_onnx.errors import RuleError
from lrp_onnx.maps.c3 import OUTSIDES, REDUCTIONS, C3Options, c1c, c3
from lrp_onnx.maps.chain import (
    C1C,
    C3,
    STEPS,
    Average,
    Chain,
    MapStep,
    Normalize,
    Quantize,
    SmoothAverage,
    parse_chain,
)
from lrp_onnx.maps.heatmap import NORMALIZATIONS, average, normalize, quantize

VALUES = np.random.default_rng(0).normal(size=(56, 56)).astype(np.float32)
VALUES.flags.writeable = False


@pytest.mark.parametrize("name", STEPS)
def test_every_step(name: str) -> None:
    step: Any = STEPS[name]
    assert type(step).__doc__
    first = fields(step)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(step, first, 1)
    result = parse_chain(name)(VALUES)
    assert (result.shape, result.dtype) == ((56, 56), np.float32)
    assert not np.array_equal(result, VALUES)
    # Naming every default changes nothing.
    spelled = ",".join(f"{field.name}={getattr(step, field.name)}" for field in fields(step))
    for text in (f"{name}:{spelled}", f"{name}({spelled})"):
        np.testing.assert_array_equal(parse_chain(text)(VALUES), result)
    np.testing.assert_array_equal(step(VALUES), result)


def test_steps_do_what_their_functions_do() -> None:
    expected = {
        "c3": c3(VALUES).map,
        "c1c": c1c(VALUES).map,
        "quantize": quantize(VALUES),
        "quantize:16": quantize(VALUES, levels=16),
        "quantize(16)": quantize(VALUES, levels=16),
        "c3(outside=rank)": c3(VALUES, C3Options(outside="rank")).map,
        "none": VALUES,
        "average": average(VALUES),
        "smooth": average(VALUES, size=14, expansion="bilinear"),
        "average:14,expansion=bilinear": average(VALUES, size=14, expansion="bilinear"),
        "normalize": normalize(VALUES),
        "normalize:positive, percentile=99.5": normalize(VALUES, mode="positive", percentile=99.5),
        "c3:component=peak,threshold=mean": c3(VALUES, C3Options(component="peak")).map,
        "c3:14,threshold=quantile:0.8": c3(
            VALUES, C3Options(size=14, threshold="quantile:0.8")
        ).map,
        "c3:threshold=-1e+1,outside=rank": c3(
            VALUES, C3Options(threshold=-10.0, outside="rank")
        ).map,
        "c1c:connectivity=4": c1c(VALUES, C3Options(component="peak", connectivity=4)).map,
        "": VALUES,
    }
    for chain, result in expected.items():
        np.testing.assert_array_equal(parse_chain(chain)(VALUES), result, err_msg=chain)


def test_steps_run_in_order() -> None:
    expected = quantize(c3(average(VALUES, size=14)).map, levels=4)
    assert not np.array_equal(expected, average(c3(quantize(VALUES, levels=4)).map, size=14))
    spellings = (
        "average:14+c3+quantize:4",
        "average(size=14)+c3()+quantize(4)",
        " average:14 + c3 +quantize:4",
        ["average:14", "c3", "quantize:4"],
        ["average:14+c3", "", "none", "quantize:4"],
    )
    for chain in spellings:
        np.testing.assert_array_equal(parse_chain(chain)(VALUES), expected)


def test_the_result_is_new() -> None:
    for chain in ("", [], "normalize"):
        assert not np.shares_memory(parse_chain(chain)(VALUES), VALUES)


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("c4", "there is no step 'c4'; there are c3, c1c, quantize, average, smooth, normalize"),
        ("quantise:8", "did you mean quantize"),
        ("c3+", "'' is not a step"),
        ("c3++quantize", "'' is not a step"),
        ("c3+none", "there is no step 'none'"),
        ("c3:kind=peak", "the step c3 has no parameter 'kind'; it takes size, threshold"),
        ("c3:size=9,size=9", "size is given twice"),
        ("c3:9,size=9", "size is given twice"),
        ("c3:component=best", "the step c3: component must be one of area, peak; got 'best'"),
        ("c3:threshold=quantile:2", "the step c3: threshold must be 'mean'"),
        ("quantize:1", "the step quantize: levels"),
        ("quantize:8.5", "levels=8.5: the value must be a whole number"),
        ("quantize:8,9", "'9' is not parameter=value"),
        ("normalize:percentile=high", "percentile=high: the value must be a number"),
        ("normalize:upwards", "mode"),
        ("average:expansion=cubic", "expansion"),
        ("average:0", "size"),
    ],
)
def test_errors_come_when_parsing(chain: str, words: str) -> None:
    with pytest.raises(RuleError, match=words):
        parse_chain(chain)


@pytest.mark.parametrize(
    ("chain", "colors"),
    [
        ("none", "auto"),
        ("smooth", "auto"),
        ("normalize:positive+quantize", "auto"),
        ("c3", "sequential"),
        ("c1c+quantize", "sequential"),
        ("average+c3", "sequential"),
        ("average:14+c3(component=peak)+smooth", "sequential"),
    ],
)
def test_a_chain_knows_its_colours(chain: str, colors: str) -> None:
    assert parse_chain(chain).colors == colors


expansions = st.sampled_from(["nearest", "bilinear"])
blobs = {
    "size": st.integers(1, 99),
    "threshold": st.sampled_from(["mean", "quantile:0.25", "value:-1e+3"]) | st.floats(-1e30, 1e30),
    "component": st.sampled_from(["area", "peak"]),
    "connectivity": st.sampled_from([4, 8]),
    "reduction": st.sampled_from(REDUCTIONS),
    "expansion": expansions,
    "outside": st.sampled_from(OUTSIDES),
    "empty": st.sampled_from(["component", "contour", "nothing"]),
}
steps = st.one_of(
    st.builds(C3, **blobs),
    st.builds(C1C, **blobs),
    st.builds(Quantize, st.integers(2)),
    st.builds(Average, st.integers(1), expansions),
    st.builds(SmoothAverage, st.integers(1), expansions),
    st.builds(
        Normalize,
        st.sampled_from(NORMALIZATIONS),
        st.floats(0, 100, exclude_min=True),
    ),
)


@given(st.lists(steps, max_size=4))
def test_every_chain_comes_back(made: list[MapStep]) -> None:
    chain = Chain(tuple(made))
    assert parse_chain(str(chain)) == chain
    assert {type(step) for step in STEPS.values()} == {
        C3,
        C1C,
        Quantize,
        Average,
        SmoothAverage,
        Normalize,
    }


def test_a_bad_map_is_an_error_when_running() -> None:
    run = parse_chain("")
    with pytest.raises(ValueError, match="a map"):
        run(np.full((2, 2), np.nan))


def test_the_region_is_that_of_the_last_step_that_chooses() -> None:
    """What is before it happens to the map first; what comes after does not."""
    values = np.zeros((56, 56), np.float32)
    values[4:20, 4:20], values[41:44, 41:44] = 1, 9
    chains = {
        "c3": c3(values).mask,
        "c1c": c1c(values).mask,
        "average:7+c3": c3(average(values, size=7)).mask,
        "c3:9+c1c:size=11,threshold=0.1+smooth": c1c(
            c3(values, C3Options(size=9)).map, C3Options(11, 0.1, "peak")
        ).mask,
        "c1c+c3:13": c3(c1c(values).map, C3Options(13)).mask,
    }
    for chain, expected in chains.items():
        region = parse_chain(chain).region(values)
        assert region is not None and region.dtype == np.bool_
        np.testing.assert_array_equal(region, expected, err_msg=chain)
    assert len({mask.tobytes() for mask in chains.values()}) == len(chains)
    for chain in ("none", "smooth", "quantize+normalize"):
        assert parse_chain(chain).region(values) is None


def test_steps_for_pictures_are_left_out_of_other_maps() -> None:
    chain = parse_chain("average:4+c3+quantize+c1c")
    assert chain.of_pictures == (C3(), C1C())
    assert chain.for_axes(2) is chain
    for axes in (1, 3):
        assert str(chain.for_axes(axes)) == "average(size=4)+quantize"
    assert parse_chain("smooth").of_pictures == ()


@pytest.mark.parametrize(
    ("chain", "outlined"),
    [
        ("none", False),
        ("smooth", False),
        ("c3", False),
        ("c1c", False),
        ("c3(outside=rank)", True),
        ("average+c1c(outside=rank)", True),
        ("c3+c3(outside=rank)+smooth", True),
    ],
)
def test_what_is_kept_needs_an_outline_where_the_rest_is_not_zero(
    chain: str, outlined: bool
) -> None:
    assert parse_chain(chain).outlined is outlined


def test_which_steps_decide() -> None:
    """Those whose result may change much by rounding, which are computed in float64."""
    assert {name for name, step in STEPS.items() if step.decides} == {"c3", "c1c", "quantize"}
    assert {name for name, step in STEPS.items() if step.one_sided} == {"c3", "c1c"}
