"""The folder of a bulk run: the settings, and in `PARTS` Parquet files, each of some pictures.

A part's name comes from its pictures' paths and contents. So a task that is repeated, as after the
loss of a machine, writes the same file again, and nothing is there twice.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrp_onnx.deploy.rows import module, parquet_of
from lrp_onnx.errors import OutputError, OutputExistsError, first_line
from lrp_onnx.files.writing import make_folder, write_bytes

RUN, PARTS = "run.json", "parts"
"""The file of the settings and the folder of the parts. Parquet's readers take whole folders, and
stumble over other files in them.
"""
PATTERN = "part-*.parquet"
REMEDY = "give another -o/--output, or --force to start over"
KEY = ("path", "sha256", "error")
"""The columns that tell what is done."""


@dataclass(frozen=True, slots=True)
class Done:
    """A picture that has a row."""

    path: str
    sha256: str | None
    """None where the file could not be read."""
    error: str | None
    part: str
    """The name of the file that has the row."""


def write_part(folder: Path, table: Any) -> Path:
    """Write the rows of a table as one part, atomically.

    Raises:
        OutputError: it cannot be written.
    """
    pictures = table.select(["path", "sha256"]).to_pylist()
    name = hashlib.sha256(json.dumps(pictures).encode()).hexdigest()[:24]
    return write_bytes(folder / f"part-{name}.parquet", parquet_of(table), force=True)


def parts_of(folder: Path) -> list[Path]:
    """The parts in a folder, sorted."""
    return sorted(folder.glob(PATTERN))


def done_in(folder: Path) -> Iterator[Done]:
    """The pictures that have rows; a picture may come several times.

    Raises:
        OutputError: a part is damaged.
    """
    for part in parts_of(folder):
        for row in _read(part, KEY).to_pylist():
            yield Done(row["path"], row["sha256"], row["error"], part.name)


def _read(part: Path, columns: Collection[str] | None = None) -> Any:
    pq, arrow = module("pyarrow.parquet"), module("pyarrow")
    try:
        names = None if columns is None else list(columns)
        return pq.read_table(io.BytesIO(part.read_bytes()), columns=names)
    except (OSError, arrow.ArrowException) as error:
        raise OutputError(
            f"{part} cannot be read ({first_line(error)}): remove it, and the same command makes "
            "it anew"
        ) from error


def drop(folder: Path, rows: Iterable[Done]) -> None:
    """Remove rows: their parts are written anew without them.

    Raises:
        OutputError: a part is damaged or cannot be written.
    """
    by_part: dict[str, set[tuple[str, str | None]]] = {}
    for row in rows:
        by_part.setdefault(row.part, set()).add((row.path, row.sha256))
    for name, gone in by_part.items():
        table = _read(folder / name)
        keys = table.select(["path", "sha256"]).to_pylist()
        kept = [(key["path"], key["sha256"]) not in gone for key in keys]
        if any(kept):
            write_part(folder, table.filter(module("pyarrow").array(kept)))
        (folder / name).unlink()


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Check that a folder is free for rows of these settings, or has rows of the same.

    Args:
        folder: of the run.
        settings: all that decides the results, name → value for JSON.

    Raises:
        OutputExistsError: it has parts of other settings, or of no known ones.
        OutputError: `RUN` is damaged.
    """
    path = folder / RUN
    if not path.exists():
        if parts_of(folder / PARTS):
            raise OutputExistsError(f"{folder} has parts, but no {RUN}: {REMEDY}")
        return
    here = _plain(settings)
    try:
        there = json.loads(path.read_text(encoding="utf-8"))["bulk"]
        names = dict.fromkeys((*there, *here))
        differing = [name for name in names if there.get(name) != here.get(name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{path} is not a file of bulk ({first_line(error)}): {REMEDY}"
        ) from error
    if differing:
        said = "; ".join(
            f"{name}: {_short(there.get(name))} there, {_short(here.get(name))} here"
            for name in differing
        )
        raise OutputExistsError(f"{folder} holds results of other settings: {said}: {REMEDY}")


def begin(folder: Path, settings: Mapping[str, Any], *, force: bool) -> None:
    """Make a folder ready for rows of these settings.

    Args:
        folder: of the run.
        settings: as for `check_settings`.
        force: whether its parts are removed, to start over.

    Raises:
        OutputError: a file cannot be written.
    """
    parts = folder / PARTS
    make_folder(parts)
    if force:
        for part in parts_of(parts):
            part.unlink()
    tidy(parts)
    text = json.dumps({"bulk": _plain(settings)}, indent=1)
    write_bytes(folder / RUN, text.encode(), force=True)


def tidy(folder: Path) -> None:
    """Remove the temporary files of parts, which processes leave that are killed."""
    for path in folder.glob(f".{PATTERN}.*"):
        path.unlink(missing_ok=True)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back."""
    return dict(json.loads(json.dumps(settings)))


def _short(value: Any) -> str:
    text = "not given" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
