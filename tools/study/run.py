"""Which explanation is right: every method on real models and photos, judged.

    python -m tools.study.run ASSETS -o study            # all of it; it goes on where it was
    stopped python -m tools.study.run ASSETS -o study --case tin20 --photos 20

ASSETS is a folder of models and photos as the tests use it (`LRP_ONNX_TEST_ASSETS`). The case
`shapes` needs none of it: the embedded model is judged on pictures made for it, whose objects'
masks are exact. Every case leaves CASE.json, curves, and pictures where they may be shown, in the
folder; `report.py` makes the page of them.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lrp_onnx import Options, Request, evaluate
from lrp_onnx.cli.compare import compare_file
from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.metrics.curves import PROTOCOLS
from lrp_onnx.evaluation.metrics.intervals import Mean, difference_of
from lrp_onnx.evaluation.photos import find_masks, read_boxes
from lrp_onnx.evaluation.summary import heading, mean_curves, summary
from lrp_onnx.report.curves import draw_curves
from lrp_onnx.report.render import write_png
from lrp_onnx.runtime.images import find_images, read_labels, thinned
from lrp_onnx.runtime.preprocess import parse_preprocessing
from tools.study.pictures import KINDS, Mask, Picture, make_picture

ROOT = Path(__file__).parents[2]
BEST = "epsilon-gamma-plus"
SMOOTH = "smooth"
RANK = "c3:outside=rank"
KNOWING_NOTHING = ("constant", "random", "gaussian", "edges")
MAIN = (
    *KNOWING_NOTHING,
    "gradient-x-input",
    "guided-backprop",
    "integrated-gradients(steps=8)",
    "grad-cam",
    "cam",
    "recipro-cam",
    "rise(masks=150)",
    "epsilon-plus-flat",
    "epsilon-gamma-box",
    "c3-lrp",
    "c3-lrp+c3",
    f"c3-lrp+{RANK}",
    "lrp-resnet",
    "lrp-resnet+c3",
    f"lrp-resnet+{RANK}",
    f"lrp-resnet+{SMOOTH}",
    BEST,
    f"{BEST}+{SMOOTH}",
)
"""What the large model is judged with."""
FURTHER = (
    "gradient",
    "smooth-grad(samples=8)",
    "score-cam",
    "occlusion(stride=0.15)",
    "lrp-z",
    "lrp-epsilon",
    "excitation-backprop",
    "epsilon-plus",
    "epsilon-alpha2-beta1-flat",
    "preset-a-flat",
    "lrp-resnet-reference",
    "c3-lrp-zplus",
    "c3-lrp+c1c",
    "lrp-resnet+quantize",
    "lrp-resnet+c1c",
    f"epsilon-plus-flat+{SMOOTH}",
    f"{BEST}(start=logit)+{SMOOTH}",
    f"{BEST}(@join=ratio)+{SMOOTH}",
    f"{BEST}(@join=signed)+{SMOOTH}",
    f"{BEST}+{RANK}",
    f"{BEST}+{RANK},expansion=bilinear",
    f"{BEST}+{RANK},size=14,expansion=bilinear",
)
"""What the small models, whose pictures cost little, are judged with too."""
RIVALS = ("grad-cam", "cam", "recipro-cam", "rise(masks=150)")
METRICS = ("exact", "keio", "srg", "pointing", "mass", "rank", "sparseness")
DECIDING = ("exact ID", "srg ID", "rank")
"""What the best composite has to be better in, by the columns' names."""
SANITY = (
    "class-sensitivity",
    "random-logit",
    "max-sensitivity",
    "adcc",
    "randomisation",
    "attention",
)
SANE = (
    *KNOWING_NOTHING,
    "gradient-x-input",
    "guided-backprop",
    "grad-cam",
    "epsilon-plus-flat",
    "excitation-backprop",
    "c3-lrp",
    "c3-lrp+c3",
    "lrp-resnet",
    f"lrp-resnet+{RANK}",
    BEST,
    f"{BEST}+{SMOOTH}",
)
DRAWN = (
    "constant",
    "gaussian",
    "grad-cam",
    "lrp-resnet",
    "lrp-resnet+c3",
    "c3-lrp+c3",
    f"{BEST}+{SMOOTH}",
)
"""Methods in the figures."""
PICTURED = (
    "grad-cam",
    "epsilon-plus-flat",
    "lrp-resnet",
    "c3-lrp",
    "c3-lrp+c3",
    BEST,
    f"{BEST}+{SMOOTH}",
)


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
    held_out: frozenset[str] = frozenset()
    """Names of photos that no search saw."""
    methods: Sequence[str] = MAIN
    metrics: Sequence[str] = METRICS
    steps: int = 8
    classes: tuple[str, ...] = ()
    """Names, in the order of the logits."""
    resolutions: Sequence[int] = ()
    """Heights of feature maps that relevance may stop at."""
    may_be_shown: bool = False
    """Whether its pictures may be given to others. Photos that belong to somebody else may not:
    only numbers and curves of such a case ever reach the page.
    """


