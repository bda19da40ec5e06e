"""The HTML report's file: complete, harmless whatever names hold, and right in its numbers."""

from __future__ import annotations

import errno
import json
import re
import weakref
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import fields, replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from report_entries import HOSTILE, RUN, bump, disc, entry, one_map, photo, signed

from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.contract import Preprocessing
from lrp_onnx.errors import OutputError, OutputExistsError
from lrp_onnx.maps.chain import parse_chain
from lrp_onnx.relevance.rules.table import RULES as ALL_RULES
from lrp_onnx.report.card import FULL_SIDE, MAP_SIDE, PHOTO_SIDE, colors_over_photo, outline_path
from lrp_onnx.report.colors import TABLES
from lrp_onnx.report.entry import Entry, Failed, Map, Run
from lrp_onnx.report.page import Page as Growing
from lrp_onnx.report.page import write_page
from lrp_onnx.report.words import (
    RULES,
    color_name,
    place,
    plain,
    preprocessing_in_words,
    rules_in_words,
)
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.preprocess import Box

MODELS = Path(__file__).parents[2] / "models"


class Page(HTMLParser):
    """A page taken apart: elements with their attributes, texts, and scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.inside = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            kind, text = self.scripts[-1]
            self.scripts[-1] = kind, text + data
        elif self.inside != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self) -> list[Any]:
        """The data of every photo."""
        found = [json.loads(text) for kind, text in self.scripts if kind == "application/json"]
        return [each for each in found if "maps" in each]


def written(folder: Path, *entries: Entry | Failed, run: Run = RUN, **options: Any) -> Page:
    return Page(write_page(folder / "report.html", run, entries, force=True, **options))


def decoded(attribute: str | None) -> np.ndarray:
    data = b64decode((attribute or "").split(",", 1)[1])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def test_the_file_loads_nothing(tmp_path: Path) -> None:
    page = written(tmp_path, entry())
    assert not re.search(r"(https?|wss?|ftp|file|blob)://", page.source)
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style", tag  # the page's policy forbids it
            if name in ("src", "href", "data", "action", "srcset"):
                assert (value or "").startswith(("data:image/", "#")), (tag, name, value)
    (policy,) = [e["content"] or "" for e in page.all("meta") if "http-equiv" in e]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "@import" not in page.source
    assert "url(" not in page.source.replace("url(#", "")


def test_no_name_becomes_markup(tmp_path: Path) -> None:
    plain_page = written(tmp_path, entry(label=1, label_name="star"), Failed("x.jpg", "damaged"))
    hostile = entry(
        HOSTILE,
        top5=[(0, HOSTILE, 0.9)],
        maps=[one_map(name=HOSTILE)],
        label=1,
        label_name=HOSTILE,
    )
    texts = {each.name: HOSTILE for each in fields(Run) if isinstance(getattr(RUN, each.name), str)}
    tables = {name: {HOSTILE: HOSTILE} for name in ("rules", "versions", "conservation")}
    run = replace(RUN, **texts, **tables, notes=[HOSTILE])
    page = written(tmp_path, hostile, Failed(HOSTILE, HOSTILE), run=run)
    assert len(page.scripts) == len(plain_page.scripts) == 3
    assert len(page.all("img")) == 1
    for unwanted in ("\x1b", "\u202e", "gnp.exe\n"):
        assert unwanted not in page.source
    assert "\\u202egnp.exe\\udcff" in page.text
    assert "</script><img src=x onerror=alert(1)>\"'&amp;\\n\\x1b[31m" in page.text
    assert (page.all("li")[1]["data-name"] or "").startswith("</script>")


def test_plain_keeps_what_can_be_read() -> None:
    assert plain("Käse 猫 می‌خواهم 👩‍🔬 -x") == "Käse 猫 می‌خواهم 👩‍🔬 -x"
    assert plain("a\tb\u2066c\u2028d\x9be") == "a\\tb\\u2066c\\u2028d\\x9be"


def test_map_bytes_are_the_map_on_its_scale(tmp_path: Path) -> None:
    """127 is zero, and the shared scale of several maps is that of the largest."""
    strong, weak = signed(), 0.25 * signed(0.7, 0.4)
    page = written(tmp_path, entry(maps=[one_map(strong), one_map(weak, target=1)]))
    (data,) = page.data
    assert data["size"] == [120, 90]
    assert data["box"] == [15, 0, 90, 90]
    both = np.concatenate([strong.ravel(), weak.ravel()])
    scale = np.percentile(np.abs(both), 99.5)
    for shown, heatmap in zip(data["maps"], (strong, weak), strict=True):
        width, height = shown["size"]
        found = np.frombuffer(b64decode(shown["values"]), np.uint8).reshape(height, width)
        np.testing.assert_array_equal(
            found, np.rint((heatmap / scale).clip(-1, 1) * 127).astype(int) + 127
        )
    assert f"Full colour from {scale:.3g}." in page.text


def test_large_maps_and_photos_are_made_small(tmp_path: Path) -> None:
    large = entry(
        photo=photo(3000, 2000),
        box=Box(0, 500, 2000, 2000),
        maps=[one_map(bump(0.5, 0.5, side=448, width=40))],
    )
    page = written(tmp_path, large)
    assert page.data[0]["maps"][0]["size"] == [MAP_SIDE, MAP_SIDE]
    small = decoded(page.all("img")[0]["src"])
    assert small.shape[:2] == (PHOTO_SIDE, PHOTO_SIDE * 2 // 3)
    assert len(page.source) < 150_000
    full = written(tmp_path, large, full_size=True)
    assert decoded(full.all("img")[0]["src"]).shape[0] == FULL_SIDE


def test_the_photo_is_the_photo(tmp_path: Path) -> None:
    """In its own colours, red not blue."""
    red = np.zeros((40, 40, 3), np.uint8)
    red[:, :, 0] = 200
    page = written(tmp_path, entry(photo=red, box=Box(0, 0, 40, 40)))
    np.testing.assert_allclose(decoded(page.all("img")[0]["src"])[20, 20], [0, 0, 200], atol=4)


def test_colours_come_from_the_table() -> None:
    colors, table = colors_over_photo(), TABLES["diverging"].astype(int)
    assert colors.shape == (255, 4)
    assert colors[127, 3] == 0
    assert (colors[[0, 254], 3] == 255).all()
    assert (np.diff(colors[127:, 3].astype(int)) >= 0).all()
    for color in colors[[0, 60, 200, 254], :3]:
        assert (np.abs(table - color).sum(1) == 0).any()
    assert colors[254, 0] > colors[254, 2]
    assert colors[0, 2] > colors[0, 0]


def test_a_drawing_stands_in_where_no_script_runs(tmp_path: Path) -> None:
    """Warm in the upper left, blue in the lower right, over the part that the model saw."""
    page = written(tmp_path, entry())
    (still,) = page.all("image")
    assert [still[name] for name in ("x", "y", "width", "height")] == ["15", "0", "90", "90"]
    blue, _, red, opacity = np.moveaxis(decoded(still["href"]).astype(int), -1, 0)
    side = len(red)
    first, last = side // 5, side - 1 - side // 5
    assert red[first, first] > blue[first, first] + 80
    assert blue[last, last] > red[last, last] + 80
    assert opacity[first, first] > opacity[last, last] > opacity[first, last]
    assert page.all("noscript")


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        (0.1, 0.1, "upper left"),
        (0.5, 0.5, "centre"),
        (0.9, 0.5, "lower middle"),
        (0.5, 0.9, "middle right"),
    ],
)
def test_place(row: float, column: float, expected: str) -> None:
    assert place(bump(row, column)) == expected


def test_place_of_nothing_and_of_everything() -> None:
    assert place(np.zeros((9, 9), np.float32)) == ""
    assert place(-bump(0.5, 0.5)) == ""
    assert place(np.ones((9, 9), np.float32)).endswith("spread over the whole")


def test_alt_text(tmp_path: Path) -> None:
    page = written(tmp_path, entry(label=1, label_name="star"))
    assert page.all("img")[0]["alt"] == (
        "Photo photos/heart.png. The model says heart 80.0%, which is wrong. Relevance for heart "
        "in the part that the model saw is strongest: upper left; against it: lower right."
    )


def test_a_map_without_negative_values(tmp_path: Path) -> None:
    page = written(tmp_path, entry(maps=[one_map(bump(0.5, 0.5))]))
    assert "against it" not in (page.all("img")[0]["alt"] or "")
    assert page.all("use")[-1]["href"] == "#bar-for"
    assert written(tmp_path, entry()).all("use")[-1]["href"] == "#bar-both"


def test_a_map_of_zeros(tmp_path: Path) -> None:
    page = written(tmp_path, entry(maps=[one_map(np.zeros((7, 5), np.float32))]))
    assert "The map is zero everywhere." in page.text
    assert set(b64decode(page.data[0]["maps"][0]["values"])) == {127}


def test_nothing_known_but_the_map(tmp_path: Path) -> None:
    """No region, score, sums, names or label."""
    bare = one_map(name="", score=None, region=None, sums=None, start_value=None)
    page = written(tmp_path, entry(maps=[bare], top5=[(7, "", 0.5)]), run=Run(model="m.onnx"))
    assert "Relevance for class 0" in page.text
    assert "class 7 50.0%" in page.text
    assert "outline" not in [e.get("class") for e in page.all("g")]
    assert "None" not in page.text
    assert "does not tell how much relevance arrived" in page.text
    hidden = [e for e in page.all("span") if "hidden" in e]
    assert hidden  # of the region


def test_scores_that_are_no_probabilities(tmp_path: Path) -> None:
    means = entry(scores_are="mean", top5=[(0, "heart", 3.25), (1, "star", -1.0)])
    page = written(tmp_path, means)
    assert "heart mean 3.25" in page.text
    assert [e["width"] for e in page.all("rect")][-2:] == ["100", "0"]


def test_counts_and_labels(tmp_path: Path) -> None:
    page = written(
        tmp_path,
        entry("a.png", label=0, label_name="heart"),
        entry("b.png", label=1, label_name="star"),
        entry("c.png"),
        Failed("d.png", "it is damaged"),
    )
    assert "3 photos, 1 right of 2 with a true class (50.0%), 1 could not be explained" in page.text
    assert "wrong: it is star" in page.text
    assert "d.png it is damaged" in page.text
    assert [e["value"] for e in page.all("option")[:4]] == ["", "says 0", "is 0", "is 1"]
    assert [e["data-right"] for e in page.all("li") if "data-right" in e] == ["1", "0", ""]


def test_no_photos(tmp_path: Path) -> None:
    page = written(tmp_path)
    assert "0 photos" in page.text
    assert not page.all("img")


def test_notes_come_first(tmp_path: Path) -> None:
    page = written(tmp_path, entry(), run=replace(RUN, notes=["imagenet is assumed"]))
    assert page.text.index("imagenet is assumed") < page.text.index("How to read")


def test_conservation(tmp_path: Path) -> None:
    half = one_map(sums={"all": 0.5}, start_value=1.0)
    page = written(tmp_path, entry(), entry(maps=[half]), run=replace(RUN, start="logit"))
    assert "62.5% of the relevance" in page.text
    assert "2 maps (median; from 50.0% to 75.0%)" in page.text
    none = one_map(sums={"all": 0.5}, start_value=0.0)
    assert "does not tell" in written(tmp_path, entry(maps=[none])).text


def test_photos_are_taken_one_at_a_time(tmp_path: Path) -> None:
    """At most the last one is held while the next is made; nothing is taken where the file
    exists.
    """
    photos: list[weakref.ref[np.ndarray]] = []

    def entries() -> Iterator[Entry]:
        for number in range(4):
            assert sum(each() is not None for each in photos) <= 1
            made = entry(photo=photo(seed=number))
            photos.append(weakref.ref(made.photo))
            yield made
            del made

    path = write_page(tmp_path / "report.html", RUN, entries())
    taken = entries()
    with pytest.raises(OutputExistsError, match=r"report\.html exists"):
        write_page(path, RUN, taken)
    assert next(taken).name == "photos/heart.png"
    with pytest.raises(OutputError, match="does not exist"):
        write_page(tmp_path / "no" / "report.html", RUN, [])


def test_a_page_grows(tmp_path: Path) -> None:
    """Photo by photo, and it may be written more than once."""
    page = Growing()
    page.add(entry("a.png"))
    first = Page(page.write(tmp_path / "report.html", RUN))
    page.add(Failed("b.png", "it is damaged"))
    page.add(entry("c.png"))
    second = Page(page.write(tmp_path / "report.html", RUN, force=True))
    assert [len(each.all("img")) for each in (first, second)] == [1, 2]
    whole = written(tmp_path, entry("a.png"), Failed("b.png", "it is damaged"), entry("c.png"))
    assert second.source == whole.source


def test_many_photos_wait_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in memory; and it is said where there is no room for them."""
    names = [f"{number}.png" for number in range(5)]
    usual = written(tmp_path, *map(entry, names))
    monkeypatch.setattr("lrp_onnx.report.page.IN_MEMORY", 1000)
    page = Growing()
    for name in names:
        page.add(entry(name))
    assert page._cards._rolled
    for _ in range(2):
        assert Page(page.write(tmp_path / "report.html", RUN, force=True)).source == usual.source

    def full(text: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(page._cards, "write", full)
    with pytest.raises(OutputError, match="No space left on device; set TMPDIR"):
        page.add(entry("d.png"))


def test_an_entry_checks_its_values() -> None:
    with pytest.raises(ValueError, match="at least one map"):
        entry(maps=[])
    with pytest.raises(ValueError, match="does not lie in"):
        entry(box=Box(40, 0, 90, 90))
    with pytest.raises(ValueError, match="uint8 RGB"):
        entry(photo=np.zeros((90, 120), np.uint8))
    with pytest.raises(ValueError, match="scores_are"):
        entry(scores_are="logit")
    with pytest.raises(ValueError, match="finite"):
        entry(maps=[one_map(np.full((3, 3), np.nan, np.float32))])


def area_of(path: str) -> float:
    """What a path encloses, without its holes, in 0 to 1; curves count as their chords."""
    total = 0.0
    for part in path.split("M")[1:]:
        turns = np.array(re.findall(r"[\d.]+", part), float).reshape(-1, 3, 2)
        ends = turns[:, [0, 2]].reshape(-1, 2)
        x, y = ends.T
        total += float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    return abs(total) / 1e6


def test_outline_encloses_the_region() -> None:
    assert area_of(outline_path(disc())) == pytest.approx(disc().mean(), rel=0.1)
    ring = disc(28)
    ring[7:10, 7:10] = False
    assert outline_path(ring).count("M") == 2
    assert area_of(outline_path(ring)) == pytest.approx(ring.mean(), rel=0.1)
    assert outline_path(np.zeros((14, 14), np.bool_)) == ""
    assert area_of(outline_path(np.ones((14, 14), np.bool_))) > 0.97


def test_outline_of_a_single_cell_is_seen() -> None:
    cell = np.zeros((14, 14), np.bool_)
    cell[5, 8] = True
    numbers = np.array(re.findall(r"\d+", outline_path(cell)), float)
    np.testing.assert_allclose(numbers[0::2].mean(), 8.5 / 14 * 1000, atol=8)
    np.testing.assert_allclose(numbers[1::2].mean(), 5.5 / 14 * 1000, atol=8)


def test_every_rule_has_words() -> None:
    assert RULES.keys() == ALL_RULES.keys()
    words = rules_in_words({"a": "gamma(gamma=0.5)", "b": "gamma(gamma=0.5)", "c": "pass"})
    assert list(words) == ["gamma(gamma=0.5)", "pass"]
    assert words["gamma(gamma=0.5)"].startswith("2 layers: ")


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((212, 68, 56), "red"), ((233, 142, 0), "orange"), ((0, 141, 235), "blue")],
)
def test_color_name(rgb: tuple[int, int, int], name: str) -> None:
    assert color_name(np.array(rgb, np.uint8)) == name


