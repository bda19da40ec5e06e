"""Which explanation is right: every method on real models and photos, judged, and written to models/EVALUATION.md.

    python tools/study.py ASSETS -o study            # the whole study; it goes on where it was stopped
    python tools/study.py ASSETS -o study --photos 20

ASSETS is a folder of models and photos as the tests use it (`LRP_ONNX_TEST_ASSETS`). The embedded model is judged on
pictures made for it, whose objects' masks are exact.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lrp_onnx.evaluating import Request, evaluate
from lrp_onnx.evaluation.intervals import difference_of
from lrp_onnx.evaluation_report import draw_curves, markdown, mean_curves
from lrp_onnx.maps.render import write_png
from lrp_onnx.photos import find_masks, read_boxes
from lrp_onnx.runtime.images import find_images, read_labels
from lrp_onnx.runtime.preprocess import parse_preprocessing

ROOT = Path(__file__).parents[1]
RANK = "c3:outside=rank"
METHODS = (
    "constant",
    "random",
    "gaussian",
    "edges",
    "gradient",
    "gradient-x-input",
    "guided-backprop",
    "integrated-gradients(steps=8)",
    "smooth-grad(samples=8)",
    "grad-cam",
    "cam",
    "rise(masks=200)",
    "occlusion(stride=0.1)",
    "lrp-z",
    "lrp-epsilon",
    "epsilon-plus",
    "epsilon-plus-flat",
    "epsilon-gamma-box",
    "epsilon-alpha2-beta1-flat",
    "excitation-backprop",
    "c3-lrp",
    "c3-lrp+c3",
    f"c3-lrp+{RANK}",
    "c3-lrp-zplus",
    "lrp-resnet",
    "lrp-resnet+quantize",
    "lrp-resnet+c1c",
    "lrp-resnet+c3",
    f"lrp-resnet+{RANK}",
    "lrp-resnet+average",
    "epsilon-plus-flat+average",
    "lrp-resnet-reference",
)
METRICS = ("exact", "keio", "srg", "pointing", "mass", "rank", "sparseness")
RIVALS = ("grad-cam", "rise(masks=200)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model with its photos."""

    name: str
    title: str
    model: Path
    photos: Sequence[Path]
    labels: Mapping[str, int]
    masks: Mapping[str, Any]
    preprocess: str | None
    leave: Sequence[str] = ()
    """Methods that do not fit the model."""
    resolutions: Sequence[int] = ()
    """Heights of feature maps that relevance may stop at."""


NAMES = ("tin20", "tin10", "cifar10", "shapes")


def cases(assets: Path, folder: Path, photos: int | None, wanted: Sequence[str]) -> list[Case]:
    """The study's models whose names are wanted; `photos` of each, spread over the classes, or all."""
    found = []
    for name, title, model, pictures, preprocess in (
        ("tin20", "ResNet-50, 20 Tiny-ImageNet classes", "tin20-resnet50.torchscript-op17-folded", "tin20", "imagenet"),
        ("tin10", "ResNet-18, 10 Tiny-ImageNet classes", "tin10-resnet18w16.torchscript-op13-bn", "tin10", "imagenet"),
        ("cifar10", "ResNet-56, CIFAR-10", "cifar10-resnet56.torchscript-op13-folded", "cifar10-jpeg", "imagenet"),
    ):
        if name not in wanted:
            continue
        paths = thinned(
            find_images([str(assets / "images" / pictures)]), photos or (300 if name == "cifar10" else None)
        )
        table = assets / "images" / pictures / "labels.csv"
        found.append(
            Case(
                name=name,
                title=title,
                model=assets / "models" / f"{model}.onnx",
                photos=paths,
                labels=read_labels(table),
                masks=read_boxes(table),
                preprocess=preprocess,
                leave=("lrp-resnet-reference", "c3-lrp-zplus") if name == "cifar10" else (),
                resolutions=(24, 12, 6) if name.startswith("tin") else (),
            )
        )
    if "shapes" not in wanted:
        return found
    paths, labels = shapes(folder / "shapes", photos or 200)
    found.append(
        Case(
            name="shapes",
            title="the embedded model, generated pictures with exact masks",
            model=ROOT / "models" / "shapes-resnet.onnx",
            photos=paths,
            labels=labels,
            masks=find_masks(folder / "shapes" / "masks", paths),
            preprocess=None,
        )
    )
    return found


