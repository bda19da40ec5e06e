"""Throughput of a bulk run on a Ray cluster of two nodes on this machine, and what it costs as the
pictures become more.

    python -m tools.benchmark.bulk -o FOLDER [--pictures 100 1000 10000] [--kill] [--minutes 15]

Makes pictures, explains them in one process, then on the cluster; with --kill one node is killed
in the middle of the largest run. Prints a line of JSON for every run. The embedded model and small
pictures: what is measured is the work around the model. Needs the extra ``ray``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.contract import C3_REGION, HEATMAP, HEATMAP_RAW
from lrp_onnx.deploy.parts import done_in, parts_of
from lrp_onnx.deploy.ray import Pool, explain_into
from lrp_onnx.deploy.rows import module
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.images import read_image

MODELS = Path(__file__).parents[2] / "models"
ACTOR = "ray::MapWorker"
"""How an actor of Ray Data names its process."""
ALONE = 400
"""Pictures that one process explains, for comparison."""


def make_pictures(folder: Path, count: int) -> list[str]:
    """So many photos: the samples, moved, resized to 96 to 160 pixels, and with noise."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = [read_image(path) for path in sorted((MODELS / "samples").glob("*.png"))]
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        paths.append(str(folder / f"{number:06}.jpg"))
        side = int(rng.integers(96, 160))
        picture = cv2.resize(np.roll(samples[number % len(samples)], side, 1), (side, side))
        noisy = picture.astype(np.int16) + rng.integers(-20, 20, picture.shape)
        if not Path(paths[-1]).exists():
            cv2.imwrite(paths[-1], noisy.clip(0, 255).astype(np.uint8)[:, :, ::-1])
    return paths


def alone(compiled: bytes, paths: list[str], threads: int) -> dict[str, Any]:
    """One process that explains in batches and keeps nothing."""
    explainer = Explainer(compiled, providers="cpu", threads=threads)
    began = time.perf_counter()
    found = sum(1 for _ in explainer.explain_images(paths))
    seconds = time.perf_counter() - began
    return {"run": "one process", "threads": threads, "pictures": found} | _pace(found, seconds)


def _pace(pictures: int, seconds: float) -> dict[str, float]:
    return {
        "seconds": round(seconds, 1),
        "a second": round(pictures / seconds, 1),
        "ms each": round(1000 * seconds / pictures, 2),
    }


class Memory:
    """The most resident memory of an actor's process, in MB, looked at every half second."""

    def __init__(self) -> None:
        self.most = 0.0
        self._ended = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    if (folder / "cmdline").read_text().startswith(ACTOR):
                        status = (folder / "status").read_text()
                        held = int(status.split("VmRSS:")[1].split()[0]) / 1024
                        self.most = max(self.most, held)
                except (OSError, IndexError):
                    continue

    def end(self) -> float:
        """Stop looking."""
        self._ended.set()
        return round(self.most)


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes with a CPU each; yields what kills the second."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray, utilities = module("ray"), module("ray.cluster_utils")
    module("ray.data")
    node = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = utilities.Cluster(initialize_head=True, head_node_args=node)
    try:
        second = cluster.add_node(**node)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.FATAL)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield lambda: cluster.remove_node(second, allow_graceful=False)
    finally:
        ray.shutdown()
        cluster.shutdown()


def on_cluster(
    compiled: bytes, paths: list[str], folder: Path, *, kill: Any = None, limit: float
) -> dict[str, Any]:
    """A run on two nodes, of which one is killed in the middle where `kill` is given."""
    folder.mkdir()
    memory, began = Memory(), time.perf_counter()
    first = killed = None
    for count, _ in enumerate(explain_into(folder, paths, compiled, pool=Pool(actors=2)), 1):
        now = time.perf_counter() - began
        first = first or now
        if kill is not None and killed is None and count >= len(paths) // 2:
            kill()
            killed = round(now, 1)
        if now > limit:
            break
    seconds = time.perf_counter() - began
    rows = Counter(row.path for row in done_in(folder))
    return {
        "run": "two nodes",
        "pictures": len(paths),
        **_pace(len(paths), seconds),
        "first row after": round(first or 0, 1),
        "killed after": killed,
        "lost": len(set(paths) - rows.keys()),
        "doubled": sum(number - 1 for number in rows.values()),
        "parts": len(parts_of(folder)),
        "MB written": round(sum(part.stat().st_size for part in parts_of(folder)) / 1e6, 1),
        "MB an actor": memory.end(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pictures", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--minutes", type=float, default=15)
    arguments = parser.parse_args()
    model = MODELS / "shapes-resnet.onnx"
    options = Options(outputs=(HEATMAP, C3_REGION, HEATMAP_RAW))
    compiled = compile_model(model, options).model.SerializeToString()
    most = max(arguments.pictures)
    paths = make_pictures(arguments.output / "pictures", most)
    for threads in (1, 2):
        print(json.dumps(alone(compiled, paths[:ALONE], threads)), flush=True)
    with two_nodes() as kill:
        for count in sorted(arguments.pictures):
            folder = arguments.output / f"rows-{count}-{time.time_ns()}"
            last = arguments.kill and count == most
            run = on_cluster(
                compiled,
                paths[:count],
                folder,
                kill=kill if last else None,
                limit=60 * arguments.minutes,
            )
            print(json.dumps(run), flush=True)


if __name__ == "__main__":
    main()