def real(
    name: str, title: str, model: str, pictures: str, **choices: Any
) -> Callable[[Path, Path], Case]:
    """A case of the models and photos in ASSETS."""

    def made(assets: Path, folder: Path) -> Case:
        table = assets / "images" / pictures / "labels.csv"
        photos = find_images([str(assets / "images" / pictures)])
        return Case(
            name=name,
            title=title,
            model=assets / "models" / f"{model}.onnx",
            photos=photos,
            held_out=frozenset(photo.name for photo in halves(photos)[1]) - searched(assets),
            labels=read_labels(table),
            masks=read_boxes(table),
            preprocess="imagenet",
            classes=names_in(table),
            **choices,
        )

    return made


def halves(photos: Sequence[Path]) -> tuple[Sequence[Path], Sequence[Path]]:
    """What a search may see, and what it leaves."""
    return photos[::2], photos[1::2]


def searched(assets: Path) -> frozenset[str]:
    """Names of photos that the search of any model may have
    seen: both have photos of one collection.
    """
    folders = [find_images([str(assets / "images" / pictures)]) for _, pictures in (_TIN20, _TIN10)]
    return frozenset(photo.name for photos in folders for photo in halves(photos)[0])


def names_in(table: Path) -> tuple[str, ...]:
    """Class names by class index, from the columns ``label`` and ``name``."""
    with table.open(newline="", encoding="utf-8") as file:
        found = {int(row["label"]): row.get("name", "") for row in csv.DictReader(file)}
    complete = sorted(found) == list(range(len(found))) and all(found.values())
    return tuple(found[index] for index in sorted(found)) if complete else ()


def embedded(assets: Path, folder: Path) -> Case:
    paths, labels = shapes(folder / "shapes", 100)
    return Case(
        name="shapes",
        title="the embedded model, generated pictures with exact masks",
        model=ROOT / "models" / "shapes-resnet.onnx",
        photos=paths,
        labels=labels,
        masks=find_masks(folder / "shapes" / "masks", paths),
        preprocess=None,
        methods=(*MAIN, *FURTHER),
        may_be_shown=True,  # they are drawn by tools/study/pictures.py
    )


_TIN20 = ("tin20-resnet50.torchscript-op17-folded", "tin20")
_TIN10 = ("tin10-resnet18w16.torchscript-op13-bn", "tin10")
_NO_MAX_POOL = ("lrp-resnet-reference", "c3-lrp-zplus")
CASES: Mapping[str, Callable[[Path, Path], Case]] = {
    "tin20": real("tin20", "ResNet-50, 20 Tiny-ImageNet classes", *_TIN20, resolutions=(24, 12, 6)),
    "tin10": real(
        "tin10",
        "ResNet-18 of width 16, 10 Tiny-ImageNet classes",
        *_TIN10,
        methods=(*MAIN, *FURTHER),
        resolutions=(24, 12, 6),
    ),
    "cifar10": real(
        "cifar10",
        "ResNet-56, CIFAR-10",
        "cifar10-resnet56.torchscript-op13-folded",
        "cifar10-jpeg",
        methods=[name for name in (*MAIN, *FURTHER) if not name.startswith(_NO_MAX_POOL)],
    ),
    "shapes": embedded,
    "sanity": real(
        "sanity", "sanity, ResNet-18 of width 16", *_TIN10, methods=SANE, metrics=SANITY
    ),
    "rise": real(
        "rise",
        "RISE with more masks, ResNet-50",
        *_TIN20,
        methods=("grad-cam", "rise(masks=150)", "rise(masks=1000)", BEST, f"{BEST}+{SMOOTH}"),
        metrics=("exact", "srg", "rank"),
    ),
}
MOST = {"tin10": 160, "cifar10": 100, "sanity": 60, "rise": 24}
"""Photos of a case at most, where there are more than are needed."""
UNSEEN = ("sanity", "rise")
"""Cases of photos that no search saw."""


