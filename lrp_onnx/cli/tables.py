"""Plans, composites, conservation and evaluation as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lrp_onnx.cli.doctor import Findings
from lrp_onnx.compiled.conservation import Account
from lrp_onnx.evaluation.summary import columns_of, heading, shown, summary
from lrp_onnx.plan.plan import Plan
from lrp_onnx.plan.text import plan_rows, shape_text
from lrp_onnx.relevance.composites.assign import Composite


def plan_table(plan: Plan, rules: Mapping[str, str], reasons: Mapping[str, str]) -> RenderableType:
    """The recognised structure: one line per step, with role, output shape, rule and its reason."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("step", "op", "role", "output", "rule", "why"):
        table.add_column(column, no_wrap=column in ("op", "role", "output"), overflow="fold")
    for row in plan_rows(plan, rules, reasons):
        name = Text(f"  {row.name}" if row.inner else row.name, style="bold" if row.block else "")
        table.add_row(name, row.op, row.role, row.output, Text(row.rule), Text(row.why))
    head = (
        f"input {plan.input} {shape_text(plan.input_shape)} → logits {plan.logits} ({plan.classes} "
        f"classes); {len(plan.blocks)} residual blocks"
    )
    return Group(Text(head), *(Text(f"note: {note}") for note in plan.notes), table)


def composite_table(composites: Mapping[str, Composite]) -> Table:
    """One line per composite."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("composite", "what it does", "start", "source"):
        table.add_column(column, no_wrap=column == "composite")
    for name, composite in composites.items():
        table.add_row(name, composite.title, composite.start, composite.source)
    return table


def account_table(
    rows: Sequence[Account], start: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> Table:
    """The conservation ledger of the first sample, one line per layer, from the logits down."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step", overflow="fold")
    table.add_column("rule", overflow="fold")
    for column in ("received", "passed on", "bias took", "ε took", "unexplained"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("conserved")
    for row in rows:
        numbers = (row.received, row.passed, row.bias, row.epsilon, row.unexplained)
        texts = [f"{number[0]:.5g}" for number in numbers]
        table.add_row(row.step, Text(row.rule), *texts, _verdict(row, start))
    return table


def _verdict(row: Account, start: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Text:
    """Whether a layer conserves relevance; a dash where its rule does not promise it."""
    if not row.conserves:
        return Text("—")
    return Text("yes") if row.fault(start) is None else Text("BROKEN", style="bold red")


def evaluation_table(rows: Sequence[Mapping[str, Any]], *, seed: int = 0) -> Table:
    """Means with confidence intervals, one line per method."""
    means_of = summary(rows, seed=seed)
    columns = shown(columns_of(rows))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("method", *(heading(*column) for column in columns)):
        table.add_column(name, no_wrap=True)
    for method, means in means_of.items():
        table.add_row(method, *(str(means[column]) for column in columns))
    return table


def check_lines(
    checks: Iterable[tuple[str, Sequence[str]]], notes: Sequence[str] = ()
) -> list[Text]:
    """One line per check, its faults below it; then the notes."""
    lines = []
    for name, faults in checks:
        result = ("FAILED  ", "bold red") if faults else ("ok      ", "green")
        lines.append(Text.assemble(result, name))
        lines += [Text(f"        {fault}") for fault in faults]
    return lines + [Text(f"note: {note}") for note in notes]


def doctor_lines(findings: Findings) -> list[RenderableType]:
    """The verdict and the command first, then what was found."""
    lines: list[RenderableType] = [
        *(Text.assemble(("FAULT    ", "bold red"), fault) for fault in findings.faults),
        *(Text.assemble(("warning  ", "bold yellow"), text) for text in findings.warnings),
    ]
    if findings.verdict:
        lines.append(Text.assemble(("verdict  ", "bold green"), findings.verdict))
    if findings.command:
        lines += [Text("use:"), Text(f"  {findings.command}", style="bold")]
    for title, found in (("installation", findings.installation), ("model", findings.model)):
        if found:
            table = Table(box=None, pad_edge=False, show_header=False)
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for name, text in found.items():
                table.add_row(f"  {name}", Text(text))
            lines += [Text(title, style="bold"), table]
    if findings.trials:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("preprocess", "accuracy", "confidence", "information"):
            table.add_column(name, justify="left" if name == "preprocess" else "right")
        for trial in findings.trials:
            accuracy = trial["accuracy"]
            table.add_row(
                Text(trial["preprocess"]),
                "—" if accuracy is None else f"{accuracy:.1%}",
                f"{trial['confidence']:.1%}",
                f"{trial['information']:.2f} bits",
            )
        lines.append(table)
    return lines


def show(*renderables: Any) -> None:
    """Print to standard output; tables keep their full width where it is not a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=1000)
    for renderable in renderables:
        console.print(renderable)
