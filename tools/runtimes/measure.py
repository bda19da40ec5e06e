"""One cell of the matrix: one file on one runtime, beside ONNX Runtime without optimisations."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.relevance.composites.presets import DEFAULT
from tools.runtimes.errors import CannotRunError
from tools.runtimes.execute import correlation, execute, largest
from tools.runtimes.registry import OWN, Form, Runtime

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "models" / "shapes-resnet.onnx"
FULL_SIZE = "tin20-resnet50.torchscript-op17-folded.onnx"
"""In the folder of the tests' assets: a trained ResNet-50 of full size, 20 classes."""
MODELS = (EMBEDDED.stem, FULL_SIZE.split(".", maxsplit=1)[0])
"""What the two are called."""
COMPOSITES = (DEFAULT, "c3-lrp", "lrp-resnet")
MAPS = ("heatmap", "heatmap_raw")
"""The outputs that are compared: what the composite's post-processing makes, and the map itself."""
PLAIN = "ORT_DISABLE_ALL"
REFERENCE = Runtime(name="plain", title="", environment=OWN, runner="run_onnxruntime")
"""ONNX Runtime of this project's own environment."""
MARGIN = 2.0
"""Where rounding alone moves a map further than the tolerance: how often that is allowed."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one runtime made of one file."""

    runtime: str
    form: str
    """The options of `lrp-onnx compile`."""
    model: str
    composite: str
    batch: int
    version: str | None
    """None where it does not run."""
    fault: str | None
    """Why it does not load or run the file, in its own words."""
    outputs: float | None
    """Largest difference of the original outputs, relative to their maximum."""
    map: float | None
    """Largest difference of the maps (of a class that is asked for, and of the predicted one),
    relative to each map's maximum.
    """
    correlation: float | None
    """Lowest correlation of a map with the right one."""
    itself: float
    """What ONNX Runtime's own optimisations move the map of the same file."""
    bound: float
    """Up to which `map` is right: the runtime's tolerance, or where it is more, twice `itself`."""
    outputs_bound: float
    seconds: float

    @property
    def right(self) -> bool:
        """Whether it loads, and outputs and map are right."""
        return (
            self.outputs is not None
            and self.map is not None
            and self.outputs <= self.outputs_bound
            and self.map <= self.bound
        )

    @property
    def said(self) -> str:
        """The cell in one line."""
        found = (
            f"outputs {self.outputs:.1e}, map {self.map:.1e}, r {self.correlation:.3f}"
            if self.outputs is not None
            else self.fault
        )
        return (
            f"{'right' if self.right else 'WRONG'} {self.runtime} {self.version} {self.form} "
            f"{self.model} {self.composite}: {found} (itself {self.itself:.1e}; {self.seconds} s)"
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A compiled file, its inputs, and what is right."""

    path: Path
    runs: list[dict[str, NDArray[Any]]]
    logits: str
    """Name of the original output."""
    expected: list[dict[str, NDArray[Any]]]
    itself: float


def pictures(batch: int, size: int = 96) -> NDArray[np.float32]:
    """(batch, 3, size, size) float32: the embedded model's sample pictures, normalised."""
    names = ("star.png", "heart.png")
    rows = []
    for name in names[:batch]:
        picture = cv2.imread(str(ROOT / "models" / "samples" / name))
        assert picture is not None
        small = cv2.resize(picture[:, :, ::-1], (size, size), interpolation=cv2.INTER_LINEAR)
        scaled = (small / 255.0 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        rows.append(scaled.transpose(2, 0, 1))
    return np.stack(rows).astype(np.float32)


@cache
def case(original: Path, composite: str, form: Form, folder: Path) -> Case:
    """The file of `original` for a form and composite, with what ONNX Runtime gives without
    optimisations: of the class that comes second, and of the predicted one.
    """
    compiled = compile_model(
        original,
        Options(
            composite=composite,
            optimize_for=form.optimize_for,
            static=form.static,
            inputs="target",
            outputs=MAPS,
        ),
    )
    kind = f"{form.optimize_for}{'-static' if form.static else ''}"
    path = compiled.save(
        folder / f"{original.name.split('.')[0]}-{composite}-{kind}.onnx", force=True
    )
    logits = next(iter(compiled.contract.outputs))
    x = pictures(1 if form.static else 2)
    predicted = np.full(len(x), -1, np.int64)
    name = compiled.contract.input
    outputs = [logits, *MAPS]
    first = execute(
        REFERENCE, path, [{name: x, "target": predicted}], outputs=outputs, options={"level": PLAIN}
    )
    second = first.runs[0][logits].argsort(axis=1)[:, -2].astype(np.int64)
    runs: list[dict[str, NDArray[Any]]]
    runs = [{name: x, "target": second}, {name: x, "target": predicted}]
    plain = execute(REFERENCE, path, runs, outputs=outputs, options={"level": PLAIN})
    if largest(plain.runs[0][MAPS[0]], plain.runs[1][MAPS[0]]) < 0.1:
        raise AssertionError("the two classes have one map: this would not show an ignored target")
    moved = execute(REFERENCE, path, runs, outputs=outputs)
    itself = max(
        largest(run[name], right[name])
        for run, right in zip(moved.runs, plain.runs, strict=True)
        for name in MAPS
    )
    return Case(path, runs, logits, plain.runs, itself)


def measure(runtime: Runtime, form: Form, original: Path, composite: str, folder: Path) -> Cell:
    """One cell.

    Raises:
        UnavailableError: the runtime cannot be had here.
    """
    made = case(original, composite, form, folder)
    start = time.perf_counter()
    fault, version, outputs, maps, alike = None, None, None, None, None
    try:
        answer = execute(runtime, made.path, made.runs, outputs=[made.logits, *MAPS])
        version = answer.version
        pairs = list(zip(answer.runs, made.expected, strict=True))
        outputs = max(largest(a[made.logits], b[made.logits]) for a, b in pairs)
        maps = max(largest(a[name], b[name]) for a, b in pairs for name in MAPS)
        alike = min(correlation(a[name], b[name]) for a, b in pairs for name in MAPS)
    except CannotRunError as error:
        fault = str(error)
    return Cell(
        runtime=runtime.name,
        form=form.flags,
        model=original.name.split(".")[0],
        composite=composite,
        batch=len(made.runs[0]["target"]),
        version=version,
        fault=fault,
        outputs=outputs,
        map=maps,
        correlation=alike,
        itself=made.itself,
        bound=max(runtime.tolerance, MARGIN * made.itself),
        outputs_bound=runtime.outputs_tolerance,
        seconds=round(time.perf_counter() - start, 1),
    )
