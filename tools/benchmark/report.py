"""The benchmark's results as tables: python -m tools.benchmark.report RESULTS.json … prints them.

Without files, the table of the guide of speed and `models/BENCHMARK.md`
are written from the results in `models/benchmark`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "lrp_onnx" / "guides" / "speed.md"
RESULTS = ("resnet50", "alone", "depth", "pixels", "large", "passes", "coarse")
"""Files in `models/benchmark`, in the order of the page; the guide's table comes from the first.
"""
BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"
PAIRS = {
    "epsilon-plus-flat": "Zennit EpsilonPlusFlat",
    "epsilon-gamma-box": "Zennit EpsilonGammaBox",
    "epsilon-plus": "Zennit EpsilonPlus",
}
"""Ours and the peer's composite of the same name."""
CAPTUM = "Captum LRP"


def markdown(found: Mapping[str, Any]) -> str:
    """Machine, table, ratios to peers, profiles."""
    if "passes" in found:
        return f"{said(found)}\n\n{passes_table(found['passes'])}"
    if "alone" in found:
        return f"{said(found)}\n\n{alone_table(found['alone'])}"
    if "coarse" in found:
        return coarse_table(found["coarse"])
    parts = [said(found), table(found["rows"]), *ratios(found["rows"])]
    for name, operators in found.get("profiles", {}).items():
        total = sum(operators.values())
        most = ", ".join(f"{op} {ms:.1f}" for op, ms in list(operators.items())[:9])
        parts.append(f"Operators of {name}, milliseconds of {total:.1f}: {most}.")
    return "\n\n".join(parts)


def said(found: Mapping[str, Any]) -> str:
    """The machine in one line."""
    tools = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return f"{found['processor']}, {found['threads']} threads, {found['device']}; {tools}."


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All rows."""
    lines = [
        "| model | pixels | type | batch | method | ms | spread | × forward | × arithmetic | "
        "pictures/s | compile s | session s | peak MB | of it the run |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ending = [
            _number(row[key], digits)
            for key, digits in (
                ("arithmetic", 2),
                ("pictures_per_second", 1),
                ("compile_seconds", 1),
                ("session_seconds", 2),
                ("peak_megabytes", 0),
                ("run_megabytes", 0),
            )
        ]
        start = [row["model"], row["size"], row["precision"], row["batch"], row["method"]]
        times = [f"{row['milliseconds']:.1f}", f"{row['spread']:.1f}", f"{row['multiple']:.2f}"]
        lines.append("| " + " | ".join(map(str, [*start, *times, *ending])) + " |")
    return "\n".join(lines)


def passes_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What every choice of emission buys (tools/benchmark/passes.py)."""
    lines = [
        "| composite | batch | without | ms | × the whole | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['composite']} | {row['batch']} | {row['without']} | {row['milliseconds']:.1f} "
            f"| {row['ratio']:.2f} | {row['peak_megabytes']:.0f} |"
        )
    return "\n".join(lines)


def alone_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What explanations cost as they are shipped (tools/benchmark/alone.py)."""
    lines = [
        "| batch | method | ms | × forward | × arithmetic |",
        "|---|---|---|---|---|",
    ]
    memory = any(row.get("peak_megabytes") for row in rows)
    if memory:
        lines = [lines[0] + " peak MB |", lines[1] + "---|"]
    for row in rows:
        times = f"{row['milliseconds']:.1f} | {row['multiple']:.2f}"
        ending = [_number(row["arithmetic"], 2)]
        ending += [_number(row["peak_megabytes"], 0)] if memory else []
        lines.append(f"| {row['batch']} | {row['method']} | {times} | {' | '.join(ending)} |")
    return "\n".join(lines)


def coarse_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What coarse maps lose (tools/benchmark/coarse.py)."""
    lines = [
        "| composite | stops at | photos | correlation with the "
        "full map, median (middle half) | overlap after C3 |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{m:.2f} ({a:.2f} to {b:.2f})" for a, m, b in (row["correlation"], row["overlap"])
        ]
        lines.append(
            f"| {row['composite']} | {row['resolution']} | {row['photos']} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many times faster ours is than the peers', a line for each."""
    groups: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in rows:
        key = row["model"], row["size"], row["precision"], row["batch"]
        groups.setdefault(key, {})[row["method"]] = row["milliseconds"]
    lines = []
    for (model, size, precision, batch), times in groups.items():
        pairs = [
            (ours, theirs) for ours, theirs in PAIRS.items() if ours in times and theirs in times
        ]
        pairs += [
            (ours, CAPTUM)
            for ours in ("c3-lrp", "lrp-epsilon")
            if ours in times and CAPTUM in times
        ]
        for ours, theirs in pairs:
            factor = times[theirs] / times[ours]
            lines.append(
                f"- {model}, {size} pixels, {precision}, batch {batch}: "
                f"`{ours}` is {factor:.1f}× as fast as {theirs}."
            )
    return ["\n".join(lines)] if lines else []


def summary(found: Mapping[str, Any]) -> str:
    """The guide's table: composites against batch sizes,
    in multiples of the forward pass and in milliseconds.
    """
    rows = [row for row in found["rows"] if row["size"] == 224]
    batches = sorted({row["batch"] for row in rows})
    heads = "".join(f" batch {batch}: ms | × its forward pass |" for batch in batches)
    lines = ["| method |" + heads, "|---|" + "---|---|" * len(batches)]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for batch in batches:
            row = next((r for r in rows if r["batch"] == batch and r["method"] == method), None)
            cells.append(f" {row['milliseconds']:.0f} | {row['multiple']:.2f} |" if row else " | |")
        lines.append(f"| {method} |" + "".join(cells))
    return "\n".join(
        [
            *lines,
            "",
            f"*ResNet-50, 224 × 224 pixels, float32, median of interleaved runs. {said(found)}*",
        ]
    )


def with_summary(guide: str, found: Mapping[str, Any]) -> str:
    """The guide's text with its table made anew."""
    before, _, rest = guide.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{summary(found)}\n{END}{after}"


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """`models/BENCHMARK.md`."""
    head = (
        "# Benchmark\n\nMade by `tools/benchmark/run.py`, whose command stands over every section, "
        "and from its results in `models/benchmark` by `tools/benchmark/report.py`. "
        "Times are medians of "
        "interleaved runs, each after a pause; peaks are of whole processes.\n"
    )
    sections = [f"## `{found['command']}`\n\n{markdown(found)}\n" for found in results]
    return "\n".join([head, *sections])


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def read(path: Path) -> dict[str, Any]:
    """One results file."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="*", type=Path)
    given = parser.parse_args(arguments)
    if given.results:
        print("\n\n".join(markdown(read(path)) for path in given.results))
        return 0
    results = [read(ROOT / "models" / "benchmark" / f"{name}.json") for name in RESULTS]
    GUIDE.write_text(with_summary(GUIDE.read_text(encoding="utf-8"), results[0]), encoding="utf-8")
    (ROOT / "models" / "BENCHMARK.md").write_text(page(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
