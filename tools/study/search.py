"""Which composite is best: a search on one half of the photos, one choice after the other.

    python -m tools.study.search ASSETS -o study --case tin10 tin20
    python -m tools.study.search ASSETS -o study --base residual-c3

Starts from `epsilon-plus-flat`, or another base of `SPACES`. For every choice in turn (split at
shortcuts, start, rules of convolutions, of those near the logits, of strided shortcuts, of the
dense layer, of the first layer, where relevance stops, post-processing) all values are judged and
the best stays. Judged is by the mean of what exact ID, SRG and rank accuracy are above Grad-CAM's.
Photos are every second one; the others are left for `run.py` to report on. Writes CASE.search.json
and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrp_onnx import evaluate
from lrp_onnx.evaluation.metrics.intervals import mean_of
from lrp_onnx.relevance.composites.presets import COMPOSITES, DEFAULT
from lrp_onnx.runtime.images import thinned
from tools.study.run import BEST, CASES, SMOOTH, Case, halves, request_of, value

METRICS = ("exact", "srg", "rank")
RIVAL = "grad-cam"
BASE = "epsilon-plus-flat"
SPACE: dict[str, Sequence[str]] = {
    "@join": ("", "ratio", "z-plus-join", "symmetric", "main-only", "skip-only"),
    "start": ("", "contrastive"),
    "@convolution": (
        "",
        "gamma(gamma=0.05)",
        "gamma(gamma=0.1)",
        "gamma(gamma=0.25)",
        "gamma(gamma=1)",
        "alpha-beta",
    ),
    "@upper convolution": (
        "",
        "epsilon(epsilon=0.1)",
        "gamma(gamma=0.05)",
        "gamma(gamma=0.25)",
        "z-plus",
    ),
    "@dense": ("", "z-plus"),
    "@first": ("flat", "z-plus", "w-square"),
    "resolution": ("", "24", "12", "6"),
    "post": (
        "",
        "average:28",
        "average:14",
        "average:10",
        "average:7",
        "smooth",
        "smooth:10",
        "c3:outside=rank",
    ),
}
"""Choice → its values, the composite's own as an empty text."""
RANK = "c3:outside=rank"
SPACES: dict[str, dict[str, Sequence[str]]] = {
    BASE: SPACE,
    DEFAULT: {
        "resolution": ("", "1/4", "1/16", "full"),
        "@subsampling convolution": (
            "spread(rule=gamma)",
            "spread(rule=z-plus)",
            "gamma(gamma=0.25)",
            "z-plus",
        ),
        "@join": ("", "ratio", "symmetric", "main-only"),
        "@upper convolution": ("", "gamma(gamma=0.1)", "gamma(gamma=1)", "z-plus"),
        "start": ("", "logit"),
        "post": (
            COMPOSITES[DEFAULT].post,
            "",
            RANK,
            f"{RANK},size=14",
            f"{RANK},expansion=bilinear",
            f"{RANK},size=7,expansion=bilinear",
            "smooth",
        ),
    },
}
"""Composite that a search starts from → its choices."""
SAID: dict[str, dict[str, str]] = {
    BASE: {"@first": "flat"},
    DEFAULT: {
        "@first": "w-square",
        "@subsampling convolution": "spread(rule=gamma)",
        "post": COMPOSITES[DEFAULT].post,
    },
}
"""What a base has anyway, said: a rule for more layers would otherwise be these layers' too."""
ORDER = (
    "start",
    "@first",
    "@subsampling convolution",
    "@upper convolution",
    "@convolution",
    "@join",
    "@dense",
    "resolution",
)
"""Choices as a method's name lists them: the first rule that fits a step wins."""


def named(chosen: dict[str, str], start: str = BASE) -> str:
    """The method's name, `start` being the composite that the search starts from."""
    said = ", ".join(f"{key}={chosen[key]}" for key in ORDER if chosen.get(key))
    base = f"{start}({said})" if said else start
    return f"{base}+{chosen['post']}" if chosen.get("post") else base


def search(
    case: Case,
    folder: Path,
    *,
    photos: int | None,
    rounds: int,
    threads: int,
    steps: int,
    base: str = BASE,
) -> dict[str, Any]:
    """Every method that was judged with its means, and the way to the best."""
    case = replace(case, photos=thinned(halves(case.photos)[0], photos))
    judged: dict[str, dict[str, float]] = {}

    def judge(names: Sequence[str]) -> None:
        results = folder / f"{_stem(case.name, base)}.search.jsonl"
        rows = evaluate(
            request_of(
                case,
                results,
                methods=[RIVAL, *names],
                metrics=METRICS,
                steps=steps,
                threads=threads,
            )
        )
        for name in (RIVAL, *names):
            mine = [row for row in rows if row["method"] == name]
            judged[name] = {}
            for metric in METRICS:
                values = [found for row in mine if (found := value(row, metric)) is not None]
                judged[name][metric] = mean_of(values).value

    def gain(name: str) -> float:
        return sum(judged[name][metric] - judged[RIVAL][metric] for metric in METRICS) / len(
            METRICS
        )

    chosen = dict(SAID[base])
    way = []
    for turn in range(1, rounds + 1):
        for choice, values in SPACES[base].items():
            names = {
                text: named(chosen | {choice: text}, base)
                for text in values
                if _fits(choice, text, case)
            }
            judge(list(names.values()))
            best = max(names, key=lambda text: gain(names[text]))
            chosen[choice] = best
            tried = {name: gain(name) for name in names.values()}
            way.append({"round": turn, "choice": choice, "tried": tried, "best": names[best]})
            print(
                f"{case.name} {turn}: {choice}: {names[best]} {gain(names[best]):+.4f}",
                file=sys.stderr,
                flush=True,
            )
    simplified = [BEST, f"{BEST}+{SMOOTH}"]
    judge(simplified)
    by_hand = {name: gain(name) for name in simplified}
    return {
        "photos": len(case.photos),
        "by_hand": by_hand,
        "steps": steps,
        "rival": RIVAL,
        "best": named(chosen, base),
        "way": way,
        "judged": judged,
    }


def _stem(case: str, base: str) -> str:
    """The first part of the name of a search's files."""
    return case if base == BASE else f"{case}-{base}"


def _fits(choice: str, text: str, case: Case) -> bool:
    """Whether the model has a feature map of that size, of those that are tried."""
    return choice != "resolution" or not text.isdecimal() or int(text) in case.resolutions


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("assets", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--photos", type=int, help="so many of each half, instead of all")
    parser.add_argument("--case", nargs="+", default=("tin10", "tin20"), choices=("tin10", "tin20"))
    parser.add_argument(
        "--rounds", type=int, default=1, help="how often all choices are gone through"
    )
    parser.add_argument("--base", default=BASE, choices=SPACES, help="what it starts from")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    for name in given.case:
        case = CASES[name](given.assets, given.output)
        found = search(
            case,
            given.output,
            photos=given.photos,
            rounds=given.rounds,
            threads=given.threads,
            steps=given.steps,
            base=given.base,
        )
        path = given.output / f"{_stem(case.name, given.base)}.search.json"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
