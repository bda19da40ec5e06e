"""A static folder with a page that explains photos in the browser, with a compiled file.

write_site(compiled, Path("site"), name="model.onnx", look=…)

The page is plain JavaScript in `web`; what it has to know of the file stands in ``model.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx import __version__
from lrp_onnx.contract import (
    C3_REGION,
    HEATMAP,
    HEATMAP_RAW,
    PREDICTED,
    START,
    TARGET,
    Contract,
    Preprocessing,
)
from lrp_onnx.deploy.web_runtime import FOLDER, WebRuntime
from lrp_onnx.errors import ContractError, ImageError, shown
from lrp_onnx.files.pictures import picture_fault, picture_format
from lrp_onnx.files.writing import check_folder, check_writable, make_folder, write_bytes
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.explanation import kind_of, scores_of
from lrp_onnx.runtime.preprocess import input_size, preprocess, written
from lrp_onnx.runtime.session import element_type
from lrp_onnx.selection import Selection

MODEL, FACTS, PAGE, HEADERS = "model.onnx", "model.json", "index.html", "_headers"
ASSETS = ("style.css", "page.mjs", "worker.mjs", "answer.mjs", "drawing.mjs", "pixels.mjs")
SAMPLES = "samples"
"""Folder of the sample pictures in the site's folder."""
SHOWN: Mapping[str, str] = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WebP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "AVIF": ".avif",
}
"""Formats that browsers read → their files' ending."""
TYPES = ("float32", "float64", "float16", "uint8", "int8")
"""Element types of inputs that the page can make."""
BLOCKS = 8
"""Rows and columns of the means by which the page compares its map of the check with Python's."""


@dataclass(frozen=True, slots=True)
class Site:
    """A folder that was written."""

    folder: Path
    sizes: Mapping[str, int]
    """Name of every file, relative to the folder → its bytes."""

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(self.sizes.values())


def write_site(
    model: bytes,
    folder: Path,
    *,
    name: str,
    look: Mapping[str, Any],
    samples: Sequence[Path] = (),
    runtime: WebRuntime | None = None,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] = (),
    force: bool = False,
) -> Site:
    """Write the page, the compiled file and all that they need.

    Args:
        model: a compiled file, serialized.
        folder: it is made if it is missing.
        name: the model's name on the page.
        look: the colours of maps, as JSON-ready data (see `page.mjs`).
        samples: pictures that the page offers.
        runtime: where the page finds onnxruntime-web; None for the CDN.
        preprocessing: how pictures become input; None for what the file says.
        labels: class names; empty for those in the file.
        force: whether existing files are overwritten.

    Raises:
        ContractError: a browser cannot use the file.
        ImageError: its input has no fixed size, or a sample is no picture that browsers read.
        OutputExistsError: a file exists and `force` is not set.
        OutputError: the folder or a file cannot be written.
    """
    runtime = runtime or WebRuntime()
    explainer = Explainer(model, providers="cpu", preprocessing=preprocessing, labels=labels)
    pictures = _samples(samples)
    facts = site_facts(explainer) | {
        "model": shown(name),
        "bytes": len(model),
        "look": dict(look),
        "samples": [
            {"name": shown(path.stem), "file": file}
            for path, file in zip(samples, pictures, strict=True)
        ],
        "runtime": runtime.facts(),
    }
    contents = {
        MODEL: model,
        FACTS: json.dumps(facts, separators=(",", ":")).encode(),
        HEADERS: headers(runtime).encode(),
        **{name: _asset(name) for name in ASSETS},
        **{f"{FOLDER}/{name}": data for name, data in runtime.copied.items()},
        **pictures,
        # The page comes last: whoever finds it finds the rest.
        PAGE: Template(_asset(PAGE).decode()).substitute(policy=policy(runtime)).encode(),
    }
    check_site(folder, contents, force=force)
    for file, data in contents.items():
        make_folder((folder / file).parent)
        write_bytes(folder / file, data, force=force)
    return Site(folder, {file: len(data) for file, data in contents.items()})


def check_site(folder: Path, names: Sequence[str] | Mapping[str, Any], *, force: bool) -> None:
    """Check that files of these names can be written into a folder.

    Raises:
        OutputExistsError: one exists and `force` is not set.
        OutputError: the folder is none.
    """
    check_folder(folder)
    for name in names:
        path = folder / name
        if path.exists() or path.is_symlink():
            check_writable(path, force=force)


