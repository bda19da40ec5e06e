"""What the default explanation is worth on photos and networks that nothing was chosen on.

    python -m tools.study.harder -o study/harder                  # networks (torch, minutes)
    python -m tools.study.default ASSETS -o study                 # it goes on where it was stopped
    python -m tools.study.default ASSETS -o study --case tin20 --photos 20

`HYPOTHESES` were written, and committed, before the final run, `LATER` before the run of what
`WIDER` adds. The photos of `tin20` are those that no search saw; the other networks and their
photos served no choice at all. Every case leaves NAME.json in models/evaluation/default;
`report.py` makes tables of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrp_onnx import evaluate
from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.methods import with_own_post
from lrp_onnx.evaluation.photos import find_masks
from lrp_onnx.relevance.composites.presets import COMPOSITES, DEFAULT
from lrp_onnx.runtime.images import thinned
from tools.study.comparing import comparisons
from tools.study.harder import TEST_SEED, make
from tools.study.run import (
    KNOWING_NOTHING,
    ROOT,
    Case,
    described,
    means,
    real,
    request_of,
    written,
)

STORED = ROOT / "models" / "evaluation" / "default"
OURS = with_own_post(DEFAULT)
FORMER = "epsilon-gamma-plus+smooth"
"""The default before it."""
POST = COMPOSITES[DEFAULT].post
RIVALS = ("grad-cam", "recipro-cam", "rise(masks=150)")
SAME_POST = (f"grad-cam+{POST}", f"recipro-cam+{POST}")
"""Rivals with the default's own post-processing."""
METHODS = (
    OURS,
    FORMER,
    *RIVALS,
    *SAME_POST,
    "lrp-resnet",
    "c3-lrp+c3",
    "gaussian",
    "constant",
)
WIDER = (
    "grad-cam-plus-plus",
    "layer-cam",
    "expected-gradients(samples=16)",
    "occlusion",
    f"occlusion+{POST}",
    "rise(masks=1000)",
    f"rise(masks=1000)+{POST}",
    "random",
)
"""What the small networks are judged with too: the costly ones, and random order."""
COSTLY = (
    OURS,
    "grad-cam",
    "recipro-cam",
    "occlusion",
    f"occlusion+{POST}",
    "rise(masks=1000)",
    f"rise(masks=1000)+{POST}",
    "constant",
)
"""Methods of 200 to 1,000 runs a map, on the large network: on fewer photos."""
METRICS = ("exact", "srg", "rank", "mass", "pointing", "mosaic", "lattice")
FILLS = ("srg-blur", "srg-noise")
"""Metrics of small networks: further fills; `exact` has black pixels, `srg` the mean colour."""
NO_RIVALS = (*KNOWING_NOTHING, "c3-lrp+c3")
"""Methods that the default is not compared with."""
COMPARED = ("exact", "srg", "mosaic")
COMPARED_OF_DRAWN = ("exact", "srg", "mass")
"""The middle half of a drawn picture may lack the evidence: no mosaics, but masks are exact."""
HYPOTHESES = (
    "On held-out tin20 photos the default is not lower than the former default by more than 0.01 "
    "in exact ID and in SRG (95 % interval of the paired difference).",
    "There its mosaic is at least 0.93, its lattice at most 2 and its border ratio at most 1.8.",
    "There it is above Grad-CAM, ReciproCAM and RISE of 150 masks in exact ID, SRG and mosaic, "
    "after Holm's correction for all comparisons of all networks.",
    "On networks that nothing was chosen on it is above Grad-CAM and ReciproCAM in mosaic; in "
    "exact ID it may lose to ReciproCAM, as the former default did on CIFAR-10.",
)
LATER = (
    "On the small networks the order of methods in symmetric gain hardly depends on the fill: "
    "Spearman's correlation of black, mean, blur and noise is at least 0.7 for every pair.",
    "RISE of 1,000 masks is not below the default in exact ID and SRG on CIFAR-10.",
    "Where a decoy stands beside the object that decides, the default has more of its positive "
    "relevance on that object (mass) than Grad-CAM, LayerCAM, Grad-CAM++ and RISE have.",
    "Where a small mark decides, the default's strongest pixel lies on it (pointing) in at least "
    "80 % of the pictures, and more often than Grad-CAM's.",
    "Training with hidden blocks changes the order of methods in exact ID: Spearman's correlation "
    "with the order of the network without is below 0.95.",
)
"""Hypotheses of the second run."""
_CIFAR = "cifar10-jpeg"
HARDER = "harder"
"""Folder of the trained networks, in the study's."""


