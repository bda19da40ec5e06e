"""Whether memory stays flat over ten thousand explanations, in every way to ask for them.

    python -m tools.benchmark.endurance --json models/benchmark/endurance.json
    python -m tools.benchmark.endurance --ways batches threads --count 2000

Every way runs in a process of its own, with the embedded model and small pictures: what is looked
at is the work around the model. Memory (resident, after collecting garbage), open files and threads
are read ten times. The exit status is 1 where memory is ever more than 5 % above its first reading,
after a tenth of the run, or where files or threads have become more.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx import Explainer, Options, compile_model
from lrp_onnx.cli.explain import ExplainCommand, explain_files
from lrp_onnx.errors import ImageError
from lrp_onnx.runtime.images import read_image
from lrp_onnx.runtime.memory import memory_now
from tools.benchmark.run import machine

MODELS = Path(__file__).parents[2] / "models"
MODEL = MODELS / "shapes-resnet.onnx"
READINGS = 10
MOST = 1.05
"""Memory at any reading, as a multiple of the first."""
SLACK = {"files": 0, "threads": 2}
"""So many more at the end than at the first reading: readers that come and go."""
THREADS = 8
"""That share an Explainer."""
SMALL, ANY = (64, 65), (24, 900)
"""Sides of pictures: the least, and what they stay below."""
PICTURES, SIZES = 64, 500
"""So many different pictures of one size, and of all sizes."""
SOME = 20
"""Every so many explanations are drawn, which takes longer than to explain."""

Way = Callable[[int, Path], Iterator[object]]
"""Gives something after each of so many explanations; it may write into the folder."""


def drawn(number: int, sides: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture of that number: a sample, moved and resized."""
    rng = np.random.default_rng(number)
    names = sorted((MODELS / "samples").glob("*.png"))
    height, width = (int(side) for side in rng.integers(*sides, 2))
    moved = np.roll(read_image(names[number % len(names)]), int(rng.integers(64)), 1)
    return np.asarray(cv2.resize(moved, (width, height)), np.uint8)


@cache
def picture(number: int) -> NDArray[np.uint8]:
    """The same, small and kept."""
    return drawn(number, SMALL)


@cache
def jpeg(number: int, sides: tuple[int, int] = SMALL) -> bytes:
    """The same as a file."""
    return bytes(cv2.imencode(".jpg", drawn(number, sides)[:, :, ::-1])[1].tobytes())


def _compiled(**choices: Any) -> bytes:
    return bytes(compile_model(MODEL, **choices).model.SerializeToString())


def _explainer(**choices: Any) -> Explainer:
    return Explainer(_compiled(**choices), provider="cpu", threads=1)


def one_by_one(count: int, folder: Path) -> Iterator[object]:
    """The bytes of a picture file after the other; some are drawn."""
    explainer = _explainer()
    for number in range(count):
        found = explainer(jpeg(number % PICTURES))
        yield found.overlay() if number % SOME == 0 else found


def batches(count: int, folder: Path) -> Iterator[object]:
    """Files, eight a run, read ahead."""
    paths = [folder / f"{number}.jpg" for number in range(16)]
    for number, path in enumerate(paths):
        path.write_bytes(jpeg(number))
    yield from _explainer().explain_images([paths[n % len(paths)] for n in range(count)])


def prepared(count: int, folder: Path) -> Iterator[object]:
    """Tensors that are the model's input, in batches of one to nine."""
    explainer, rng = _explainer(), np.random.default_rng(0)
    for number in range(0, count, 10):
        tensors = rng.normal(size=(10, 3, *explainer.input_size)).astype(np.float32)
        size = 1 + number // 10 % 9
        yield from explainer.explain_prepared(tensors, batch_size=size)


def classes(count: int, folder: Path) -> Iterator[object]:
    """Another class, start or number of classes at every turn, of arrays."""
    explainer = _explainer()
    for number in range(count):
        image = picture(number % PICTURES)
        yield explainer(image, top=2) if number % 3 == 0 else explainer(image, target=number % 4)


def sizes(count: int, folder: Path) -> Iterator[object]:
    """Pictures of all sizes, with C3's region; some are drawn in their own size and stored."""
    explainer = _explainer(outputs=("heatmap", "heatmap_raw", "c3"), post="c3")
    for number in range(count):
        found = explainer(jpeg(number % SIZES, ANY))
        if number % SOME == 0:
            found.save(folder / f"one{number % 3}.png", force=True)
        yield found.c3


def many_targets(count: int, folder: Path) -> Iterator[object]:
    """One to four classes of a picture in one run."""
    explainer = _explainer(many_targets=True)
    for number in range(count):
        yield explainer(picture(number % PICTURES), target=list(range(1 + number % 4)))


