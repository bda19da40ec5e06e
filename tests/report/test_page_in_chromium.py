"""The HTML report in a real Chromium: drawing, filters, keyboard, print, and its own policy.

Needs Debian's or another system's Chromium and ``pip install -e '.[browser-tests]'``.
"""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_entries import HOSTILE, RUN, bump, entry, one_map, photo

from lrp_onnx.report.entry import Entry, Failed
from lrp_onnx.report.page import write_page
from lrp_onnx.runtime.preprocess import Box

REASON = "the report's tests in a browser need `pip install -e '.[browser-tests]'`"
playwright = pytest.importorskip("playwright.sync_api", reason=REASON)
pytest.importorskip("axe_playwright_python", reason=REASON)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHOTOS = 500
SECONDS, MEGABYTES = 2.0, 100
"""What a page of `PHOTOS` photos may take until it is there, and its largest size."""
WHOLE = Box(0, 0, 120, 90)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium: install one, on Debian `apt-get install chromium`")
    sandbox = [] if os.name != "posix" or os.geteuid() else ["--no-sandbox"]
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=sandbox)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos: wrong and right, one with three maps, one with a hostile name."""
    three = [
        one_map(bump(0.2, 0.2), name="star", target=1),
        one_map(bump(0.8, 0.8), score=0.1),
        one_map(bump(0.5, 0.2), target=2, name="", region=None),
    ]
    entries = [
        entry("b/2.png", label=0, label_name="heart"),
        entry("a/10.png", label=1, label_name="star", top5=[(0, "heart", 0.6), (1, "star", 0.3)]),
        entry("a/9.png", label=1, label_name="star", top5=[(1, "star", 0.9)], maps=three),
        entry(HOSTILE, top5=[(2, HOSTILE, 0.5)], maps=[one_map(name=HOSTILE)], box=WHOLE),
        entry("tall.png", photo=photo(400, 100), box=Box(0, 150, 100, 100)),
        entry("flat.png", maps=[one_map(np.zeros((20, 20), np.float32))]),
        Failed("broken.png", "it is damaged"),
    ]
    folder = tmp_path_factory.mktemp("report")
    return write_page(folder / "report.html", RUN, entries)


class Faults(list[str]):
    """What a page said to the console, and what it asked of the network."""

    def watch(self, page: Any) -> None:
        page.on("console", lambda message: self.append(message.text))
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("request", self._request)

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.append(f"asked for {request.url}")


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The report, opened from its file; nothing may be said or asked for while a test uses it."""
    opened = browser.new_page(viewport={"width": 1300, "height": 900})
    faults = Faults()
    faults.watch(opened)
    opened.goto(report.as_uri())
    opened.wait_for_selector(".drawn")
    yield opened
    opened.close()
    assert not faults


def settled(page: Any) -> None:
    page.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


def pixels(page: Any, photo: int = 0, index: int = 0) -> np.ndarray:
    """(h, w, 4): what a map's canvas shows, RGBA."""
    settled(page)
    width, height, values = page.evaluate(
        """([photo, index]) => {
            const canvas = document.querySelectorAll("#list > li")[photo]
                .querySelectorAll("figure")[index].querySelector("canvas");
            const { width, height } = canvas;
            const image = canvas.getContext("2d").getImageData(0, 0, width, height);
            return [width, height, [...image.data]];
        }""",
        [photo, index],
    )
    return np.array(values, np.uint8).reshape(height, width, 4)


def shown(page: Any) -> list[str]:
    """The names of the photos that are shown, in order."""
    names: list[str] = page.locator("#list > li:visible h3").all_text_contents()
    return names


def slide(page: Any, name: str, value: int) -> None:
    page.locator(f"#{name}").fill(str(value))


def pick(page: Any, name: str, value: str) -> None:
    page.locator(f'input[name="{name}"][value="{value}"]').check(force=True)


