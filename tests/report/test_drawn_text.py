"""Text in pictures: what is drawn of any text, and that it stays where it belongs."""

from __future__ import annotations

import numpy as np
import pytest

from lrp_onnx.report import text
from lrp_onnx.report.text import (
    Line,
    class_label,
    drawable,
    shortened,
    text_block,
    width_of,
    wrapped,
    write,
)

LONG = "a name of very many words and then some more of them " * 4
NAMES = [
    "",
    "cat",
    LONG,
    "x" * 200,
    "x" * 5000,
    "猫",
    "Schäferhund",
    "a\nb\x00\x1b[31m",
    "\u202eabc",
    "🐈",
]


@pytest.fixture(params=["ascii", "unicode"])
def letters(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of drawing, where this OpenCV has both."""
    if request.param == "unicode" and not text.UNICODE:
        pytest.skip("OpenCV draws ASCII alone before its release 5")
    monkeypatch.setattr(text, "UNICODE", request.param == "unicode")
    return str(request.param)


@pytest.mark.parametrize(
    ("given", "ascii_", "unicode"),
    [
        ("Schäferhund", "Schaferhund", "Schäferhund"),
        ("Scha\u0308fer", "Schafer", "Schäfer"),
        ("Straße × ε", "Strasse x epsilon", "Straße × ε"),
        ("a\tb\nc  d\r\n", "a b c d", "a b c d"),
        ("a\x00\x1b[31mb\u202ec\u200bd", "a[31mbcd", "a[31mbcd"),
        ("猫 cat", "? cat", "猫 cat"),
        ("", "", ""),
    ],
)
def test_what_is_drawn_of_a_text(given: str, ascii_: str, unicode: str) -> None:
    assert drawable(given, unicode=False) == ascii_
    assert drawable(given, unicode=True) == unicode


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cat", "cat"),
        ("", "class 7"),
        ("\x00\n", "class 7"),
        ("étoile", "etoile"),
        ("what?", "what?"),
        ("猫 cat", "class 7 (? cat)"),
        ("猫", "class 7 (name not in Latin letters)"),
    ],
)
def test_a_class_whose_name_cannot_be_drawn_has_its_index(name: str, label: str) -> None:
    assert class_label(7, name, unicode=False) == label
    assert class_label(7, "猫", unicode=True) == "猫"


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bold", [False, True])
def test_lines_fit_and_lose_only_their_middle(name: str, bold: bool) -> None:
    lines = wrapped(Line(name, bold=bold, most=2), 200, 15)
    assert len(lines) <= 2
    assert all(width_of(line, 15, bold=bold) <= 200 for line in lines)
    whole = drawable(name)
    assert ("".join(lines) == "") == (whole == "")
    if whole:
        assert lines[0][0] == whole[0] and lines[-1][-1] == whole[-1]
    everything = wrapped(Line(name[:500], bold=bold, most=1000), 200, 15)
    assert "".join(everything).replace(" ", "") == drawable(name[:500]).replace(" ", "")


@pytest.mark.usefixtures("letters")
def test_lines_are_broken_at_spaces_then_after_signs() -> None:
    width = width_of("epsilon-gamma-plus", 15)
    assert wrapped(Line("one epsilon-gamma-plus"), width, 15) == ["one", "epsilon-gamma-plus"]
    broken = wrapped(Line("epsilon-gamma-plus+smooth"), width, 15)
    assert broken[0][-1] in text.SIGNS and broken[1].endswith("smooth")


@pytest.mark.usefixtures("letters")
def test_shortened() -> None:
    assert shortened("short", 200, 15) == "short"
    short = shortened("abcdefghij" * 10, 100, 15)
    assert width_of(short, 15) <= 100
    assert short.startswith("abc") and short.endswith("hij") and drawable("…") in short
    assert shortened("abc", 1, 15) == ""


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize("align", ["left", "centre", "right"])
@pytest.mark.parametrize("name", NAMES)
def test_a_block_holds_its_ink(name: str, align: str) -> None:
    block = text_block(
        [Line(name), Line("Ägypten y(g)", bold=True)], 160, 15, align=align, margin=8
    )
    assert block.shape[1] == 160 and block.dtype == np.uint8
    ink = np.argwhere((block < 128).any(axis=2))
    assert len(ink) > 20
    assert ink[:, 0].min() >= 1 and ink[:, 0].max() < block.shape[0] - 1
    assert ink[:, 1].min() >= 4 and ink[:, 1].max() < 156
    last = ink[ink[:, 0] > block.shape[0] - 25][:, 1]
    left, right = last.min(), 159 - last.max()
    assert {"left": left < 12, "centre": abs(left - right) < 6, "right": right < 12}[align]


@pytest.mark.usefixtures("letters")
def test_ink_is_rgb_and_bold_is_heavier() -> None:
    plain, bold = (np.full((40, 200, 3), 255, np.uint8) for _ in range(2))
    write(plain, "letters", (5, 30), 24, ink=(255, 0, 0))
    write(bold, "letters", (5, 30), 24, bold=True, ink=(255, 0, 0))
    assert (plain[..., 0] == 255).all() and plain[..., 1:].min() < 20
    assert bold[..., 1].mean() < plain[..., 1].mean()