def threads(count: int, folder: Path) -> Iterator[object]:
    """Eight threads with one Explainer."""
    explainer = _explainer()
    with ThreadPoolExecutor(THREADS) as pool:
        for first in range(0, count, 100):
            yield from pool.map(lambda n: explainer(jpeg(n % PICTURES)), range(first, first + 100))


def faults(count: int, folder: Path) -> Iterator[object]:
    """Every second picture cannot be read."""
    explainer = _explainer()
    for number in range(count):
        data = jpeg(number % PICTURES)
        try:
            yield explainer(data if number % 2 else data[:100])
        except ImageError as fault:
            yield str(fault)


def command_line(count: int, folder: Path) -> Iterator[object]:
    """`lrp-onnx explain` of a folder, with figures, values and the page of all pictures."""
    model, photos = folder / "model.lrp.onnx", folder / "photos"
    model.write_bytes(_compiled())
    photos.mkdir()
    for number in range(count):
        (photos / f"{number:06}.jpg").write_bytes(jpeg(number % PICTURES))
    output = folder / "explained"
    command = ExplainCommand(
        model=model,
        images=[str(photos)],
        output=output,
        options=Options(),
        provider="cpu",
        threads=1,
        as_json=True,
    )
    yield from explain_files(command, report=lambda text: None)


def opening(count: int, folder: Path) -> Iterator[object]:
    """An Explainer for every picture."""
    compiled = _compiled()
    for number in range(count):
        yield Explainer(compiled, provider="cpu", threads=2)(picture(number % PICTURES))


def compiling(count: int, folder: Path) -> Iterator[object]:
    """The model compiled anew, under two composites."""
    for number in range(count):
        yield _compiled(composite=("residual-c3", "lrp-resnet")[number % 2])


WAYS: dict[str, tuple[Way, int]] = {
    "one by one": (one_by_one, 1),
    "batches": (batches, 1),
    "prepared": (prepared, 1),
    "classes": (classes, 1),
    "sizes": (sizes, 1),
    "many targets": (many_targets, 1),
    "threads": (threads, 1),
    "faults": (faults, 1),
    "command line": (command_line, 1),
    "opening": (opening, 50),
    "compiling": (compiling, 200),
}
"""Name → (function, by how much its count is less)."""


def reading(done: int) -> dict[str, float]:
    """Memory in megabytes, open files and threads, after so many explanations."""
    gc.collect()
    handles = Path("/proc/self/fd")
    return {
        "done": done,
        "megabytes": round(memory_now()[0] / 1e6, 1),
        "files": len(list(handles.iterdir())) if handles.exists() else 0,
        "threads": len(list(Path("/proc/self/task").iterdir())) if handles.exists() else 0,
    }


def readings(name: str, count: int) -> list[dict[str, float]]:
    """`READINGS` of one way, in this process."""
    way, less = WAYS[name]
    count = max(READINGS, count // less)
    marks = {round(count * part / READINGS) for part in range(1, READINGS + 1)}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for done, _ in enumerate(way(count, Path(folder)), 1):
            if done in marks:
                found.append(reading(done))
    return found


def judged(name: str, found: Sequence[dict[str, float]], seconds: float) -> dict[str, Any]:
    """A way's result."""
    first = found[0]
    growth = max(one["megabytes"] for one in found) / first["megabytes"] - 1
    more = any(found[-1][what] > first[what] + slack for what, slack in SLACK.items())
    return {
        "way": name,
        "explanations": int(found[-1]["done"]),
        "growth": round(growth, 4),
        "flat": growth <= MOST - 1 and not more,
        "seconds": round(seconds),
        "readings": list(found),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--count", type=int, default=10_000, help="explanations of a way")
    parser.add_argument("--json", type=Path, help="write the results here too")
    given = parser.parse_args(arguments)
    given.threads, given.device = 1, "cpu"
    rows = []
    for name in given.ways:
        began = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(partial(readings, name, given.count))
        row = judged(name, found, time.perf_counter() - began)
        rows.append(row)
        used = " ".join(f"{one['megabytes']:.0f}" for one in found)
        print(f"{name}: {row['explanations']} explanations, {row['growth']:+.1%}: MB {used}")
        print(f"  files and threads: {[(one['files'], one['threads']) for one in found]}")
        sys.stdout.flush()
        if given.json:
            result = {"command": "python -m tools.benchmark.endurance", **machine(given)}
            text = json.dumps({**result, "endurance": rows}, indent=1)
            given.json.write_text(text + "\n", encoding="utf-8")
    return int(not all(row["flat"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
