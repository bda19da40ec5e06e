"""The `guide` command: the guides that travel with the package, in the terminal."""

from __future__ import annotations

import re
from importlib.resources import files

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, TableElement
from rich.table import Table

from lrp_onnx.errors import RuleError
from lrp_onnx.notation import suggestion

WIDTH = 120
"""Columns of a guide in a wide terminal, for lines that can be read."""
FEW = 5
"""Columns of a table that has room for names in one piece."""
_COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
"""Marks for tests and for tools that write tables."""


class WholeNames(TableElement):
    """A table that loses no letter: one of `FEW` columns has its names, the first, in one piece."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in super().__rich_console__(console, options):
            if isinstance(part, Table):
                part.columns[0].no_wrap = len(part.columns) <= FEW
                for column in part.columns:
                    column.overflow = "fold"
            yield part


class Guide(Markdown):
    """A guide as Markdown for the terminal."""

    elements = Markdown.elements | {"table_open": WholeNames}


def guides() -> dict[str, str]:
    """Topic → what the guide is about, its first heading; in alphabetical order."""
    paths = (files("lrp_onnx") / "guides").iterdir()
    texts = {path.name: path.read_text(encoding="utf-8") for path in paths}
    return {
        name.removesuffix(".md"): text.partition("\n")[0].removeprefix("# ")
        for name, text in sorted(texts.items())
        if name.endswith(".md")
    }


def guide_text(topic: str) -> str:
    """A guide as Markdown.

    Raises:
        RuleError: there is no guide of that name.
    """
    known = guides()
    if topic not in known:
        raise RuleError(
            f"there is no guide {topic!r}: {suggestion(topic, known)}"
            " (`lrp-onnx guide` lists them all)"
        )
    path = files("lrp_onnx") / "guides" / f"{topic}.md"
    return _COMMENT.sub("", path.read_text(encoding="utf-8"))


def show_guide(topic: str | None, *, raw: bool) -> None:
    """Print the guide `topic`, or all topics.

    Args:
        topic: name of a guide; None for the list.
        raw: print Markdown as it is stored, as always where the output is not a terminal.

    Raises:
        RuleError: there is no guide of that name.
    """
    console = Console(highlight=False)
    if topic is None:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True, style="bold")
        for name, title in guides().items():
            table.add_row(name, title)
        console.print(table)
        console.print("\nRead one: lrp-onnx guide TOPIC")
    elif raw or not console.is_terminal:
        console.file.write(guide_text(topic))
    else:
        console.print(Guide(guide_text(topic)), width=min(console.width, WIDTH))