def test_preprocessing_in_words() -> None:
    assert preprocessing_in_words(Preprocessing()) == (
        "the largest centred part of the input's shape, bilinear resizing, RGB, divided by 255, "
        "minus (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225)"
    )
    raw = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, divisor=1.0, resize="stretch")
    assert preprocessing_in_words(raw) == (
        "the whole picture stretched to the input's size, bilinear resizing, RGB"
    )


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    options = Options(outputs=("heatmap", "heatmap_raw", "c3"))
    compiled = compile_model(MODELS / "shapes-resnet.onnx", options).model
    return Explainer(compiled.SerializeToString())


def test_of_the_embedded_model(explainer: Explainer, tmp_path: Path) -> None:
    """What an explanation holds becomes an entry, and signed relevance lies under the outline."""
    path = MODELS / "samples" / "heart.png"
    (explanation,) = explainer.explain_images([path])
    chain = parse_chain(explainer.contract.post)
    made = Entry.of([explanation], name="heart.png", label=explanation.target, chain=chain)
    (shown,) = made.maps
    assert made.right
    assert shown.score == pytest.approx(made.top5[0][2])
    assert explanation.heatmap_raw is not None
    assert shown.sums is not None
    assert shown.sums["all"] == pytest.approx(float(explanation.heatmap_raw.sum()), rel=1e-5)
    assert shown.heatmap.shape == explanation.heatmap.shape
    assert shown.heatmap.min() < 0
    assert explanation.region is not None
    without = replace(explanation, region=None)
    np.testing.assert_array_equal(Map.of(without, chain=chain).region, explanation.region)
    run = Run.of(explainer, MODELS / "shapes-resnet.onnx", chain=chain, command="lrp-onnx explain")
    page = written(tmp_path, made, run=run)
    for text in (
        run.sha256,
        "residual-c3",
        "12×12",
        "outside=rank",
        "onnxruntime",
        "z-plus",
        run.shown,
    ):
        assert text in page.text
    assert len(run.sha256) == 64


def test_what_counts_as_zero_is_not_shown_as_against(explainer: Explainer) -> None:
    """Without the raw map: C3 lowers what lies outside, which speaks against nothing."""
    (explanation,) = explainer.explain_images([MODELS / "samples" / "heart.png"])
    chain = parse_chain(explainer.contract.post)
    without = replace(explanation, heatmap_raw=None)
    assert without.heatmap.min() < 0
    (shown,) = Entry.of([without], chain=chain).maps
    assert shown.heatmap.min() == 0
    assert shown.sums is None


def test_scripts_and_styles_can_stand_in_a_page() -> None:
    """Nothing in them ends their element, and their hashes are of what a browser reads."""
    folder = Path(__file__).parents[2] / "lrp_onnx" / "report" / "assets"
    for name in ("page.css", "page.js"):
        data = (folder / name).read_bytes()
        assert not re.search(rb"</|<!--|\r|\0", data), name
        assert BytesIO(data).read().isascii(), name