def choices_of(case: Case) -> dict[str, Any]:
    """How its model is compiled."""
    return {"preprocessing": parse_preprocessing(case.preprocess)} if case.preprocess else {}


def thinned(paths: Sequence[Path], most: int | None) -> list[Path]:
    """At most so many, evenly spread."""
    if most is None or len(paths) <= most:
        return list(paths)
    return [paths[index * len(paths) // most] for index in range(most)]


def shapes(folder: Path, many: int) -> tuple[list[Path], dict[str, int]]:
    """Generated pictures with their masks, written once: (files, file name → class)."""
    sys.path.insert(0, str(Path(__file__).parent))
    from pictures import KINDS, make_picture

    (folder / "masks").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2024)
    paths, labels = [], {}
    for index in range(many):
        kind = index % len(KINDS)
        picture, mask = make_picture(KINDS[kind], rng)
        path = folder / f"{index:04d}.png"
        cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(folder / "masks" / path.name), mask.astype(np.uint8) * 255)
        paths.append(path)
        labels[path.name] = kind
    return paths, labels


def run(case: Case, folder: Path, threads: int, steps: int) -> list[dict[str, Any]]:
    """Every method's rows."""
    begun = time.monotonic()

    def report(done: int, total: int) -> None:
        print(f"{case.name}: {done} of {total}, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)

    request = Request(
        model=case.model,
        photos=case.photos,
        methods=[name for name in METHODS if name not in case.leave],
        metrics=METRICS,
        labels=case.labels,
        masks=case.masks,
        steps=steps,
        results=folder / f"{case.name}.jsonl",
        threads=threads,
        choices=choices_of(case),
    )
    return evaluate(request, report=report)


def findings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the numbers say, as sentences made from them."""
    by = {
        name: {r["image"]: r for r in rows if r["method"] == name} for name in dict.fromkeys(r["method"] for r in rows)
    }
    lines = []
    for metric, part in (("exact", "id"), ("srg", "id"), ("rank", None)):
        if not all(metric in row for row in rows):
            continue
        scores = {
            name: {image: row[metric] if part is None else row[metric][part] for image, row in mine.items()}
            for name, mine in by.items()
        }
        means = {name: sum(mine.values()) / len(mine) for name, mine in scores.items()}
        best = max((name for name in means if name not in RIVALS), key=means.__getitem__)
        for rival in RIVALS:
            common = [image for image in scores[best] if image in scores[rival]]
            gap = difference_of([scores[best][i] for i in common], [scores[rival][i] for i in common])
            verdict = "better than" if gap.low > 0 else "worse than" if gap.high < 0 else "not told apart from"
            lines.append(f"- {metric}: the best is `{best}` ({means[best]:.3f}), {verdict} `{rival}` by {gap}.")
    constant = sum(r["keio"]["id"] for r in by["constant"].values()) / len(by["constant"])
    above = [name for name, mine in by.items() if sum(r["keio"]["id"] for r in mine.values()) / len(mine) > constant]
    lines.append(
        f"- keio: the constant map scores {constant:.3f}; {len(above)} of {len(by) - 1} others score more"
        + (f": {', '.join(f'`{name}`' for name in above)}." if above else ".")
    )
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--photos", type=int, help="so many of each model's, instead of all")
    parser.add_argument("--case", nargs="+", default=NAMES, choices=NAMES, help="only these")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    parts = []
    for case in cases(given.assets, given.output, given.photos, given.case):
        rows = run(case, given.output, given.threads, given.steps)
        parts.append(f"## {case.title}: {len(case.photos)} photos\n\n{markdown(rows)}\n\n" + "\n".join(findings(rows)))
        for protocol in ("exact", "keio"):
            curves = mean_curves(rows, protocol)
            some = {name: curves[name] for name in curves if name in ("constant", "gaussian", "grad-cam", "lrp-resnet")}
            write_png(given.output / f"{case.name}-{protocol}.png", draw_curves(some, protocol), force=True)
    (given.output / "EVALUATION.md").write_text("# Evaluation\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")
    print(json.dumps({"written": str(given.output / "EVALUATION.md")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