def policy(runtime: WebRuntime) -> str:
    """The page's Content-Security-Policy: it loads its own files, and its runtime.

    The runtime's scripts are loaded as data, compared with their hashes, and only then become
    scripts (``blob:``).
    """
    own = f"'self' {runtime.origin}".strip()
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self' blob: 'wasm-unsafe-eval'",
            "worker-src 'self' blob:",
            f"connect-src {own} blob:",
            "img-src 'self' blob: data:",
            "media-src 'self' blob:",
            "style-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def headers(runtime: WebRuntime) -> str:
    """The file ``_headers``, which Netlify, Cloudflare Pages and others read: with the first two
    of these headers a browser gives the page threads.
    """
    lines = {
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Content-Security-Policy": policy(runtime),
        "Permissions-Policy": "camera=(self)",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return "/*\n" + "".join(f"  {name}: {value}\n" for name, value in lines.items())


def site_facts(explainer: Explainer) -> dict[str, Any]:
    """What the page has to know of a compiled file, as JSON-ready data.

    Raises:
        ContractError: a browser cannot use the file.
        ImageError: the input's height and width are not fixed.
    """
    contract, spec = explainer.contract, explainer.preprocessing
    if not contract.takes_pictures:
        raise ContractError(
            f"the model's input is a signal or a volume ({contract.layout}), and the page takes "
            "pictures"
        )
    if contract.inputs == "optional":
        raise ContractError(
            "this compiled file has optional inputs, which browsers do not see: give the model "
            "that it was compiled from, or compile it with --optimize-for web"
        )
    kind, shape = explainer.session.input_of(contract.input)
    height, width = input_size(shape, spec)
    element = str(element_type(kind))
    if element not in TYPES:
        raise ContractError(
            f"the model's input '{contract.input}' is {element}; the page can make "
            f"{', '.join(TYPES)}"
        )
    batch = shape[0] if isinstance(shape[0], int) else 1
    output_kind, output = kind_of(contract.outputs)
    return {
        "generator": f"lrp-onnx {__version__}",
        "file": MODEL,
        "input": {
            "name": contract.input,
            "type": element,
            "batch": batch,
            "dims": shape[1:],
            "height": height,
            "width": width,
        },
        "target": None if contract.inputs == "none" else TARGET,
        "start": START if contract.inputs == "target,start" else None,
        "many_targets": contract.many_targets,
        "heatmap": _heatmap(explainer),
        "region": C3_REGION if C3_REGION in explainer.session.outputs else None,
        "scores": {
            "name": output,
            "kind": output_kind,
            "selection": _selection(contract),
        },
        "classes": contract.classes,
        "start_shape": list(contract.start_shape),
        "labels": list(map(shown, explainer.labels)),
        "preprocessing": asdict(spec),
        "prepared": written(spec),
        "composite": contract.composite,
        "post": contract.post,
        "check": _check(explainer, batch, height, width),
    }


def _heatmap(explainer: Explainer) -> str:
    """The output that holds the map to show."""
    outputs, contract = set(explainer.session.outputs), explainer.contract
    if HEATMAP in outputs:
        return HEATMAP
    if HEATMAP_RAW in outputs and contract.post == "none" and contract.resolution is None:
        return HEATMAP_RAW
    raise ContractError(
        "this compiled file does not give the output heatmap, which the page shows: compile the "
        "model with --outputs heatmap,c3"
    )


def _selection(contract: Contract) -> dict[str, Any] | None:
    selection = Selection.read(contract.selection)
    return None if selection is None else asdict(selection)


def check_picture(height: int, width: int) -> NDArray[np.uint8]:
    """The picture (H, W, 3) uint8 RGB that the page draws too, to compare what it computes."""
    y, x, c = np.ogrid[:height, :width, :3]
    return np.asarray((x * (7 + 2 * c) + y * (13 - 3 * c) + (x * y >> 3)) % 256, np.uint8)


def _check(explainer: Explainer, batch: int, height: int, width: int) -> dict[str, Any]:
    """Scores of the picture of the check, the class that is explained, so that none of two that are
    nearly equal is chosen there, and the means of its map over blocks.
    """
    prepared = preprocess(check_picture(height, width), explainer.preprocessing, height, width)
    tensors = np.zeros((batch, *prepared.tensor.shape), np.float32)
    tensors[0] = prepared.tensor
    outputs = explainer.explain(tensors, target=PREDICTED)
    kind, name = kind_of(explainer.contract.outputs)
    scores = scores_of(kind, outputs[name][:1], explainer.contract.selection)[0]
    target = PREDICTED if explainer.contract.inputs == "none" else int(scores.argmax())
    heatmap = outputs[_heatmap(explainer)][0].astype(np.float64)
    rows, columns = (np.arange(size) * BLOCKS // size for size in heatmap.shape)
    place = rows[:, None] * BLOCKS + columns
    sums = np.bincount(place.ravel(), heatmap.ravel(), BLOCKS**2)
    counts = np.bincount(place.ravel(), minlength=BLOCKS**2)
    found = {"scores": scores.astype(np.float64), "heatmap": sums / np.maximum(counts, 1)}
    if not all(np.isfinite(values).all() for values in found.values()):
        raise ContractError(
            "the model's values are not finite for a drawn picture: check --preprocess, and "
            "whether its weights overflow in their type"
        )
    return {"target": target} | {name: values.tolist() for name, values in found.items()}


def _samples(paths: Sequence[Path]) -> dict[str, bytes]:
    """Name in the site → bytes of every sample picture, as it is."""
    found = {}
    for number, path in enumerate(paths, 1):
        data = path.read_bytes()
        kind, fault = picture_format(data), picture_fault(data)
        if kind not in SHOWN and not fault:
            fault = f"it is a {kind} file, which browsers do not show: convert it to JPEG or PNG"
        if fault:
            raise ImageError(f"the sample {shown(path)} cannot be used: {fault}")
        found[f"{SAMPLES}/{number}{SHOWN[kind]}"] = data
    return found


def _asset(name: str) -> bytes:
    return (files(__package__) / "web" / name).read_bytes()
