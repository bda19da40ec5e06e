"""The page in a headless Chromium, with onnxruntime-web from npm: it computes what Python does.

Needs node, npm, Debian's or another system's Chromium and ``pip install -e '.[browser-tests]'``.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import relative
from numpy.typing import NDArray
from web_sites import MODEL, served, with_batch
from zoo_files import manifest

pytest.importorskip("fcntl", reason="environments are made on Linux and macOS alone")

from lrp_onnx.cli.web import make_site
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.contract import Preprocessing
from lrp_onnx.deploy.web_runtime import CDN, INTEGRITY, VERSION, hash_of
from lrp_onnx.explanation import Explanation
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.preprocess import parse_preprocessing, preprocess
from tools.runtimes.environments import browser as chromium
from tools.runtimes.environments import node_of
from tools.runtimes.errors import UnavailableError
from tools.runtimes.registry import WEB

REASON = "the page's tests in a browser need `pip install -e '.[browser-tests]'`"
playwright = pytest.importorskip("playwright.sync_api", reason=REASON)
pytest.importorskip("axe_playwright_python", reason=REASON)

pytestmark = pytest.mark.runtimes

SAMPLES = sorted((MODEL.parent / "samples").iterdir())
CLOSE = 1e-4
"""Largest difference of scores and maps from Python's, relative to their maximum."""
PATIENCE = 300_000
"""Milliseconds that a page may take: a busy machine compiles the runtime slowly."""
READY = "main:not([hidden]), #fault:not([hidden])"
ASK = """async ({files, targets, processor}) => {
  const facts = await (await fetch("model.json")).json();
  const worker = new Worker("worker.mjs", {type: "module"});
  const ask = (task, message) => new Promise((resolve, reject) => {
    worker.onmessage = ({data}) => {
      if (data.error !== undefined) reject(new Error(data.error));
      else if (data.result) resolve(data.result);
    };
    worker.postMessage({id: 1, task, ...message});
  });
  const text = (array) => {
    const view = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    let said = "";
    for (let at = 0; at < view.length; at += 32768) {
      said += String.fromCharCode(...view.subarray(at, at + 32768));
    }
    return btoa(said);
  };
  const loaded = await ask("load", {facts, processor});
  const photos = [];
  for (const [place, file] of files.entries()) {
    const source = new Blob([Uint8Array.from(atob(file), (c) => c.charCodeAt(0))]);
    const found = await ask("explain", {source, target: targets[place]});
    photos.push({
      ...found, heatmap: text(found.heatmap.values), input: text(found.input),
      region: found.region && text(found.region.values),
    });
  }
  worker.terminate();
  return {loaded, photos};
}"""
"""Asks the page's worker as the page does, and gives the arrays, which the page only draws."""


@pytest.fixture(scope="module")
def runtime() -> Path:
    """An npm folder with onnxruntime-web."""
    try:
        chromium()
        _, folder = node_of(WEB)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    return folder


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """Playwright, which may be started once at a time."""
    with playwright.sync_playwright() as one:
        yield one


@contextmanager
def started(driver: Any, *arguments: str) -> Iterator[Any]:
    """A headless Chromium."""
    sandbox = [] if os.name != "posix" or os.geteuid() else ["--no-sandbox"]
    program = driver.chromium.launch(
        executable_path=chromium(), args=[*sandbox, *arguments], timeout=PATIENCE
    )
    yield program
    program.close()


@pytest.fixture(scope="module")
def browser(runtime: Path, driver: Any) -> Iterator[Any]:
    """One with a camera, which films a test picture."""
    camera = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    with started(driver, *camera) as one:
        yield one


@pytest.fixture(scope="module")
def site(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's page, with its four pictures."""
    folder = tmp_path_factory.mktemp("embedded") / "site"
    make_site(MODEL, folder, options=Options(), samples=SAMPLES[0].parent, runtime=runtime)
    return folder


def asked(
    browser: Any,
    folder: Path,
    photos: Sequence[bytes],
    *,
    targets: Sequence[int] | None = None,
    processor: str = "wasm",
    with_headers: bool = True,
) -> dict[str, Any]:
    """What the worker says of photos."""
    message = {
        "files": [base64.b64encode(photo).decode() for photo in photos],
        "targets": list(targets or [-1] * len(photos)),
        "processor": processor,
    }
    with served(folder, with_headers=with_headers) as address:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"{address}style.css")
        found: dict[str, Any] = page.evaluate(ASK, message)
        page.close()
    return found


def numbers(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), np.float32)


