"""Writes what mutation runs found, as JSON: per module, and every survivor.

    python -m tools.mutation.page first=DIR first-again=DIR,AGAIN -o models/mutation.json

A name stands for a folder of `tools.mutation.run`, or for one and the folders where its survivors
were tried again. Of these, ``gone`` are mutants whose place the code has no longer. What cannot be
told from the right program stands in tools/mutation/equivalent.json, with the reason; the score is
the share of all other mutants that is killed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.mutation.run import ROOMS, Result, population, results, text_of

EQUIVALENT = Path(__file__).parent / "equivalent.json"
OUTCOMES = ("killed", "survived", "not run", "equivalent", "gone", "error")


def judged(folders: Sequence[Path]) -> list[Result]:
    """The results of the first folder, those that were tried again with the new outcome."""
    found = results(folders[0])
    made = {text_of(asdict(mutant)) for mutant in population(ROOMS)}
    for folder in folders[1:]:
        again: dict[object, str] = {}
        for one in results(folder):
            again[one["name"]] = one["outcome"]
            if again.get(text_of(one)) != "survived":  # of places that read alike, the worst
                again[text_of(one)] = one["outcome"]
        for one in found:
            if one["outcome"] != "killed":
                tried = again.get(one["name"], again.get(text_of(one)))
                one["outcome"] = tried or ("survived" if text_of(one) in made else "gone")
    known = json.loads(EQUIVALENT.read_text())
    reasons = {(text_of(one), one["line"]): one["why"] for one in known}
    for one in found:
        place = text_of(one), one["line"]
        if one["outcome"] != "killed" and place in reasons:
            one |= {"outcome": "equivalent", "why": reasons[place]}
    return found


def page(found: Sequence[Result]) -> dict[str, Any]:
    """Counts, score, and what was not killed."""
    modules: Mapping[str, Counter[str]] = defaultdict(Counter)
    for one in found:
        modules[one["path"]][one["outcome"]] += 1
    kept = ("path", "line", "function", "operator", "before", "after", "outcome", "why")
    return {
        **_counted(sum(modules.values(), Counter())),
        "modules": {path: _counted(counts) for path, counts in sorted(modules.items())},
        "left": [
            {key: one[key] for key in kept if key in one}
            for one in sorted(found, key=lambda one: (one["path"], one["start"]))
            if one["outcome"] != "killed"
        ],
    }


def _counted(counts: Counter[str]) -> dict[str, float]:
    judged_alone = counts.total() - counts["equivalent"] - counts["gone"] - counts["error"]
    named = {outcome: counts[outcome] for outcome in OUTCOMES if counts[outcome]}
    return {
        "mutants": counts.total(),
        **named,
        "score": round(counts["killed"] / max(judged_alone, 1), 4),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", nargs="+", metavar="NAME=DIR[,DIR]")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    pages = {}
    for text in given.runs:
        name, _, folders = text.partition("=")
        pages[name] = page(judged([Path(folder) for folder in folders.split(",")]))
        whole = {key: value for key, value in pages[name].items() if key not in ("modules", "left")}
        print(name, json.dumps(whole))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(pages, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
