"""What the compiler makes of the zoo, as hashes: a refactoring must change none of them.

    python -m tools.zoo.fingerprints -o before.json
    python -m tools.zoo.fingerprints --against before.json
    python -m tools.zoo.fingerprints --family core se --against before.json     a part of it
    python -m tools.zoo.fingerprints models/shapes-resnet.onnx -o before.json   a further model
    python -m tools.zoo.fingerprints --again          everything twice, under other circumstances

Every file is compiled in many forms: under every composite, for every runtime, for many targets,
with coarse maps, further outputs, other starts and rules, and shuffled weights. Of each form the
graph and the metadata are hashed apart; versions do not count. A form that is refused counts by
what the error says. With `--against` every difference is listed, and the exit status is 1 where
there is one. So it is with `--again`, which compiles everything a second time, in processes with
another hash seed, locale, time zone, date, working folder and number of threads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

import onnx

from lrp_onnx import compile_model
from lrp_onnx.relevance.composites.presets import COMPOSITES, DEFAULT
from lrp_onnx.relevance.graph.emission import DEFAULT_EMISSION, EMISSIONS
from lrp_onnx.runtime.preprocess import parse_preprocessing
from tools.zoo.coverage import options_of, read_manifest, unpacked

Choices = Mapping[str, Any]
Fingerprint = dict[str, str]
"""``graph`` and ``metadata`` of a compiled file → hashes; of a refused form ``error`` → the hash of
what is said, and ``said`` → how that begins.
"""
Found = dict[str, dict[str, Fingerprint]]
"""File → form → fingerprint."""

PROCESSES = 2
SHOWN = 120
"""Characters of an error's text that are stored and shown."""
VERSIONS = "lrp_onnx.versions"
"""The key of the metadata that does not count."""
EMITTED = (DEFAULT, "lrp-resnet", "c3-lrp")
"""Composites that are compiled for every runtime: one of each way to treat a residual block."""
OVERRIDES: Mapping[str, Mapping[str, str]] = {
    "three at once": {
        "@join": "ratio",
        "@first": "flat",
        "@upper convolution": "alpha-beta(alpha=3, beta=2)",
    },
    "joins by sign": {"@join": "signed"},
    "joins by half": {"@join": "symmetric"},
    "joins to the main branch": {"@join": "main-only"},
    "joins to the shortcut": {"@join": "skip-only"},
    "joins by positive part": {"@join": "z-plus-join"},
    "gamma": {"@convolution": "gamma(gamma=0.1)", "@dense": "z-plus"},
    "w-square": {"@first": "w-square"},
}
"""Name of a form → rules that replace the composite's."""
SIZES = ((4, 4), (8, 8), (16, 16), (28, 28))
"""Coarse maps that are tried; a model without such a feature map says so."""
EXTRA: Mapping[str, Mapping[str, Choices]] = {
    "abn": {"attention": {"outputs": ("heatmap", "attention")}},
    "two-outputs": {"features": {"explain": "features", "composite": "lrp-resnet"}},
}
"""Family of the zoo → forms of its own."""


@dataclass(frozen=True, slots=True)
class Job:
    """One file to compile in all forms."""

    name: str
    path: Path | None = None
    """Of a model outside the zoo."""
    entry: Mapping[str, Any] = field(default_factory=dict)
    """Of a file of the zoo, what the manifest says."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.zoo.fingerprints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", type=Path, help="ONNX files beside those of the zoo")
    parser.add_argument("--family", nargs="+", metavar="NAME", help="only these of the zoo")
    parser.add_argument("-o", "--output", type=Path, help="write the fingerprints here")
    parser.add_argument("--against", type=Path, help="fingerprints that must not have changed")
    parser.add_argument("--again", action="store_true", help="compile twice, and compare")
    given = parser.parse_args(arguments)
    if not given.output and not given.against and not given.again:
        parser.error(
            "say where the fingerprints go (-o), what they must equal (--against), or --again"
        )
    unknown = set(given.family or ()) - {entry["family"] for entry in read_manifest()}
    if unknown:
        parser.error(f"the zoo has no family {', '.join(sorted(unknown))}")
    wanted = list(jobs(given.models, given.family))
    found = fingerprints(wanted)
    if given.output:
        text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False)
        given.output.write_text(text + "\n", encoding="utf-8")
    print(f"{sum(map(len, found.values()))} forms of {len(found)} files")
    changes = []
    if given.against:
        before: Found = json.loads(given.against.read_text(encoding="utf-8"))
        if given.family:
            before = {name: forms for name, forms in before.items() if name in found}
        changes += differences(before, found)
    if given.again:
        changes += differences(found, fingerprints(wanted, elsewhere=True))
    if given.against or given.again:
        print("\n".join(changes) if changes else "nothing has changed")
    return int(bool(changes))


def jobs(models: Iterable[Path], families: Iterable[str] | None) -> Iterator[Job]:
    """The files to compile: of the zoo all, or those of some families, and the named models."""
    for entry in read_manifest():
        if families is None or entry["family"] in families:
            yield Job(entry["name"], entry=entry)
    for path in models:
        yield Job(path.name, path=path.absolute())


def fingerprints(wanted: Sequence[Job], *, elsewhere: bool = False) -> Found:
    """Every file in every form, two files at a time; `elsewhere` under `OTHER` circumstances."""
    start = multiprocessing.get_context("spawn").Pool
    count = min(PROCESSES, len(wanted))
    with changed(OTHER if elsewhere else {}), start(count, move if elsewhere else None) as pool:
        done = []
        for name, forms in pool.imap_unordered(work, wanted):
            done.append((name, forms))
            print(f"{len(done)} of {len(wanted)}: {name}", file=sys.stderr, flush=True)
    return dict(sorted(done))


OTHER = {
    "PYTHONHASHSEED": "4242",
    "PYTHONUTF8": "0",
    "LC_ALL": "C",
    "TZ": "Asia/Kathmandu",
    "OMP_NUM_THREADS": "1",
}
"""Variables of the environment that should change nothing."""
LATER = 400 * 86_400
"""Seconds by which clocks go fast under other circumstances."""


@contextmanager
def changed(environment: Mapping[str, str]) -> Iterator[None]:
    """The process's environment, as children that begin in the block have it."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def move() -> None:
    """Be in another folder, on another day."""
    now = time.time
    time.time = lambda: now() + LATER
    os.chdir(tempfile.gettempdir())