def check(said: dict[str, Any], expected: Any) -> None:
    """One photo's scores, classes, map and region are Python's."""
    assert relative(np.array(said["scores"]), expected.scores) < CLOSE
    assert relative(numbers(said["heatmap"]), expected.heatmap.ravel()) < CLOSE
    box = expected.box
    assert said["box"] == {
        "left": box.left,
        "top": box.top,
        "width": box.width,
        "height": box.height,
    }
    order = np.argsort(-np.array(said["probabilities"]), kind="stable")[:5]
    assert order.tolist() == [index for index, _, _ in expected.top5]
    for index, _, probability in expected.top5:
        assert said["probabilities"][index] == pytest.approx(probability, abs=1e-5)
    assert (said["region"] is None) == (expected.region is None)
    if expected.region is not None:
        assert np.array_equal(numbers(said["region"]) > 0, expected.region.ravel())


def explained(folder: Path, photos: Sequence[Any], **options: Any) -> list[Any]:
    """Python's explanations by the site's own file."""
    facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    spec = Preprocessing.from_json(json.dumps(facts["preprocessing"]))
    explainer = Explainer(folder / "model.onnx", providers="cpu", preprocessing=spec)
    return list(explainer.explain_images(photos, **options))


def test_the_pinned_hashes_are_the_packages(runtime: Path) -> None:
    package = runtime / "node_modules" / "onnxruntime-web"
    assert json.loads((package / "package.json").read_text("utf-8"))["version"] == VERSION
    for name, integrity in INTEGRITY.items():
        assert hash_of((package / "dist" / name).read_bytes()) == integrity


def test_scores_and_maps_are_pythons(browser: Any, site: Path) -> None:
    """Of the predicted class and of another, with threads."""
    photos = [path.read_bytes() for path in SAMPLES]
    targets = [-1, -1, 3, 0]
    said = asked(browser, site, photos, targets=targets)
    assert said["loaded"]["provider"] == "wasm" and said["loaded"]["same"]
    assert said["loaded"]["threads"] == min(4, os.cpu_count() or 1)
    for one, expected in zip(said["photos"], explained(site, photos, target=targets), strict=True):
        check(one, expected)


def test_without_headers_there_is_one_thread(browser: Any, site: Path) -> None:
    said = asked(browser, site, [SAMPLES[0].read_bytes()], with_headers=False)
    assert said["loaded"]["threads"] == 1
    check(said["photos"][0], explained(site, [SAMPLES[0]])[0])


def test_webgpu_computes_the_same(driver: Any, site: Path) -> None:
    """Chromium's own imitation of a graphics processor, since test machines have none."""
    flags = (
        "--enable-unsafe-webgpu",
        "--enable-features=Vulkan",
        "--use-webgpu-adapter=swiftshader",
    )
    with started(driver, *flags) as program:
        said = asked(program, site, [SAMPLES[1].read_bytes()], processor="webgpu")
    if said["loaded"]["provider"] != "webgpu":
        pytest.skip(f"Chromium has no WebGPU here: {said['loaded']['refused']}")
    assert said["loaded"]["same"]
    check(said["photos"][0], explained(site, [SAMPLES[1]])[0])


def jpeg(picture: NDArray[np.uint8], orientation: int = 0) -> bytes:
    """A JPEG file, with an EXIF orientation where it is not 0."""
    data: bytes = cv2.imencode(".jpg", picture)[1].tobytes()
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes(
        [0, orientation, 0, 0, 0, 0, 0, 0]
    )
    exif = b"Exif\0\0" + tiff
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    return data[:2] + segment + data[2:] if orientation else data


def test_photos_of_every_kind(browser: Any, site: Path) -> None:
    """Turned by EXIF, grey, transparent, with a palette, as WebP: the same input bit for bit."""
    photo = cv2.resize(cv2.imread(str(SAMPLES[2])), (150, 100))
    grey = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    alpha = np.where(np.arange(150) < 70, 255, 0).astype(np.uint8)[None].repeat(100, 0)
    clear = np.dstack([photo, alpha])
    sources = [jpeg(photo, orientation) for orientation in range(9)]
    pictures = [(".png", grey), (".jpg", grey), (".png", clear), (".bmp", photo), (".webp", photo)]
    sources += [cv2.imencode(ending, picture)[1].tobytes() for ending, picture in pictures]
    said = asked(browser, site, sources)
    tall = [one["box"]["height"] > one["box"]["width"] for one in said["photos"][:9]]
    assert tall == [False] * 5 + [True] * 4
    spec = Explainer(site / "model.onnx", providers="cpu").preprocessing
    for one, source, expected in zip(
        said["photos"], sources, explained(site, sources), strict=True
    ):
        check(one, expected)
        tensor = preprocess(expected.photo, spec, 96, 96).tensor
        assert np.array_equal(numbers(one["input"]), tensor.ravel()), source[:8]


