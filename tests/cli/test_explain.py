"""How the `explain` command shows maps where nothing else
is asked for: post-processing and colours.
"""

from __future__ import annotations

import pytest

from lrp_onnx.compiler import Options
from lrp_onnx.explanation import style_of
from lrp_onnx.maps.chain import parse_chain
from lrp_onnx.relevance.composites.presets import COMPOSITES, DEFAULT, TRANSFORMERS

OWN = {
    "c3-lrp": "c3",
    "c3-lrp-zplus": "c3",
    "epsilon-gamma-plus": "smooth",
    DEFAULT: "c3(size=14, expansion=bilinear, outside=rank)",
    TRANSFORMERS: "c3(size=14, expansion=bilinear, outside=rank)",
}
"""Composites with a post-processing of their own."""


@pytest.mark.parametrize("name", COMPOSITES)
def test_every_composites_post_processing(name: str) -> None:
    chain = parse_chain(COMPOSITES[name].post)
    assert str(Options(composite=name).chain) == COMPOSITES[name].post == OWN.get(name, "none")
    assert str(chain) == COMPOSITES[name].post and bool(chain.steps) == (name in OWN)


def test_what_nobody_knows_has_no_colours_of_its_own() -> None:
    for name in ("c3-lrp-of-tomorrow", f"{DEFAULT}-2", ""):
        assert style_of(parse_chain("none"), "logit", name).colors == "auto"


@pytest.mark.parametrize(
    ("chain", "start", "colors"),
    [
        ("none", "logit", "auto"),
        ("smooth", "probability", "auto"),
        ("none", "contrastive", "diverging"),
        ("smooth", "contrastive", "diverging"),
        ("c3", "logit", "sequential"),
        ("c3:outside=rank", "contrastive", "sequential"),
        ("average+c3", "contrastive", "sequential"),
        ("average+c3", "logit", "sequential"),
    ],
)
@pytest.mark.parametrize("composite", ["c3-lrp", "lrp-resnet", DEFAULT, "unknown"])
def test_colours(chain: str, start: str, colors: str, composite: str) -> None:
    """By what is kept and by the start, whatever the composite is called."""
    assert style_of(parse_chain(chain), start, composite).colors == colors
