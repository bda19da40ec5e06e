"""Makes small faults in the package's source, one at a time, and counts which the tests find.

    python -m tools.mutation.run --measure --sample 0 -o DIR    which tests run which lines
    python -m tools.mutation.run --room maps --sample 400 --seed 1 -o DIR
    python -m tools.mutation.run --again OLD -o DIR            what survived in the folder OLD

Every mutant is met by the tests that run its lines, the likeliest to fail first, until one fails.
What is finished stands in DIR/results.jsonl, one line each, so that the same command goes on where
it ended. After a change of the source measure anew, in another folder; of tests, those that changed
(``--measure tests/maps/test_c3.py``). `--again` finds mutants by their text.
`python -m tools.mutation.page` writes what was found to models/mutation.json.

Our own, as neither library does it: mutmut changes function bodies alone, not the tables, constants
and dataclasses that much of this package is; Cosmic Ray starts the same whole command for every
mutant, and most of its mutants of arithmetic are shifts and bits that no array takes. Neither
removes statements nor swaps arguments.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.mutation import trial
from tools.mutation.operators import Mutant, mutants
from tools.mutation.tests import TESTS, Tests, measure

ROOMS = ("relevance", "maps", "evaluation/metrics")
"""Rooms whose source can be mutated."""
SECONDS = 30.0
"""The most that one mutant's tests take in sum, undisturbed."""
Result = dict[str, Any]
"""The fields of a mutant, and ``name``, ``outcome``, ``tests`` (how many), ``killer`` (the one that
failed), ``seconds``.
"""


def population(rooms: Iterable[str]) -> list[Mutant]:
    """Every mutant of every module of `rooms`."""
    files = sorted(file for room in rooms for file in Path("lrp_onnx", room).rglob("*.py"))
    return [m for file in files for m in mutants(file.as_posix(), file.read_bytes())]


def drawn(found: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """A sample of `count`, every module in proportion, at least one of each, in random order."""
    by_module = defaultdict(list)
    for mutant in found:
        by_module[mutant.path].append(mutant)
    generator = random.Random(seed)
    sample: list[Mutant] = []
    for module in by_module.values() if count else ():
        share = max(1, round(count * len(module) / len(found)))
        sample += generator.sample(module, min(share, len(module)))
    generator.shuffle(sample)
    return sample


def survivors(old: Path, found: Sequence[Mutant]) -> list[Mutant]:
    """The mutants among `found` that were not killed in the folder `old`, by place and text; where
    the file has changed, by text alone.
    """
    left = [one for one in results(old) if one["outcome"] != "killed"]
    names = {mutant.name for mutant in found}
    same = {one["name"] for one in left} & names
    moved = {text_of(one) for one in left if one["name"] not in names}
    return [m for m in found if m.name in same or text_of(asdict(m)) in moved]


def text_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """What names a mutant in every version of its file."""
    return tuple(fields[key] for key in ("path", "function", "operator", "before", "after"))


def run(sample: Sequence[Mutant], tests: Tests, folder: Path, *, workers: int, most: float) -> None:
    """Try every mutant of `sample` that has no result yet."""
    done = {result["name"] for result in results(folder)}
    waiting = [mutant for mutant in sample if mutant.name not in done][::-1]
    running: list[trial.Trial] = []
    total, number = len(waiting), 0
    while waiting or running:
        while waiting and len(running) < workers:
            mutant = waiting.pop()
            chosen = tests.of(mutant, seconds=most)
            if not chosen:
                _store(folder, mutant, "not run")
                continue
            number += 1
            undisturbed = sum(tests.seconds[test] for test in chosen)
            report = folder / "reports" / f"{abs(hash(mutant.name))}.txt"
            running.append(trial.start(mutant, chosen, undisturbed, report))
        time.sleep(0.05)
        for one in list(running):
            outcome = one.finished()
            if outcome is not None and one.mutant is not None:
                running.remove(one)
                seconds = time.monotonic() - one.started
                _store(folder, one.mutant, outcome, one, seconds)
                print(f"{number}/{total} {outcome} {one.mutant.name}"[:150], file=sys.stderr)


def undisturbed(tests: Tests, folder: Path) -> bool:
    """Whether the tests that found a fault pass in a trial without one; what is printed stays in
    `folder`.
    """
    killers = sorted({one["killer"] for one in results(folder) if one["killer"] in tests.seconds})
    seconds = sum(tests.seconds[test] for test in killers)
    one = trial.start(None, killers, seconds, folder / "undisturbed.txt")
    while (outcome := one.finished()) is None:
        time.sleep(0.2)
    return outcome == "survived"


def results(folder: Path) -> list[Result]:
    """What was stored; the last line of a mutant counts."""
    file = folder / "results.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return list({(one := json.loads(line))["name"]: one for line in lines}.values())


def _store(
    folder: Path,
    mutant: Mutant,
    outcome: str,
    one: trial.Trial | None = None,
    seconds: float = 0.0,
) -> None:
    result = {
        "name": mutant.name,
        "outcome": outcome,
        "tests": len(one.tests) if one else 0,
        "killer": trial.failed(one.report) if one else None,
        "seconds": round(seconds, 1),
        **asdict(mutant),
    }
    with (folder / "results.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--measure",
        nargs="*",
        metavar="TEST",
        help="run the undisturbed tests first, or these alone beside what was measured",
    )
    parser.add_argument("--room", nargs="+", choices=ROOMS, default=ROOMS)
    parser.add_argument("--again", type=Path, metavar="OLD", help="what survived in this folder")
    parser.add_argument("--sample", type=int, default=400, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of tests for one mutant")
    given = parser.parse_args(arguments)
    (given.output / "reports").mkdir(parents=True, exist_ok=True)
    if given.measure is not None:
        measure(given.output, given.measure or tuple(TESTS))
    found = population(given.room)
    sample = (
        survivors(given.again, found) if given.again else drawn(found, given.sample, given.seed)
    )
    tests = Tests(given.output)
    trial.preload()
    run(sample, tests, given.output, workers=given.workers, most=given.seconds)
    if not undisturbed(tests, given.output):
        print(f"tests fail without a fault: {given.output}/undisturbed.txt", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
