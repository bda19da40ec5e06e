"""How long insertion and deletion take, ours against Quantus and against a loop over pictures.

    python -m tools.study.speed --network resnet18 --size 64 --photos 100 -o speed.json

One method (gradient x input) is judged on the same pictures with as many steps everywhere. Ours is
the whole `evaluate`, compiling and explaining included; the others are handed finished maps.
Quantus's PixelFlipping deletes the most relevant pixels; run again on the maps with their signs
turned, it deletes the least relevant, which is insertion into the same fill. Needs torch,
torchvision and quantus.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx import Request, evaluate
from lrp_onnx.evaluation.methods import find_method
from lrp_onnx.evaluation.metrics.curves import PROTOCOLS, masks
from lrp_onnx.evaluation.photos import load_photo
from lrp_onnx.evaluation.subject import Subject
from tools.benchmark.run import exported, torch_network

METHOD = "gradient-x-input"


def written(folder: Path, many: int, size: int) -> list[Path]:
    """Smooth random pictures."""
    rng = np.random.default_rng(0)
    for index in range(many):
        small = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        cv2.imwrite(
            str(folder / f"{index:04d}.png"),
            cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC),
        )
    return sorted(folder.glob("*.png"))


def loop(
    network: Any, x: NDArray[Any], targets: NDArray[Any], maps: NDArray[Any], steps: int
) -> None:
    """Every masked picture through torch on its own, as a script would have it."""
    import torch

    with torch.inference_mode():
        for picture, target, relevance in zip(x, targets, maps, strict=True):
            shown, left = masks(relevance, PROTOCOLS["srg"], steps=steps)
            for keep in (*shown, *left):
                one = torch.from_numpy((picture * keep).astype(np.float32))[None]
                torch.softmax(network(one), 1)[0, target].item()


def quantus(
    network: Any, x: NDArray[Any], targets: NDArray[Any], maps: NDArray[Any], steps: int, batch: int
) -> None:
    """Deletion, then insertion as deletion of the least relevant."""
    from quantus import PixelFlipping

    flip = PixelFlipping(
        features_in_step=maps[0].size // steps,
        abs=False,
        normalise=False,
        perturb_baseline=0.0,
        disable_warnings=True,
    )
    for relevance in (maps, -maps):
        flip(
            model=network,
            x_batch=x,
            y_batch=targets,
            a_batch=relevance[:, None],
            softmax=True,
            batch_size=batch,
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet18", help="of torchvision")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32, help="Quantus's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args(arguments)
    if given.size**2 % given.steps:
        parser.error(
            f"Quantus wants steps that divide {given.size**2} pixels; {given.steps} do not"
        )
    import torch

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = exported(given.network, given.size, folder, half=False)
        photos = written(folder, given.photos, given.size)
        subject = Subject(path, provider="cpu", threads=given.threads)
        x = np.concatenate([load_photo(photo, subject, None, None).tensor for photo in photos])
        targets = subject.probabilities(x).argmax(1)
        maps = find_method(METHOD, subject).maps(x, targets)
        network = torch_network(given.network)
        request = Request(
            model=path,
            photos=photos,
            methods=(METHOD,),
            metrics=("srg",),
            steps=given.steps,
            threads=given.threads,
        )
        runs: dict[str, Callable[[], object]] = {
            "lrp-onnx": lambda: evaluate(request),
            "Quantus": lambda: quantus(network, x, targets, maps, given.steps, given.batch),
            "loop": lambda: loop(network, x, targets, maps, given.steps),
        }
        del subject
        seconds = {}
        for key, run in runs.items():
            begun = time.perf_counter()
            run()
            seconds[key] = time.perf_counter() - begun
            print(
                f"{key}: {seconds[key]:.1f} s, {seconds[key] / seconds['lrp-onnx']:.2f}",
                file=sys.stderr,
                flush=True,
            )
    result = vars(given) | {"output": None, "method": METHOD, "seconds": seconds}
    if given.output:
        given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
