"""Which composite is right for transformers and for modern CNNs: chosen, then judged.

    python -m tools.study.modern -o study/modern                 # networks (torch, minutes)
    python -m tools.study.families -o study                      # it goes on where it was stopped
    python -m tools.study.families -o study --network vit --only search

The search goes through a family's choices one after the other on pictures drawn by one seed and
keeps the best of each, by the mean of exact ID, SRG and mosaic. What it chose for all networks of
a family together is that family's default; it, what was known, and baselines are judged on
pictures drawn by another seed. Every network leaves NAME.search.json and NAME.json in
models/evaluation/families; `report.py` makes tables of them.
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

import numpy as np

from lrp_onnx import evaluate
from lrp_onnx.evaluation.methods import with_own_post
from lrp_onnx.evaluation.metrics.intervals import mean_of
from lrp_onnx.evaluation.photos import find_masks
from lrp_onnx.relevance.composites.presets import COMPOSITES, DEFAULT, TRANSFORMERS
from tools.study.comparing import comparisons
from tools.study.modern import judged
from tools.study.run import (
    KNOWING_NOTHING,
    ROOT,
    Case,
    by_method,
    described,
    request_of,
    value,
    written,
)

STORED = ROOT / "models" / "evaluation" / "families"
TUNING_SEED, TEST_SEED = 21, 22
TUNING, TEST = 50, 100
"""Numbers of pictures."""
POST = COMPOSITES[DEFAULT].post
DECIDING = ("exact", "srg", "mosaic")
METRICS = ("exact", "srg", "mosaic", "rank", "mass", "pointing")
MODELS = "modern"
"""Folder of the networks, in the study's."""
LINEAR = ("epsilon", "gamma(gamma=0.01)", "gamma(gamma=0.05)", "gamma(gamma=0.25)", "z-plus")
ATTENTION: Mapping[str, Sequence[str]] = {
    "start": ("contrastive", "logit"),
    "resolution": ("1/8", "full"),
    "@attention": ("values", "halves"),
    "@normalization": ("layer-norm", "pass"),
    "@upper convolution": (*LINEAR, "gamma(gamma=1)"),
    "@convolution": (*LINEAR, "gamma(gamma=1)"),
    "@join": ("signed", "z-plus-join", "ratio"),
    "post": (POST, "none", "smooth"),
}
CONVOLUTION: Mapping[str, Sequence[str]] = {
    "start": ("contrastive", "logit"),
    "resolution": ("1/8", "1/4", "1/16", "full"),
    "@normalization": ("pass", "layer-norm"),
    "@upper convolution": ("gamma", *LINEAR),
    "@convolution": ("z-plus", "gamma", "gamma(gamma=0.05)", "epsilon"),
    "@first": ("w-square", "gamma"),
    "@join": ("z-plus-join", "signed", "ratio"),
    "post": (POST, "none", "smooth"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Networks that are to have one default."""

    title: str
    base: str
    """The composite that the choices change."""
    begin: Mapping[str, str]
    """What the search starts from."""
    space: Mapping[str, Sequence[str]]
    default: str
    rivals: Sequence[str]


TRANSFORMER = Family(
    title="transformer",
    base="cp-lrp-gamma",
    begin={
        "start": "contrastive",
        "resolution": "1/8",
        "@attention": "values",
        "@normalization": "layer-norm",
        "@upper convolution": "epsilon",
        "@convolution": "epsilon",
        "@first": "gamma(gamma=0.25)",
        "@join": "signed",
        "post": POST,
    },
    space=ATTENTION,
    default=TRANSFORMERS,
    rivals=(
        with_own_post(DEFAULT),
        f"cp-lrp-gamma+{POST}",
        f"attn-lrp+{POST}",
        "cp-lrp-gamma",
        "attn-lrp",
        "lrp-resnet",
        "epsilon-plus-flat",
        f"epsilon-plus-flat+{POST}",
        f"{TRANSFORMERS}(resolution=full)+{POST}",
        f"{TRANSFORMERS}(@normalization=pass)+{POST}",
        "attention-rollout",
        f"attention-rollout+{POST}",
    ),
)
CNN = Family(
    title="modern CNN",
    base="residual-c3",
    begin={
        "start": "contrastive",
        "resolution": "1/8",
        "@normalization": "pass",
        "@upper convolution": "gamma",
        "@convolution": "z-plus",
        "@first": "w-square",
        "@join": "z-plus-join",
        "post": POST,
    },
    space=CONVOLUTION,
    default=DEFAULT,
    rivals=(
        f"residual-c3(resolution=1/4)+{POST}",
        with_own_post(TRANSFORMERS),
        "epsilon-gamma-plus+smooth",
        "lrp-resnet",
        "epsilon-plus-flat",
        "recipro-cam",
    ),
)
NETWORKS: Mapping[str, tuple[str, Family]] = {
    "vit": ("A vision transformer with a class token", TRANSFORMER),
    "vit-mean": ("A vision transformer without one", TRANSFORMER),
    "convnext": ("A network of ConvNeXt's blocks", CNN),
}
BASELINES = (
    "grad-cam",
    f"grad-cam+{POST}",
    "rise(masks=150)",
    "occlusion",
    f"occlusion+{POST}",
    "integrated-gradients(steps=8)",
    "gradient-x-input",
    "gaussian",
    "constant",
)
RULES = ("@first", "@upper convolution", "@convolution", "@attention", "@normalization", "@join")
"""Rules as a method's name lists them: the first that fits a step wins."""


def named(base: str, chosen: Mapping[str, str]) -> str:
    """The method's text. A rule for linear layers is for dense ones too."""
    rules = [(key, chosen[key]) for key in RULES if key in chosen]
    if "@attention" in chosen:
        rules.append(("@dense", chosen["@upper convolution"]))
    if chosen.get("@attention") == "halves":
        rules.append(("@softmax", "softmax"))
    said = [(key, chosen[key]) for key in ("start", "resolution")] + rules
    text = f"{base}({', '.join(f'{key}={rule}' for key, rule in said)})"
    return text if chosen["post"] == "none" else f"{text}+{chosen['post']}"


def case_of(name: str, folder: Path, seed: int, count: int) -> Case:
    """A network with pictures drawn by a seed."""
    model = folder / MODELS / f"{name}.onnx"
    photos = folder / f"{MODELS}-{seed}"
    paths, labels = written(photos, iter(judged(count, seed)))
    title, _ = NETWORKS[name]
    return Case(
        name=name,
        title=title,
        model=model,
        photos=paths,
        labels=labels,
        masks=find_masks(photos / "masks", paths),
        preprocess=None,
    )


def search(name: str, folder: Path, threads: int) -> dict[str, Any]:
    """What every choice is worth, one after the other."""
    case, family = case_of(name, folder, TUNING_SEED, TUNING), NETWORKS[name][1]
    judged_: dict[str, dict[str, float]] = {}
    chosen, way = dict(family.begin), []
    for choice, values in family.space.items():
        tried = {text: named(family.base, chosen | {choice: text}) for text in values}
        request = request_of(
            case,
            folder / f"families-{name}.search.jsonl",
            methods=tuple(tried.values()),
            metrics=DECIDING,
            steps=case.steps,
            threads=threads,
        )
        by = by_method(evaluate(request, say=_say))
        for method in tried.values():
            judged_[method] = {metric: _mean(by[method].values(), metric) for metric in DECIDING}
        worth = {text: float(np.mean(list(judged_[m].values()))) for text, m in tried.items()}
        chosen[choice] = max(worth, key=worth.__getitem__)
        way.append({"choice": choice, "tried": worth, "best": chosen[choice]})
        _say(f"{name}: {choice}: {worth}")
    return {
        "photos": len(case.photos),
        "seed": TUNING_SEED,
        "way": way,
        "best": named(family.base, chosen),
        "judged": judged_,
    }


def _mean(rows: Any, metric: str) -> float:
    values = [found for row in rows if (found := value(row, metric)) is not None]
    return mean_of(values).value


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def judge(name: str, folder: Path, threads: int) -> dict[str, Any]:
    """Means, and the default's paired differences to every rival, ready for JSON."""
    begun = time.monotonic()
    case, family = case_of(name, folder, TEST_SEED, TEST), NETWORKS[name][1]
    ours = with_own_post(family.default)
    request = request_of(
        case,
        folder / f"families-{name}.jsonl",
        methods=tuple(dict.fromkeys((ours, *family.rivals, *BASELINES))),
        metrics=METRICS,
        steps=case.steps,
        threads=threads,
    )
    rows = evaluate(request, say=_say)
    return {
        **described(case, request, rows, (time.monotonic() - begun) / 60),
        "family": family.title,
        "default": ours,
        "comparisons": comparisons(rows, ours, DECIDING, without=KNOWING_NOTHING),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="where it can go on")
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--only", choices=("search", "judge"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stored", type=Path, default=STORED, help="folder of the results")
    given = parser.parse_args(arguments)
    given.stored.mkdir(parents=True, exist_ok=True)
    for name in given.network:
        model = given.output / MODELS / f"{name}.onnx"
        if not model.exists():
            parser.error(f"{model} is missing: python -m tools.study.modern -o {model.parent}")
        for kind, made in (("search", search), ("judge", judge)):
            if given.only in (None, kind):
                ending = ".search.json" if kind == "search" else ".json"
                path = given.stored / f"{name}{ending}"
                found = made(name, given.output, given.threads)
                path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