def test_the_map_is_drawn_in_its_colours(page: Any) -> None:
    """Warm where relevance is for the class, blue where it is against it, nothing elsewhere."""
    drawn = pixels(page).astype(int)
    row = len(drawn) // 5
    warm, blue, none = drawn[row, row], drawn[-row - 1, -row - 1], drawn[row, -row]
    assert warm[0] > warm[2] + 80
    assert blue[2] > blue[0] + 80
    assert warm[3] > blue[3] > none[3] == 0
    assert warm[3] == round(255 * 0.9)


def test_the_map_lies_on_the_part_that_the_model_saw(page: Any) -> None:
    boxes = page.evaluate(
        """[...document.querySelectorAll("#list > li")].slice(0, 5).map((item) =>
            ["img", "canvas"].map((tag) => {
                const box = item.querySelector(tag).getBoundingClientRect();
                return [box.x, box.y, box.width, box.height];
            }))"""
    )
    expected = {0: (15, 0, 90, 90, 120, 90), 4: (0, 150, 100, 100, 100, 400)}
    for index, (left, top, width, height, across, down) in expected.items():
        photo_box, map_box = boxes[index]
        scale = photo_box[2] / across
        assert photo_box[3] == pytest.approx(down * scale, abs=1)
        where = np.subtract(map_box[:2], photo_box[:2])
        np.testing.assert_allclose(where, [left * scale, top * scale], atol=1)
        np.testing.assert_allclose(map_box[2:], [width * scale, height * scale], atol=1)
    assert boxes[4][0][3] <= 0.7 * 900 + 1  # a tall photo fits into the window


def test_opacity_changes_pixels(page: Any) -> None:
    before = pixels(page)
    slide(page, "opacity", 40)
    after = pixels(page)
    assert after[..., 3].max() == round(255 * 0.4)
    assert (after[..., 3] <= before[..., 3]).all()
    assert page.locator("#opacity-is").inner_text() == "40%"
    slide(page, "opacity", 0)
    assert not pixels(page)[..., 3].any()


def test_threshold_hides_weak_relevance(page: Any) -> None:
    before = pixels(page)
    slide(page, "threshold", 70)
    after = pixels(page)
    kept = after[..., 3] > 0
    assert 0 < kept.sum() < (before[..., 3] > 0).sum() / 2
    np.testing.assert_array_equal(after[kept], before[kept])
    assert (after[kept][:, 0] > after[kept][:, 2]).all()  # blue is half as strong


def test_for_and_against(page: Any) -> None:
    both = pixels(page)[..., 3] > 0
    pick(page, "sign", "for")
    towards = pixels(page)
    pick(page, "sign", "against")
    against = pixels(page)
    assert (towards[towards[..., 3] > 0][:, 0] > towards[towards[..., 3] > 0][:, 2]).all()
    assert (against[against[..., 3] > 0][:, 2] > against[against[..., 3] > 0][:, 0]).all()
    np.testing.assert_array_equal((towards[..., 3] > 0) ^ (against[..., 3] > 0), both)


def test_the_outline_can_be_hidden_and_can_cut(page: Any) -> None:
    outline = page.locator("#list > li").first.locator(".outline")
    assert outline.is_visible()
    page.select_option("#region", "inside")
    assert outline.is_visible()
    inside = pixels(page)
    assert inside[11, 11, 3] > 0
    assert not inside[-12:, -12:, 3].any()  # against the class, and outside
    page.select_option("#region", "off")
    assert outline.is_hidden()
    assert pixels(page)[-12:, -12:, 3].any()


def test_the_photo_is_dimmed(page: Any) -> None:
    image = page.locator("#list img").first
    assert image.evaluate("e => getComputedStyle(e).filter") != "none"
    page.locator("#dim").uncheck()
    assert image.evaluate("e => getComputedStyle(e).filter") == "none"


