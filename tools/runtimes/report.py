"""The stored results of the matrix as the tables of the guides of runtimes and of deployment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.runtimes.measure import COMPOSITES, MODELS
from tools.runtimes.registry import RUNTIMES, Runtime

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "models" / "runtimes"
GUIDE = ROOT / "lrp_onnx" / "guides" / "runtimes.md"
DEPLOYMENT = ROOT / "lrp_onnx" / "guides" / "deployment.md"
BEGIN, END = "<!-- runtimes -->", "<!-- /runtimes -->"
SPEED_BEGIN, SPEED_END = "<!-- speed -->", "<!-- /speed -->"

Cells = Sequence[Mapping[str, Any]]


def read(name: str) -> dict[str, Any]:
    """One file of stored results."""
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


def rows(cells: Cells) -> Iterator[tuple[Runtime, str, Cells]]:
    """Runtime, form and its cells, in the registry's order."""
    for runtime in RUNTIMES:
        for form in runtime.forms:
            found = [c for c in cells if (c["runtime"], c["form"]) == (runtime.name, form.flags)]
            if found:
                yield runtime, form.flags, found


def is_right(cell: Mapping[str, Any]) -> bool:
    """Whether the file loads, and its outputs and maps are right."""
    return (
        cell["fault"] is None
        and cell["outputs"] <= cell["outputs_bound"]
        and cell["map"] <= cell["bound"]
    )


def table(found: Mapping[str, Any]) -> str:
    """The guide's table: every runtime and form."""
    heads = [f"`{name}`: embedded, ResNet-50" for name in COMPOSITES]
    columns = ["runtime", "version", "file", "loads", "outputs", *heads, "remarks"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for runtime, form, cells in rows(found["cells"]):
        outputs = [cell["outputs"] for cell in cells if cell["fault"] is None]
        loads = "yes" if len(outputs) == len(cells) else "in part" if outputs else "**no**"
        worst = f"{max(outputs):.0e}" if outputs else "–"
        if outputs and max(outputs) > runtime.outputs_tolerance:
            worst = f"**{worst}**"
        maps = [_maps(cells, composite) for composite in COMPOSITES]
        first = [runtime.title, version_of(runtime, cells), f"`{form}`", loads, worst]
        lines.append("| " + " | ".join([*first, *maps, _remarks(runtime, cells)]) + " |")
    return "\n".join(lines)


def version_of(runtime: Runtime, cells: Cells) -> str:
    """What the runtime said, or else what is installed for it."""
    said = [cell["version"] for cell in cells if cell["version"]]
    environment = runtime.tools if runtime.transform else runtime.environment
    pinned = [p for p in environment.packages if p.startswith(runtime.package)]
    return str((said or [pinned[0].replace("@", "==").rpartition("==")[2]])[0])


def _maps(cells: Cells, composite: str) -> str:
    """The differences of the maps of one composite, for every model."""
    said = []
    for model in MODELS:
        cell = next((c for c in cells if (c["model"], c["composite"]) == (model, composite)), None)
        if cell is None:
            said.append("not tried")
        elif cell["map"] is None:
            said.append("–")
        elif not is_right(cell):
            said.append(f"**{cell['map']:.0e}** (r {cell['correlation']:.2f})")
        elif cell["map"] > found_tolerance(cell):
            said.append(f"{cell['map']:.0e} (≤ {cell['bound']:.0e})")
        else:
            said.append(f"{cell['map']:.0e}")
    return ", ".join(said)


def found_tolerance(cell: Mapping[str, Any]) -> float:
    """The tolerance of the cell's runtime, without what rounding adds."""
    return next(r.tolerance for r in RUNTIMES if r.name == cell["runtime"])


def _remarks(runtime: Runtime, cells: Cells) -> str:
    """What there is to know: batch, the registry's remark, faults."""
    said = [runtime.remark] if runtime.remark else []
    faults = dict.fromkeys(cell["fault"] for cell in cells if cell["fault"])
    for fault in list(faults)[:1]:
        cause = fault.rpartition("failed:")[2].replace("|", "/").replace("`", "")
        said.append(f"`{cause[:200].strip()}`")
    return " ".join(said)


def rounding(found: Mapping[str, Any]) -> str:
    """What ONNX Runtime's own optimisations move, in one sentence."""
    said = []
    for model in MODELS:
        parts = []
        for composite in COMPOSITES:
            moved = [
                c["itself"]
                for c in found["cells"]
                if (c["model"], c["composite"]) == (model, composite)
            ]
            if moved:
                parts.append(f"{max(moved):.0e} (`{composite}`)")
        if parts:
            said.append(f"{', '.join(parts)} on `{model}`")
    return (
        "ONNX Runtime's own optimisations, which change the order of sums alone, move these maps "
        f"by up to {'; '.join(said)}."
    )


def summary(found: Mapping[str, Any]) -> str:
    """The table of the guide of deployment: a line for every runtime, in its first form."""
    lines = ["| runtime | version | compile with | maps |", "|---|---|---|---|"]
    seen: set[str] = set()
    for runtime, form, cells in rows(found["cells"]):
        if runtime.name in seen or form != runtime.forms[0].flags:
            continue
        seen.add(runtime.name)
        version = version_of(runtime, cells)
        wrong = list(dict.fromkeys(f"`{c['composite']}`" for c in cells if not is_right(c)))
        said = "right" if not wrong else f"not right: {', '.join(wrong)}"
        if all(cell["fault"] for cell in cells):
            said = "does not load"
        lines.append(f"| {runtime.title} | {version} | `{form}` | {said} |")
    return "\n".join(lines)


def speed_table(found: Mapping[str, Any]) -> str:
    """The multiples of forward passes."""
    lines = [
        "| runtime | forward, ms | default composite, ms | × forward |",
        "|---|---|---|---|",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['title']} {row['version']} | {row['forward']:.1f} | {row['explained']:.1f} "
            f"| {row['multiple']:.2f} |"
        )
    return "\n".join([*lines, "", f"*{found['said']}*"])


def between(text: str, begin: str, end: str, inside: str) -> str:
    """`text` with what stands between two markers made anew."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{inside}\n{end}{after}"


def guide(text: str, matrix: Mapping[str, Any], speed: Mapping[str, Any]) -> str:
    """The guide's text with its tables made anew."""
    inside = f"{rounding(matrix)}\n\n{table(matrix)}"
    return between(between(text, BEGIN, END, inside), SPEED_BEGIN, SPEED_END, speed_table(speed))


def write() -> None:
    """Make both guides' tables anew from what is stored."""
    matrix, speed = read("matrix"), read("speed")
    GUIDE.write_text(guide(GUIDE.read_text(encoding="utf-8"), matrix, speed), encoding="utf-8")
    deployment = DEPLOYMENT.read_text(encoding="utf-8")
    DEPLOYMENT.write_text(between(deployment, BEGIN, END, summary(matrix)), encoding="utf-8")
