"""Names of results: readable, different for every picture, and the same in every run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

LONGEST = 180
"""Bytes of a result's name without its ending; longer names lose their beginning."""


def stems_of(pictures: Sequence[Path], known: Mapping[str, str]) -> dict[str, str]:
    """What the names of every picture's files begin with.

    Args:
        pictures: the pictures.
        known: picture → what is used already, which stays so.

    Returns:
        Picture → its name without its ending, after the names of the folders that not all pictures
        share, joined by ``__``; with its ending where two were equal; with a number where that is
        not enough.
    """
    resolved = {folder: folder.resolve().parts for folder in {p.parent for p in pictures}}
    folders = [resolved[picture.parent] for picture in pictures]
    same = takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    shared = sum(1 for _ in same)
    for ending in (False, True):
        names = [
            _harmless("__".join([*parts[shared:], picture.name if ending else picture.stem]))
            for parts, picture in zip(folders, pictures, strict=True)
        ]
        if len({name.casefold() for name in names}) == len(names):
            break
    used = {stem.casefold() for stem in known.values()}
    stems = {}
    for picture, name in zip(map(str, pictures), names, strict=True):
        stem, number = known.get(picture, name), 2
        while picture not in known and stem.casefold() in used:
            stem, number = f"{name}-{number}", number + 1
        used.add(stem.casefold())
        stems[picture] = stem
    return stems


_SPECIAL = frozenset('<>:"/\\|?*')
"""Characters that no name of a file has on Windows."""
_DEVICE = re.compile(r"^(con|prn|aux|nul|(com|lpt)[0-9¹²³])(?=\.|$)", re.IGNORECASE)
"""What a file's name does not begin with on Windows."""


def _harmless(name: str) -> str:
    """A name that every file system takes: results are sent to others."""
    visible = "".join(c if c.isprintable() and c not in _SPECIAL else "_" for c in name)
    visible = _DEVICE.sub(r"\1_", visible, count=1)
    return visible.encode()[-LONGEST:].decode(errors="ignore")