def cases(assets: Path, folder: Path, photos: int | None, wanted: Sequence[str]) -> list[Case]:
    """The wanted cases; `photos` of each, evenly spread, or
    all. Of those in `UNSEEN` only such photos.
    """
    found = []
    for name in wanted:
        case = CASES[name](assets, folder)
        left = (
            [photo for photo in case.photos if photo.name in case.held_out]
            if name in UNSEEN
            else case.photos
        )
        found.append(replace(case, photos=thinned(left or case.photos, photos or MOST.get(name))))
    return found


def choices_of(case: Case) -> dict[str, Any]:
    """How its model is compiled."""
    return {"preprocessing": parse_preprocessing(case.preprocess)} if case.preprocess else {}


def shapes(folder: Path, many: int) -> tuple[list[Path], dict[str, int]]:
    """Generated pictures with their masks, written once: (files, file name → class)."""
    rng = np.random.default_rng(2024)
    kinds = [index % len(KINDS) for index in range(many)]
    return written(folder, ((*make_picture(KINDS[kind], rng), kind) for kind in kinds))


def written(
    folder: Path, pictures: Iterable[tuple[Picture, Mask, int]]
) -> tuple[list[Path], dict[str, int]]:
    """Write drawn pictures, and their masks into ``masks``: (files, file name → class)."""
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    labels = {}
    for index, (picture, mask, label) in enumerate(pictures):
        name = f"{index:04d}.png"
        cv2.imwrite(str(folder / name), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(folder / "masks" / name), mask.astype(np.uint8) * 255)
        labels[name] = label
    return [folder / name for name in labels], labels


def request_of(case: Case, results: Path, **choices: Any) -> Request:
    """What is evaluated of a case; `choices` are further fields of the request."""
    return Request(
        model=case.model,
        photos=case.photos,
        labels=case.labels,
        masks=case.masks,
        results=results,
        choices=choices_of(case),
        **choices,
    )


def run(case: Case, folder: Path, threads: int, steps: int | None) -> dict[str, Any]:
    """The case's means, curves and differences, ready for JSON."""
    begun = time.monotonic()
    said = [0]

    def report(done: int, total: int) -> None:
        if 50 * done // total > said[0]:
            said[0] = 50 * done // total
            print(
                f"{case.name}: {done} of {total}, {time.monotonic() - begun:.0f} s",
                file=sys.stderr,
                flush=True,
            )

    request = request_of(
        case,
        folder / f"{case.name}.jsonl",
        methods=case.methods,
        metrics=case.metrics,
        steps=steps or case.steps,
        threads=threads,
    )
    rows = evaluate(
        request,
        report=report,
        say=lambda text: print(f"{case.name}: {text}", file=sys.stderr, flush=True),
    )
    minutes = (time.monotonic() - begun) / 60
    held_out = [row for row in rows if row["image"] in case.held_out]
    protocols = [name for name in ("exact", "keio", "srg") if name in case.metrics]
    curves = {protocol: mean_curves(rows, protocol) for protocol in protocols}
    for protocol, found in curves.items():
        some = {name: found[name] for name in DRAWN if name in found}
        drawn = draw_curves(some, protocol, from_zero=PROTOCOLS[protocol].from_zero)
        write_png(folder / f"{case.name}-{protocol}.png", drawn, force=True)
    return {
        **described(case, request, rows, minutes),
        "held_out_photos": len({row["image"] for row in held_out}),
        "held_out": means(held_out),
        "gaps": {"all": gaps(rows), "held_out": gaps(held_out)},
        "may_be_shown": case.may_be_shown,
        "curves": {
            p: {m: np.round(c, 4).tolist() for m, c in found.items()} for p, found in curves.items()
        },
    }