def work(job: Job) -> tuple[str, dict[str, Fingerprint]]:
    """One file's name and its forms."""
    with tempfile.TemporaryDirectory() as folder:
        path = job.path or unpacked(job.entry, Path(folder))
        own = options_of(job.entry) if job.entry else {}
        forms = all_forms() | dict(EXTRA.get(job.entry.get("family", ""), {}))
        found = {form: fingerprint(path, {**own, **choices}) for form, choices in forms.items()}
        return job.name, found


def all_forms() -> dict[str, Choices]:
    """Name of a form → options of the compiler."""
    forms: dict[str, Choices] = {name: {"composite": name} for name in COMPOSITES}
    for name in EMITTED:
        base = {"composite": name}
        for runtime in EMISSIONS:
            if runtime != DEFAULT_EMISSION:
                forms[f"{name} for {runtime}"] = {**base, "optimize_for": runtime}
        for size in SIZES:
            forms[f"{name} at {size[0]}"] = {**base, "resolution": size}
        forms[f"{name} of many targets"] = {**base, "many_targets": True}
    for start in ("logit", "probability", "one", "contrastive", "no such start"):
        forms[f"start from {start}"] = {"composite": "epsilon-plus", "start": start}
    for bias in ("keep", "drop"):
        forms[f"bias: {bias}"] = {"composite": "lrp-epsilon", "bias": bias}
    forms |= {f"rules: {name}": {"rules": rules} for name, rules in OVERRIDES.items()}
    return forms | {
        "relevance too": {"composite": "epsilon-plus-flat", "outputs": ("heatmap", "relevance")},
        "no such output": {"outputs": ("heatmap", "no such output")},
        "shuffled weights": {"randomize": 3, "seed": 1},
        "preparation": {"preprocessing": parse_preprocessing("imagenet")},
    }


def fingerprint(path: Path, choices: Choices) -> Fingerprint:
    """What the model at `path` becomes. A fault of the compiler is a result like any other."""
    try:
        model = compile_model(path, **choices).model
    except Exception as error:
        text = str(error).replace(str(path), "MODEL").replace(str(path.parent), "FOLDER")
        said = f"{type(error).__name__}: {text}"
        return {"error": _hash(said.encode()), "said": shorten(said, SHOWN)}
    return {"graph": graph_of(model), "metadata": metadata_of(model)}


def metadata_of(model: onnx.ModelProto) -> str:
    """The hash of all that is said beside the graph, less versions; the order counts."""
    said = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != VERSIONS]
    return _hash(json.dumps(said).encode())


def graph_of(model: onnx.ModelProto) -> str:
    """The hash of the file less its metadata and the compiler's version."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    bare.producer_version = ""
    return _hash(bare.SerializeToString(deterministic=True))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def differences(before: Found, after: Found) -> list[str]:
    """Everything that is not the same, one line each."""
    lines = []
    for file in sorted(before.keys() | after.keys()):
        if file not in after or file not in before:
            lines.append(f"{file}: {'only before' if file in before else 'only now'}")
            continue
        old, new = before[file], after[file]
        for form in sorted(old.keys() | new.keys()):
            if what := _changed(old.get(form), new.get(form)):
                lines.append(f"{file} | {form}: {what}")
    return lines


def _changed(old: Fingerprint | None, new: Fingerprint | None) -> str:
    """What differs in a form, in words; nothing where it is the same."""
    if old is None or new is None:
        return "only before" if new is None else "only now"
    if old == new:
        return ""
    if "error" in old or "error" in new:
        return f"{old.get('said', 'compiled')}; now {new.get('said', 'it compiles')}"
    return " and ".join(part for part in ("graph", "metadata") if old.get(part) != new.get(part))


if __name__ == "__main__":
    sys.exit(main())