def test_filter(page: Any) -> None:
    count = page.locator("#count")
    assert count.inner_text() == "6 photos shown"
    pick(page, "answer", "0")
    assert shown(page) == ["a/10.png"]
    assert count.inner_text() == "1 of 6 photos shown"
    assert count.get_attribute("role") == "status"
    pick(page, "answer", "1")
    assert shown(page) == ["b/2.png", "a/9.png"]
    page.select_option("#class", "says 1")
    assert shown(page) == ["a/9.png"]
    pick(page, "answer", "")
    page.select_option("#class", "is 1")
    assert shown(page) == ["a/10.png", "a/9.png"]
    page.locator("#find").fill("HEART 10")
    assert shown(page) == ["a/10.png"]
    page.locator("#find").fill("nothing at all")
    assert shown(page) == []
    page.locator("button[type=reset]").click()
    settled(page)
    assert len(shown(page)) == 6


def test_sort(page: Any) -> None:
    page.select_option("#sort", "name")
    assert shown(page)[1:4] == ["a/9.png", "a/10.png", "b/2.png"]
    page.select_option("#sort", "sure")
    assert shown(page)[0] == "a/9.png"
    page.select_option("#sort", "unsure")
    assert shown(page)[1] == "a/10.png"
    page.select_option("#sort", "wrong")
    assert shown(page)[:2] == ["a/10.png", "b/2.png"]
    page.select_option("#sort", "class")
    assert shown(page)[-1] == "a/9.png"
    page.select_option("#sort", "given")
    assert shown(page)[0] == "b/2.png"


def test_classes_of_a_photo(page: Any) -> None:
    """One map at a time or all side by side, each with its own photo, text and pixels."""
    item = page.locator("#list > li").nth(2)
    figures = item.locator("figure")
    assert [figures.nth(k).is_visible() for k in range(3)] == [True, False, False]
    item.locator("input[type=radio]").nth(1).check(force=True)
    assert [figures.nth(k).is_visible() for k in range(3)] == [False, True, False]
    strongest = [np.unravel_index(pixels(page, 2, k)[..., 3].argmax(), (56, 56)) for k in range(3)]
    # The strongest half per cent of the pixels are all of the full colour.
    np.testing.assert_allclose(strongest, [(11, 11), (45, 45), (28, 11)], atol=4)
    page.locator("#side").check()
    assert [figures.nth(k).is_visible() for k in range(3)] == [True, True, True]
    lefts = [figures.nth(k).bounding_box()["x"] for k in range(3)]
    assert lefts == sorted(set(lefts))
    alts = [figures.nth(k).locator("img").get_attribute("alt") for k in range(3)]
    assert [text.partition("Relevance for ")[2].split(" in ")[0] for text in alts] == [
        "star",
        "heart",
        "class 2",
    ]


def test_keyboard(page: Any) -> None:
    """The first stop leads to the photos; every control is reached, seen, and obeys."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id || document.activeElement.name")
        reached.append(name)
        outline = page.evaluate(
            """(() => {
                const e = document.activeElement;
                const seen = e.type === "radio" ? e.nextElementSibling : e;
                return getComputedStyle(seen).outlineStyle;
            })()"""
        )
        assert outline == "solid", name
        if name == "opacity":
            page.keyboard.press("Home")
        if name == "sign":
            page.keyboard.press("ArrowRight")
        if name == "m2":
            page.keyboard.press("ArrowRight")
            break
    expected = ["print", "find", "class", "answer", "sort", "size"]
    expected += ["sign", "opacity", "threshold", "region", "dim", "side", "m2"]
    assert [name for name in reached if name in expected] == expected
    assert page.locator("#opacity-is").inner_text() == "0%"
    assert page.locator('input[name="sign"][value="for"]').is_checked()
    assert page.locator("#list > li").nth(2).locator("figure").nth(1).is_visible()


def test_print_has_every_photo(page: Any, tmp_path: Path) -> None:
    """All maps are drawn, those of other classes too; what is filtered out is not printed."""
    printed = page.pdf()
    drawn = page.evaluate(
        """[...document.querySelectorAll("canvas")].map((canvas) =>
            canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
                .data.some((value) => value > 0))"""
    )
    assert drawn == [True] * 7 + [False]  # the last photo's map is zero
    assert pictures_in(printed) >= 8 + 8  # photos and maps
    pick(page, "answer", "0")
    assert 1 + 1 <= pictures_in(page.pdf()) < 8
    page.emulate_media(media="print")
    assert page.locator("#tools").is_hidden()
    assert "1 of 6 photos shown" in page.locator("#view").inner_text()


def pictures_in(pdf: bytes) -> int:
    """How often the pages of a PDF draw a picture: an object by its name, in ``Do``."""
    drawn = 0
    images = set(re.findall(rb"(\d+) 0 obj\s*<<[^>]*?/Subtype /Image", pdf))
    assert images
    for data in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            drawn += len(re.findall(rb"/X\d+ Do", zlib.decompress(data)))
        except zlib.error:
            continue
    return drawn


def test_photos_are_not_split_over_pages(page: Any) -> None:
    page.emulate_media(media="print")
    style = "e => getComputedStyle(e).breakInside"
    assert page.locator("#list > li").first.evaluate(style) == "avoid"


def test_the_policy_holds(browser: Any, report: Path, tmp_path: Path) -> None:
    """The page's own script runs; one that is smuggled in does not, nor does a load."""
    smuggled = "<script>document.title = 'in'</script><img src='https://example.org/x.png'>"
    path = tmp_path / "changed.html"
    path.write_text(report.read_text("utf-8").replace("<main>", f"<main>{smuggled}"), "utf-8")
    opened = browser.new_page()
    faults = Faults()
    faults.watch(opened)
    opened.goto(path.as_uri())
    opened.wait_for_selector(".drawn")
    assert opened.title().startswith("Why")
    assert len([fault for fault in faults if "Content Security Policy" in fault]) == 2
    opened.close()


