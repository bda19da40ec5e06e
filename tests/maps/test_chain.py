"""Chains of steps: the table, the text form, and errors that say what to write instead."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from lrp_onnx.maps.c3 import C3Options, c1c, c3
from lrp_onnx.maps.chain import STEPS, parse_chain, post_process
from lrp_onnx.maps.heatmap import average, normalize, quantize

VALUES = np.random.default_rng(0).normal(size=(56, 56)).astype(np.float32)
VALUES.flags.writeable = False


@pytest.mark.parametrize("name", STEPS)
def test_every_step(name: str) -> None:
    step = STEPS[name]
    assert step.description
    assert "\n" not in step.description
    first = fields(step.defaults)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(step.defaults, first, 1)
    result = post_process(VALUES, name)
    assert (result.shape, result.dtype) == ((56, 56), np.float32)
    assert not np.array_equal(result, VALUES)
    # Naming every default changes nothing.
    spelled = ",".join(f"{field.name}={getattr(step.defaults, field.name)}" for field in fields(step.defaults))
    np.testing.assert_array_equal(post_process(VALUES, f"{name}:{spelled}"), result)


def test_steps_do_what_their_functions_do() -> None:
    expected = {
        "c3": c3(VALUES).map,
        "c1c": c1c(VALUES).map,
        "quantize": quantize(VALUES),
        "quantize:16": quantize(VALUES, levels=16),
        "average": average(VALUES),
        "smooth": average(VALUES, size=14, expansion="bilinear"),
        "average:14,expansion=bilinear": average(VALUES, size=14, expansion="bilinear"),
        "normalize": normalize(VALUES),
        "normalize:positive, percentile=99.5": normalize(VALUES, mode="positive", percentile=99.5),
        "c3:component=peak,threshold=mean": c3(VALUES, C3Options(component="peak")).map,
        "c3:14,threshold=quantile:0.8": c3(VALUES, C3Options(size=14, threshold="quantile:0.8")).map,
        "c3:threshold=-1e+1,outside=rank": c3(VALUES, C3Options(threshold=-10.0, outside="rank")).map,
        "c1c:connectivity=4": c1c(VALUES, C3Options(component="peak", connectivity=4)).map,
        "": VALUES,
    }
    for chain, result in expected.items():
        np.testing.assert_array_equal(post_process(VALUES, chain), result, err_msg=chain)


def test_steps_run_in_order() -> None:
    expected = quantize(c3(average(VALUES, size=14)).map, levels=4)
    assert not np.array_equal(expected, average(c3(quantize(VALUES, levels=4)).map, size=14))
    for chain in ("average:14+c3+quantize:4", " average:14 + c3 +quantize:4", ["average:14", "c3", "quantize:4"]):
        np.testing.assert_array_equal(post_process(VALUES, chain), expected)


def test_the_result_is_new() -> None:
    for chain in ("", [], "normalize"):
        assert not np.shares_memory(post_process(VALUES, chain), VALUES)


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("c4", "unknown step 'c4'.*known: c3, c1c, quantize, average, smooth, normalize"),
        ("quantise:8", "did you mean 'quantize'"),
        ("c3+", "unknown step ''"),
        ("c3++quantize", "unknown step ''"),
        ("c3:kind=peak", "'kind' is unknown; known: size, threshold"),
        ("c3:size=9,size=9", "'size' is given twice"),
        ("c3:component=best", "step 'c3': component must be one of area, peak; got 'best'"),
        ("quantize:1", "step 'quantize': levels"),
        ("quantize:8.5", "levels must be a whole number"),
        ("quantize:8,9", "'9' is unknown"),
        ("normalize:percentile=high", "percentile must be a number"),
        ("normalize:upwards", "mode"),
        ("average:expansion=cubic", "expansion"),
        ("average:0", "size"),
    ],
)
def test_errors_come_when_parsing(chain: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_chain(chain)


def test_a_bad_map_is_an_error_when_running() -> None:
    run = parse_chain("")
    with pytest.raises(ValueError, match="a map"):
        run(np.full((2, 2), np.nan))
