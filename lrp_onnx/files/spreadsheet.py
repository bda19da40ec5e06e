"""Lines of CSV files that a spreadsheet opens without computing anything, and a terminal shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from lrp_onnx.errors import shown

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What the text of a cell may not begin with: a spreadsheet would compute it."""


def csv_line(cells: Iterable[Any], *, end: str = "\r\n") -> str:
    """A line of a CSV file.

    Texts are written as in messages (see `errors.shown`), and begin with an apostrophe where a
    spreadsheet would take them for formulas.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerow([_harmless(cell) for cell in cells])
    return text.getvalue()


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    text = shown(cell)
    return f"'{text}" if text.startswith(FORMULA) else text