def described(
    case: Case, request: Request, rows: Sequence[Mapping[str, Any]], minutes: float
) -> dict[str, Any]:
    """What was evaluated, and every method's means, ready for JSON."""
    return {
        "title": case.title,
        "model": case.model.name,
        "photos": len(case.photos),
        "correct": sum({row["image"]: row["target"] == row["label"] for row in rows}.values()),
        "steps": request.steps,
        "seed": request.seed,
        "minutes": round(minutes, 1),
        "methods": means(rows),
    }


def plain(mean: Mean) -> list[float]:
    """Mean, low and high end."""
    return [round(value, 4) for value in (mean.value, mean.low, mean.high)]


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Method → column → mean and interval."""
    return {
        name: {heading(*column): plain(mean) for column, mean in found.items()}
        for name, found in summary(rows).items()
    }


def value(row: Mapping[str, Any], metric: str) -> float | None:
    """A metric's value, of a protocol its ID; None where the photo has none."""
    found = row.get(metric)
    return found["id"] if isinstance(found, Mapping) else found


def by_method(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Method → photo → its row."""
    by: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by.setdefault(row["method"], {})[row["image"]] = row
    return by


def paired(
    mine: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, Any]], metric: str
) -> tuple[list[float], list[float]]:
    """The values of two methods on the photos that have both."""
    pairs = [(value(mine[i], metric), value(theirs[i], metric)) for i in mine if i in theirs]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    return [a for a, _ in both], [b for _, b in both]


def gaps(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Method → deciding column → rival → paired difference and its interval."""
    by = by_method(rows)
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, mine in by.items():
        for column in DECIDING:
            metric = column.split(maxsplit=1)[0]
            for rival in (r for r in RIVALS if r in by and r != name):
                ours, theirs = paired(mine, by[rival], metric)
                if ours:
                    gap = difference_of(ours, theirs)
                    found.setdefault(name, {}).setdefault(column, {})[rival] = plain(gap)
    return found


def pictures(case: Case, folder: Path) -> list[dict[str, str]]:
    """A few photos side by side: the first, those where the best is most ahead of Grad-CAM and most
    behind, and one that the model gets wrong. Only of a case whose pictures may be shown.
    """
    if not case.may_be_shown:
        raise ValueError(f"pictures of {case.name} may not be shown")
    rows = [
        json.loads(line) for line in (folder / f"{case.name}.jsonl").read_text().splitlines()[1:]
    ]
    best, rival = (
        {r["image"]: r["exact"]["id"] for r in rows if r["method"] == m}
        for m in (f"{BEST}+{SMOOTH}", "grad-cam")
    )
    order = sorted(best, key=lambda image: best[image] - rival[image])
    wrong = next((r["image"] for r in rows if r["target"] != r["label"]), None)
    chosen = {
        "the first photo": case.photos[0].name,
        "most ahead of Grad-CAM in exact ID "
        f"({best[order[-1]]:.2f} against {rival[order[-1]]:.2f})": order[-1],
        f"most behind ({best[order[0]]:.2f} against {rival[order[0]]:.2f})": order[0],
    } | ({"a wrong prediction": wrong} if wrong else {})
    paths = {photo.name: photo for photo in case.photos}
    found = []
    for number, (why, image) in enumerate(chosen.items()):
        output = folder / f"{case.name}-{number}.png"
        compare_file(
            case.model,
            str(paths[image]),
            output,
            options=Options(**choices_of(case), labels=case.classes),
            methods=PICTURED,
            columns=4,
            force=True,
        )
        found.append({"file": output.name, "why": why})
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("assets", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--photos", type=int, help="so many of each model's, instead of all")
    parser.add_argument("--case", nargs="+", default=list(CASES), choices=CASES, help="only these")
    parser.add_argument("--steps", type=int, help="of every curve")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    for case in cases(given.assets, given.output, given.photos, given.case):
        try:
            found = run(case, given.output, given.threads, given.steps)
        except RuleError as error:
            parser.error(str(error))
        if case.may_be_shown:
            found["pictures"] = pictures(case, given.output)
        path = given.output / f"{case.name}.json"
        if path.exists():  # what was gone on with took its time too
            found["minutes"] = round(
                found["minutes"] + json.loads(path.read_text(encoding="utf-8"))["minutes"], 1
            )
        path.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