def test_a_photo_that_is_larger_than_a_band(browser: Any, site: Path) -> None:
    """More pixels than are read at once."""
    shape = (2600, 3100)
    small = np.random.default_rng(0).integers(0, 256, (26, 31, 3), dtype=np.uint8)
    data = jpeg(np.asarray(cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)))
    said = asked(browser, site, [data])
    check(said["photos"][0], explained(site, [data])[0])


FORMS: dict[str, dict[str, Any]] = {
    "none": {"inputs": "none"},
    "start": {"inputs": "target,start"},
    "many": {"many_targets": True},
    "signed": {"composite": "lrp-resnet", "post": "none"},
    "static": {"static": True},
    "bgr": {"preprocessing": parse_preprocessing("caffe:interpolation=area,crop_fraction=0.8")},
}


@pytest.mark.parametrize("form", [*FORMS, "batch"])
def test_other_forms_of_the_model(form: str, browser: Any, runtime: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if form == "batch":
        with_batch(3, path)
    else:
        compile_model(MODEL, optimize_for="web", **FORMS[form]).save(path)
    make_site(path, tmp_path / "site", options=Options(), runtime=runtime)
    photos = [path.read_bytes() for path in SAMPLES[:2]]
    said = asked(browser, tmp_path / "site", photos)
    assert said["loaded"]["same"]
    for one, expected in zip(
        said["photos"], explained(tmp_path / "site", photos, batch_size=1), strict=True
    ):
        check(one, expected)


@pytest.mark.parametrize("name", ["core.torchscript-uint8-nhwc", "core-fp16.dynamo"])
def test_inputs_of_other_types(name: str, browser: Any, runtime: Path, tmp_path: Path) -> None:
    (file,) = (one for one in manifest() if one.name == name)
    options = Options(preprocessing=parse_preprocessing("raw"))
    make_site(file.save(tmp_path), tmp_path / "site", options=options, runtime=runtime)
    photo = SAMPLES[0].read_bytes()
    said = asked(browser, tmp_path / "site", [photo])
    (expected,) = explained(tmp_path / "site", [photo])
    assert relative(np.array(said["photos"][0]["scores"]), expected.scores) < 1e-2
    assert said["loaded"]["same"]


def test_a_real_model_and_real_photos(
    browser: Any, runtime: Path, assets: Path, tmp_path: Path
) -> None:
    """A ResNet-50 of 20 classes, photos of Tiny ImageNet and larger ones of ImageNet."""
    model = assets / "models" / "tin20-resnet50.torchscript-op17-folded.onnx"
    folders = [assets / "images" / name for name in ("tin20", "imagenet")]
    options = Options(preprocessing=parse_preprocessing("imagenet"))
    make_site(model, tmp_path / "site", options=options, runtime=runtime)
    photos = [p.read_bytes() for folder in folders for p in sorted(folder.glob("*.JPEG"))[:4]]
    said = asked(browser, tmp_path / "site", photos)
    for one, expected in zip(said["photos"], explained(tmp_path / "site", photos), strict=True):
        check(one, expected)


@contextmanager
def opened(
    browser: Any, folder: Path, *, allowed: Sequence[str] = (), **options: Any
) -> Iterator[Any]:
    """The page, ready. What it says to the console, and what others answer it, is a fault, unless
    the text holds one of `allowed`.
    """
    faults: list[str] = []
    with served(folder) as address:
        page = browser.new_page(**options)
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        own = (address, "blob:", "data:", *allowed)
        page.on("response", lambda it: it.url.startswith(own) or faults.append(it.url))
        page.goto(address)
        page.wait_for_selector(READY)
        yield page
        page.close()
    assert [fault for fault in faults if not any(text in fault for text in allowed)] == []


def shown(page: Any, text: str) -> None:
    """Wait until the verdict begins so."""
    page.locator("#verdict", has_text=text).wait_for()


def test_a_sample_is_explained(browser: Any, site: Path) -> None:
    """By keyboard alone, then its second class; the status says it to screen readers."""
    with opened(browser, site) as page:
        assert page.locator("#status").inner_text().startswith("Ready, on WebAssembly")
        assert page.locator("#samples button").count() == 4
        page.locator("#samples button").nth(1).focus()
        page.keyboard.press("Enter")
        shown(page, "gear")
        (expected,) = explained(site, [SAMPLES[1]])
        names = [name for _, name, _ in expected.top5]
        values = [f"{100 * value:.1f} %" for _, _, value in expected.top5]
        assert page.locator("#classes .name").all_inner_texts() == names
        assert page.locator("#classes .value").all_inner_texts() == values
        assert page.locator("#status").inner_text() == f"gear: gear, {values[0]}."
        pressed = page.locator('#classes [aria-pressed="true"]')
        assert pressed.locator(".name").all_inner_texts() == ["gear"]
        page.locator("#classes button").nth(1).focus()
        page.keyboard.press("Enter")
        shown(page, f"what speaks for {names[1]}")
        assert pressed.locator(".name").all_inner_texts() == [names[1]]
        assert pressed.evaluate("(button) => button === document.activeElement")
        assert page.locator("#canvas").get_attribute("aria-label").endswith(f"for {names[1]}")
        page.locator("#class").fill("Heart")
        page.keyboard.press("Enter")
        shown(page, "what speaks for heart")
        page.locator("#class").fill("boat")
        page.keyboard.press("Enter")
        assert "no class “boat”" in page.locator("#fault").inner_text()


def canvas_of(page: Any) -> NDArray[np.uint8]:
    """The drawn picture, (H, W, 3) RGB."""
    text = page.locator("#canvas").evaluate("(canvas) => canvas.toDataURL()")
    data = np.frombuffer(base64.b64decode(text.split(",")[1]), np.uint8)
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


def test_the_picture_is_pythons(browser: Any, runtime: Path, tmp_path: Path) -> None:
    """The page's picture of a photo that is drawn as it is: what the model sees, what it does not,
    the colours and the outline, which is another program's line.
    """
    options = Options(preprocessing=parse_preprocessing("imagenet"))
    make_site(MODEL, tmp_path / "site", options=options, runtime=runtime)
    photo = cv2.resize(cv2.imread(str(SAMPLES[1])), (700, 640))
    (tmp_path / "photo.png").write_bytes(cv2.imencode(".png", photo)[1].tobytes())
    (expected,) = explained(tmp_path / "site", [tmp_path / "photo.png"])
    with opened(browser, tmp_path / "site") as page:
        page.locator("#file").set_input_files(tmp_path / "photo.png")
        shown(page, expected.top5[0][1])
        outlined = canvas_of(page)
        page.locator("#outline").uncheck()
        plain = canvas_of(page)
        page.locator("#opacity").fill("0")
        bare = canvas_of(page)
    drawn = Explanation(**{f.name: getattr(expected, f.name) for f in fields(expected)})
    assert np.abs(plain.astype(int) - drawn.overlay(outline=False)).max() <= 2
    ground = plain.astype(int) - bare
    assert np.abs(ground).max() > 50 and (ground[:, :20] == 0).all()
    lines = [(one.min(-1) > 240).astype(np.uint8) for one in (outlined, drawn.overlay())]
    assert all(2000 < line.sum() < 20_000 for line in lines)
    for one, other in (lines, lines[::-1]):
        assert not (one & ~cv2.dilate(other, np.ones((5, 5), np.uint8))).any()


def test_photos_that_are_dropped_and_pasted(browser: Any, site: Path) -> None:
    transfer = """([kind, text]) => {
      const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], "heart.png", {type: "image/png"}));
      const event = kind === "drop"
        ? new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true})
        : new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true});
      document.body.dispatchEvent(event);
    }"""
    with opened(browser, site) as page:
        for kind, path in (("drop", SAMPLES[2]), ("paste", SAMPLES[3])):
            page.evaluate(transfer, [kind, base64.b64encode(path.read_bytes()).decode()])
            shown(page, path.stem)


def test_the_camera(browser: Any, site: Path) -> None:
    with opened(browser, site) as page:
        page.locator("#camera").click()
        page.locator("#take").click()
        page.locator("#explained").wait_for()
        assert page.locator("#canvas").get_attribute("aria-label").startswith("the camera's")
        page.locator("#live").check()
        page.locator("#stop").click()
        assert page.locator("#filming").is_hidden()


def test_what_is_no_picture(browser: Any, site: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with opened(browser, site) as page:
        page.locator("#file").set_input_files(tmp_path / "notes.txt")
        page.locator("#fault").wait_for()
        said = page.locator("#fault").inner_text()
        assert said.startswith("notes.txt is no picture that this browser can read")
        page.locator("#samples button").first.click()
        shown(page, "arrow")
        assert page.locator("#fault").is_hidden()


def test_the_predicted_class_alone(browser: Any, runtime: Path, tmp_path: Path) -> None:
    compile_model(MODEL, optimize_for="web", inputs="none").save(tmp_path / "none.onnx")
    make_site(tmp_path / "none.onnx", tmp_path / "site", options=Options(), runtime=runtime)
    with opened(browser, tmp_path / "site") as page:
        page.locator("#file").set_input_files(SAMPLES[0])
        shown(page, "arrow")
        assert page.locator("#classes button").count() == 0
        assert page.locator("#other").is_hidden() and page.locator("#samples").is_hidden()


@pytest.fixture(scope="module")
def cdn_site(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cdn") / "site"
    make_site(MODEL, folder, options=Options(), samples=SAMPLES[0].parent)
    return folder


@pytest.mark.parametrize("sound", [True, False], ids=["sound", "changed"])
def test_the_cdn(sound: bool, browser: Any, cdn_site: Path, runtime: Path) -> None:
    """The CDN is played by the test. A file that is not the pinned one is refused."""
    asked_for = []

    def answer(route: Any) -> None:
        name = route.request.url.rpartition("/")[2]
        asked_for.append(route.request.url)
        data = (runtime / "node_modules" / "onnxruntime-web" / "dist" / name).read_bytes()
        shared = {
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
        route.fulfill(status=200, body=data if sound else data + b"\n", headers=shared)

    with browser.new_context() as context:
        context.route(f"{CDN}/**", answer)
        with opened(context, cdn_site, allowed=[CDN, "integrity"]) as page:
            if sound:
                page.locator("#samples button").first.click()
                shown(page, "arrow")
            else:
                assert "cannot be used" in page.locator("#fault").inner_text()
                assert page.locator("main").is_hidden()
    prefix = f"{CDN}/npm/onnxruntime-web@{VERSION}/dist/"
    assert asked_for and all(url.startswith(prefix) for url in asked_for)


def test_a_browser_that_computes_something_else(browser: Any, site: Path, tmp_path: Path) -> None:
    """As the check finds it: the facts are of another model."""
    changed = tmp_path / "site"
    shutil.copytree(site, changed)
    facts = json.loads((changed / "model.json").read_text(encoding="utf-8"))
    facts["check"]["scores"][4] *= 1.1
    (changed / "model.json").write_text(json.dumps(facts), encoding="utf-8")
    with opened(browser, changed) as page:
        for _ in range(2):
            assert "computes something else" in page.locator("#fault").inner_text()
            page.locator("#samples button").first.click()
            shown(page, "arrow")


def test_files_of_two_sites(browser: Any, site: Path, tmp_path: Path) -> None:
    changed = tmp_path / "site"
    shutil.copytree(site, changed)
    with (changed / "model.onnx").open("ab") as model:
        model.write(b"more")
    with opened(browser, changed) as page:
        assert "upload the whole site again" in page.locator("#fault").inner_text()
    (changed / "model.onnx").unlink()
    with opened(browser, changed, allowed=["404"]) as page:
        assert "model.onnx is not there (404)" in page.locator("#fault").inner_text()


def test_the_policy_holds(browser: Any, site: Path, tmp_path: Path) -> None:
    """Scripts and pictures that were smuggled in are not loaded."""
    changed = tmp_path / "site"
    shutil.copytree(site, changed)
    page_file = changed / "index.html"
    smuggled = "<script>document.title = 'in'</script><img src='https://example.org/x.png'>"
    text = page_file.read_text(encoding="utf-8").replace("<header>", f"<header>{smuggled}")
    page_file.write_text(text, encoding="utf-8")
    with opened(browser, changed, allowed=["Content Security Policy"]) as page:
        assert page.title() == f"Why {MODEL.name} decides so"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390, 320])
def test_axe_finds_nothing(width: int, scheme: str, browser: Any, site: Path) -> None:
    """axe-core: roles, names, labels, contrast; nothing is wider than the window."""
    size = {"width": width, "height": 900}
    context = browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=True)
    with opened(context, site) as page:
        page.locator("#samples button").nth(1).click()
        shown(page, "gear")
        page.wait_for_selector("body:not(.busy)")
        for summary in page.locator("summary").all():
            summary.click()
        page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
        found = page.evaluate("axe.run()")
        assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
        assert len(found["passes"]) > 25
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