def test_without_scripts(browser: Any, report: Path) -> None:
    """Photos, maps, classes and texts are there; controls that would do nothing are not."""
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(report.as_uri())
    assert opened.locator("noscript p").is_visible()
    assert opened.locator("#tools").is_hidden()
    assert opened.locator("#list > li").nth(2).locator(".choice").is_hidden()
    first = opened.locator("#list > li").first
    assert first.locator("img").is_visible()
    assert first.locator(".still").is_visible()
    assert first.locator("table").is_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_axe_finds_nothing(browser: Any, report: Path, scheme: str, width: int) -> None:
    """axe-core: roles, names, labels, landmarks, contrast; nothing is wider than the window."""
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened.goto(report.as_uri())
    opened.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    found = opened.evaluate("axe.run()")
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    assert len(found["passes"]) > 30
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()


def many(count: int) -> Iterator[Entry]:
    """Photos of the size that a page keeps, with a camera's grain, and maps with noise."""
    generator = np.random.default_rng(0)
    photos = []
    for seed in range(10):
        grain = generator.integers(-16, 17, (360, 480, 3))
        photos.append((photo(360, 480, seed=seed) + grain).clip(0, 255).astype(np.uint8))
    for number in range(count):
        heatmap = bump(number % 7 / 7, number % 5 / 5, side=112, width=12)
        heatmap += generator.normal(0, 0.1, heatmap.shape).astype(np.float32)
        names = [(k, f"class {k}", 0.9 / (k + 1)) for k in range(5)]
        yield entry(
            f"{number}.jpg",
            photo=photos[number % 10],
            box=Box(60, 0, 360, 360),
            maps=[one_map(heatmap)],
            top5=names,
            label=number % 2,
            label_name=f"class {number % 2}",
        )


def test_500_photos_open_quickly(browser: Any, tmp_path: Path) -> None:
    """The quickest of three: what else the machine does adds to each."""
    path = write_page(tmp_path / "report.html", RUN, many(PHOTOS))
    assert path.stat().st_size < MEGABYTES * 1e6
    times = []
    for _ in range(3):
        opened = browser.new_page(viewport={"width": 1300, "height": 900})
        opened.goto(path.as_uri())
        opened.wait_for_selector(".drawn")
        settled(opened)
        times.append(opened.evaluate("performance.now()") / 1000)
        near = opened.locator("canvas").count()
        assert near < 60  # the others are drawn when they come near
        opened.mouse.wheel(0, 30_000)
        opened.locator("canvas").nth(near).wait_for(state="attached")
        opened.close()
    assert min(times) < SECONDS, times