def drawn(name: str, title: str) -> Callable[[Path, Path], Case]:
    """A case of a network of `harder` and pictures drawn for it."""

    def made(assets: Path, folder: Path) -> Case:
        model = folder / HARDER / f"{name}.onnx"
        if not model.exists():
            raise RuleError(f"{model} is missing: python -m tools.study.harder -o {model.parent}")
        photos = folder / name
        pictures, masks, classes = make(name, MOST[name], TEST_SEED)
        drawings = zip(pictures, masks, map(int, classes), strict=True)
        paths, labels = written(photos, drawings)
        return Case(
            name=name,
            title=title,
            model=model,
            photos=paths,
            labels=labels,
            masks=find_masks(photos / "masks", paths),
            preprocess=None,
        )

    return made


CASES: Mapping[str, Callable[[Path, Path], Case]] = {
    "tin20": real(
        "tin20",
        "ResNet-50, 20 Tiny-ImageNet classes, held-out photos",
        "tin20-resnet50.torchscript-op17-folded",
        "tin20",
    ),
    "tin20-costly": real(
        "tin20-costly",
        "The same network against methods of hundreds of runs, 60 of those photos",
        "tin20-resnet50.torchscript-op17-folded",
        "tin20",
    ),
    "cifar56": real(
        "cifar56", "ResNet-56, CIFAR-10", "cifar10-resnet56.torchscript-op13-folded", _CIFAR
    ),
    "cifar20": real(
        "cifar20", "ResNet-20, CIFAR-10", "cifar10-resnet20.torchscript-op13-folded", _CIFAR
    ),
    "mlperf8": real(
        "mlperf8", "MLPerf Tiny's ResNet-8, CIFAR-10", "mlperf-resnet8.keras-nchw-op15", _CIFAR
    ),
    "cifar2b": real(
        "cifar2b", "A ResNet of two blocks, CIFAR-10", "cifar10-resnet2b.torch1.8-op9", _CIFAR
    ),
    "decoys": drawn("decoys", "Drawn pictures with a decoy"),
    "decoys-masked": drawn("decoys-masked", "The same, trained with hidden blocks"),
    "watermark": drawn("watermark", "Drawn pictures whose class a small mark decides"),
}
PREPROCESS = {"mlperf8": "raw"}
DRAWN = ("decoys", "decoys-masked", "watermark")
SMALL = ("cifar20", "mlperf8", "cifar2b", *DRAWN)
"""Cases whose networks are so cheap that they are judged with everything."""
LARGE = ("tin20", "tin20-costly")
"""Cases of photos some of which a search has seen: those are left out."""
MOST = {"tin20-costly": 60} | dict.fromkeys(("cifar56", *SMALL), 200) | dict.fromkeys(DRAWN, 100)
"""Photos of a case at most."""


def case_of(name: str, assets: Path, folder: Path, photos: int | None) -> Case:
    """A case with the methods that are compared, on photos that no choice was made on."""
    case = CASES[name](assets, folder)
    unseen = [photo for photo in case.photos if photo.name in case.held_out]
    small = name in SMALL
    methods = COSTLY if name == "tin20-costly" else (*METHODS, *WIDER) if small else METHODS
    metrics = [metric for metric in METRICS if metric != "mosaic" or name not in DRAWN]
    metrics += FILLS if small else ()
    return replace(
        case,
        photos=thinned(unseen if name in LARGE else case.photos, photos or MOST.get(name)),
        methods=methods,
        metrics=metrics,
        preprocess=PREPROCESS.get(name, case.preprocess),
    )


def run(case: Case, folder: Path, threads: int) -> dict[str, Any]:
    """Means, and the default's paired differences to every rival, ready for JSON."""
    begun = time.monotonic()
    request = request_of(
        case,
        folder / f"default-{case.name}.jsonl",
        methods=case.methods,
        metrics=case.metrics,
        steps=case.steps,
        threads=threads,
    )
    rows = evaluate(request, say=lambda text: print(text, file=sys.stderr, flush=True))
    return {
        **described(case, request, rows, (time.monotonic() - begun) / 60),
        "rightly": rightly(rows),
        "comparisons": comparisons(
            rows,
            OURS,
            COMPARED if "mosaic" in case.metrics else COMPARED_OF_DRAWN,
            without=NO_RIVALS,
        ),
    }


def rightly(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Method → mosaic, of the photos that are predicted rightly alone."""
    right = [row for row in rows if row["target"] == row["label"]]
    return {name: found["mosaic"] for name, found in means(right).items() if "mosaic" in found}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("assets", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where it can go on")
    parser.add_argument("--photos", type=int, help="so many of each case, instead of all")
    parser.add_argument("--case", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stored", type=Path, default=STORED, help="folder of the results")
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    given.stored.mkdir(parents=True, exist_ok=True)
    try:
        cases = [case_of(name, given.assets, given.output, given.photos) for name in given.case]
    except RuleError as error:
        parser.error(str(error))
    for case in cases:
        path = given.stored / f"{case.name}.json"
        found = run(case, given.output, given.threads)
        if path.exists():  # what was gone on with took its time too
            before = json.loads(path.read_text(encoding="utf-8"))["minutes"]
            found["minutes"] = round(found["minutes"] + before, 1)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
