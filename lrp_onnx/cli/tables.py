"""Plans, composites, conservation and evaluation as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text as RichText

from lrp_onnx.cli.doctor import Findings
from lrp_onnx.compiled.conservation import Account
from lrp_onnx.errors import shown as harmless
from lrp_onnx.evaluation.metrics.intervals import Mean
from lrp_onnx.evaluation.summary import columns_of, heading, shown, summary
from lrp_onnx.plan.plan import Plan
from lrp_onnx.plan.text import plan_rows, shape_text
from lrp_onnx.relevance.composites.assign import Composite


class Text(RichText):
    """A text whose control characters are written out before anything is laid out."""

    def __init__(self, text: str = "", *settings: Any, **more: Any) -> None:
        super().__init__(harmless(text), *settings, **more)

    def append(self, text: RichText | str, style: str | Style | None = None) -> Self:
        """Add text at the end."""
        super().append(harmless(text) if isinstance(text, str) else text, style)
        return self


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="bold")


@dataclass(frozen=True, slots=True)
class Fitting:
    """A table where there is room for it, else the same as blocks of lines: no letter is lost."""

    table: Table
    blocks: Sequence[RenderableType]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        has_room = console.measure(self.table, options=options.update(width=WIDEST)).maximum
        if has_room <= options.max_width:
            yield self.table
        else:
            yield from self.blocks


WIDEST = 10_000
"""Columns that no table needs."""


def _block(head: RichText, *lines: str) -> RenderableType:
    """Lines below a head, indented; long names are folded."""
    texts = [Text(line, overflow="fold") for line in lines if line]
    head.overflow = "fold"
    return Group(head, *(Padding(text, (0, 0, 0, 4)) for text in texts))


def plan_table(plan: Plan, rules: Mapping[str, str], reasons: Mapping[str, str]) -> RenderableType:
    """The recognised structure: one line per step, with role, output shape, rule and its reason."""
    table, blocks = _table(), []
    for column in ("step", "op", "role", "output", "rule", "why"):
        table.add_column(column)
    for row in plan_rows(plan, rules, reasons):
        name = Text(f"  {row.name}" if row.inner else row.name, style="bold" if row.block else "")
        cells = (row.op, row.role, row.output, row.rule, row.why)
        table.add_row(name, *map(Text, cells))
        what = ", ".join(text for text in (row.op, row.role, row.output) if text)
        by = f"{row.rule}: {row.why}" if row.rule else row.why
        blocks.append(_block(name, what, by))
    return Group(*_plan_head(plan), Fitting(table, blocks))


def _plan_head(plan: Plan) -> list[Text]:
    head = (
        f"input {plan.input} {shape_text(plan.input_shape)} → logits {plan.logits} ({plan.classes} "
        f"classes); {len(plan.blocks)} residual blocks"
    )
    return [Text(head), *(Text(f"note: {note}") for note in plan.notes)]


def rule_table(plan: Plan, rules: Mapping[str, str], reasons: Mapping[str, str]) -> RenderableType:
    """The plan in short: one line per rule, with the steps that have it."""
    rows = [row for row in plan_rows(plan, rules, reasons) if row.rule]
    table, blocks = _table(), []
    for column in ("rule", "steps", "kinds", "from", "to"):
        table.add_column(column, justify="right" if column == "steps" else "left")
    for rule in dict.fromkeys(row.rule for row in rows):
        having = [row for row in rows if row.rule == rule]
        kinds = ", ".join(dict.fromkeys(row.op for row in having))
        first, last = having[0].name, having[-1].name
        table.add_row(Text(rule), str(len(having)), Text(kinds), Text(first), Text(last))
        head = Text.assemble((rule, "bold"), f"  {len(having)} × {kinds}")
        ends = [first] if len(having) == 1 else [f"from {first}", f"to {last}"]
        blocks.append(_block(head, *ends))
    return Group(*_plan_head(plan), Fitting(table, blocks))


def composite_table(composites: Mapping[str, Composite]) -> RenderableType:
    """One line, or one block, per composite."""
    table, blocks = _table(), []
    for column in ("composite", "what it does", "start", "source"):
        table.add_column(column)
    for name, composite in composites.items():
        title, start, source = composite.title, composite.start, composite.source
        table.add_row(name, Text(title), start, Text(source))
        about = f"starts from: {start}; source: {source}"
        blocks.append(_block(Text(name, style="bold"), title, about))
    return Fitting(table, blocks)


def relevance_lines(
    rows: Sequence[Account], start: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> list[Text]:
    """Where the relevance of the first sample went, in one line, and every broken layer."""
    bias, epsilon = (sum(getattr(row, name)[0] for row in rows) for name in ("bias", "epsilon"))
    lost = sum(row.unexplained[0] for row in rows if not row.conserves)
    text = f"relevance of the first picture: {start[0]:.5g} at the start; biases took {bias:.5g}"
    text += f", stabilizers {epsilon:.2g}"
    if any(not row.conserves for row in rows):
        text += f"; layers whose rule does not conserve it changed it by {-lost:.5g}"
    broken = [fault for row in rows if (fault := row.fault(start)) is not None]
    return [Text(text), *(Text(fault, style="bold red") for fault in broken)]


def account_table(
    rows: Sequence[Account], start: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> RenderableType:
    """The conservation ledger of the first sample, from the logits down: one line per layer, or two
    where a line has no room for names and numbers.
    """
    numbers = ("received", "passed on", "bias took", "ε took", "unexplained")
    table, blocks = _table(), [_numbers(*numbers, "conserved", style="bold")]
    for column in ("step", "rule", *numbers, "conserved"):
        table.add_column(column, justify="right" if column in numbers else "left")
    for row in rows:
        values = (row.received, row.passed, row.bias, row.epsilon, row.unexplained)
        texts = [f"{value[0]:.5g}" for value in values]
        verdict = _verdict(row, start)
        table.add_row(Text(row.step), Text(row.rule), *texts, verdict)
        name = Text(f"{row.step}  {row.rule}", overflow="fold", style=verdict.style)
        blocks += [name, _numbers(*texts, verdict.plain, style=verdict.style)]
    return Fitting(table, blocks)


def _numbers(*texts: str, style: Style | str) -> Text:
    """A line of numbers, or of their names, and a word."""
    *numbers, word = texts
    return Text("".join(f"{number:>13}" for number in numbers) + f"  {word}", style=style)


def _verdict(row: Account, start: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Text:
    """Whether a layer conserves relevance; a dash where its rule does not promise it."""
    if not row.conserves:
        return Text("—")
    return Text("yes") if row.fault(start) is None else Text("BROKEN", style="bold red")


COLUMNS = 3
"""Metrics side by side in a short table, which fits 80 columns."""


def evaluation_table(
    rows: Sequence[Mapping[str, Any]], *, every: bool = False, seed: int = 0
) -> RenderableType:
    """What the first metric says, then means, best first; a few metrics a table.

    Args:
        rows: results, as `evaluate` gives them.
        every: one wide table instead, in the order of the request, with whole intervals.
        seed: of the confidence intervals.
    """
    means_of = summary(rows, seed=seed)
    columns = shown(columns_of(rows))
    if every or not columns:
        table, blocks = _table(), []
        names = [heading(*column) for column in columns]
        for name in ("method", *names):
            table.add_column(name)
        for method, means in means_of.items():
            cells = [str(means[column]) for column in columns]
            table.add_row(Text(method), *cells)
            pairs = [f"{name} {cell}" for name, cell in zip(names, cells, strict=True)]
            blocks.append(_block(Text(method, style="bold"), *pairs))
        return Fitting(table, blocks)
    first = columns[0]
    order = sorted(means_of, key=lambda method: -_value(means_of[method][first]))
    best = means_of[order[0]][first]
    level = [name for name in order[1:] if _value(means_of[name][first]) >= best.low]
    verdict = Text.assemble(
        ("verdict  ", "bold green"),
        f"highest in {heading(*first)}: {order[0]}, {best} (95 % interval)",
    )
    if level:
        verdict.append(f"; within its interval too: {', '.join(level)}")
    tables: list[RenderableType] = [verdict]
    for start in range(0, len(columns), COLUMNS):
        part = columns[start : start + COLUMNS]
        table = _table()
        table.add_column("method", overflow="fold")
        for column in part:
            table.add_column(heading(*column), no_wrap=True, justify="right")
        for method in order:
            cells = [_short(means_of[method][column]) for column in part]
            table.add_row(Text(method), *cells)
        tables += [Text(""), table]
    return Group(*tables)


def _value(mean: Mean) -> float:
    return mean.value if mean.count else -np.inf


def _short(mean: Mean) -> str:
    """A mean with half of its interval; a dash where no photo has a value."""
    return f"{mean.value:.3f} ±{(mean.high - mean.low) / 2:.3f}" if mean.count else "—"


def check_lines(
    checks: Iterable[tuple[str, Sequence[str]]], notes: Sequence[str] = ()
) -> list[RichText]:
    """One line per check, its faults below it; then the notes."""
    lines: list[RichText] = []
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
        command = Text(f"  {findings.command}", style="bold", no_wrap=True, overflow="ignore")
        lines += [Text("use:"), command]  # in one piece: it is to be copied
    for title, found in (("installation", findings.installation), ("model", findings.model)):
        if found:
            table = Table(box=None, pad_edge=False, show_header=False)
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for name, text in found.items():
                table.add_row(Text(f"  {name}"), Text(text))
            lines += [Text(title, style="bold"), table]
    if findings.trials:
        table = _table()
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


class _PlainConsole(Console):
    """A console that obeys nothing in the texts that it prints: names come from files."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield Segment(harmless(segment.text, lines=True), *segment[1:])


def plain_console(width: int | None = None) -> Console:
    """A console for texts without markup, in which control characters are shown."""
    return _PlainConsole(highlight=False, markup=False, emoji=False, width=width)


def show(*renderables: Any) -> None:
    """Print to standard output; tables keep their full width where it is not a terminal."""
    console = plain_console()
    if not console.is_terminal:
        console = plain_console(width=1000)
    for renderable in renderables:
        with console.capture() as captured:
            console.print(renderable, crop=False)
        for line in captured.get().splitlines():
            console.file.write(line.rstrip() + "\n")
