"""What to say of a path where nothing is: what it was perhaps meant to be."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from lrp_onnx.errors import shown

ALIKE = 0.7
"""How alike names must be, from 0 to 1, to be mistaken for each other."""


def advice(path: Path) -> str:
    """What to add to the name of a missing file, in brackets and after a space; "" without any.

    Names a file of nearly the same name, or the folder that does not exist, or the backslashes of
    another system's path.
    """
    if "\\" in str(path) and os.sep == "/":
        return " (here a path is written with / instead of \\)"
    folder = path.parent
    try:
        if not folder.is_dir():
            return f" (there is no folder {shown(folder)})"
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, 1, ALIKE)
    return f" (did you mean {shown(folder / near[0])}?)" if near else ""
