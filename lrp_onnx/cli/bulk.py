"""The `bulk` command: thousands of pictures on a Ray cluster, into a folder of Parquet files."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrp_onnx.cli.given import refuse_settled, run_settings
from lrp_onnx.cli.progress import Progress
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.contract import HEATMAP_RAW, is_compiled
from lrp_onnx.deploy.parts import PARTS, Done, begin, check_settings, done_in, drop, tidy
from lrp_onnx.deploy.ray import Pool, explain_into, need_ray
from lrp_onnx.deploy.rows import Row
from lrp_onnx.errors import ImageError, LrpOnnxError, going_on, shown, what_goes_on
from lrp_onnx.files.models import metadata_of
from lrp_onnx.files.writing import check_folder, held_folder
from lrp_onnx.runtime.classes import class_of
from lrp_onnx.runtime.images import bytes_of, find_images

NAMED = 5
"""Pictures that cannot be read are named up to this number; the rows name all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkCommand:
    """The values of the command line."""

    model: Path
    sources: Sequence[str]
    output: Path
    options: Options
    without_effect: Sequence[str] = ()
    """Options that were given and that a compiled file cannot follow."""
    recursive: bool = False
    target: str | None = None
    keep: str = "float32"
    address: str | None = None
    actors: int | None = None
    cpus: float = 1
    gpus: float = 0
    batch: int = 8
    block: int | None = None
    force: bool = False

    @property
    def parts(self) -> Path:
        """Where the Parquet files go."""
        return self.output / PARTS

    @property
    def pool(self) -> Pool:
        """The actors."""
        return Pool(
            actors=self.actors,
            cpus=self.cpus,
            gpus=self.gpus,
            batch=self.batch,
            block=self.block,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a folder has of the pictures of a run."""

    output: Path
    explained: int
    """Pictures with an explanation."""
    before: int
    """Pictures that earlier runs have done."""
    failed: tuple[str, ...]
    """Pictures that cannot be read, sorted."""

    @property
    def sentence(self) -> str:
        """The counts, for a reader."""
        earlier = f" ({self.before} by earlier runs)" if self.before else ""
        return f"{self.explained} explained{earlier}, {len(self.failed)} failed: {self.output}"

    @property
    def fault(self) -> str:
        """Which pictures cannot be read; empty where all can."""
        if not self.failed:
            return ""
        names = ", ".join(Path(path).name for path in self.failed[:NAMED])
        more = len(self.failed) - NAMED
        others = f" and {more} others" if more > 0 else ""
        return (
            f"{self.explained} explained, {len(self.failed)} could not be read: {names}{others}; "
            "their rows say why, in the column error"
        )

    def to_json(self) -> dict[str, Any]:
        """The counts, for programs."""
        return {
            "output": str(self.output),
            "explained": self.explained,
            "failed": len(self.failed),
            "earlier": self.before,
        }


def explain_in_bulk(command: BulkCommand, *, report: Callable[[str], None]) -> Counts:
    """Explain what the folder lacks, on a cluster.

    Raises:
        LrpOnnxError: an option, the model or the output is at fault, or Ray is not installed.
    """
    need_ray()
    # A model that cannot be read is told before the pictures are.
    if is_compiled(metadata_of(command.model)):
        refuse_settled(command.model, command.without_effect)
    pictures = _pictures(command)
    check_folder(command.output)
    # Ray prints what it has to say of its machines: standard output is for results.
    with held_folder(command.output), redirect_stdout(sys.stderr):
        return _explain_missing(command, pictures, report)


def _explain_missing(
    command: BulkCommand, pictures: Sequence[str], report: Callable[[str], None]
) -> Counts:
    """As `explain_in_bulk`, in a folder that this run alone writes into."""
    settings = _settings(command)
    there: dict[str, Done] = {}
    old: list[Done] = []
    if not command.force:
        check_settings(command.output, settings)
        there, old = _stored(command.parts, pictures)
    missing = [picture for picture in pictures if picture not in there]
    if missing:
        rows = _rows(command, missing)  # faults of the options show before anything is written
        begin(command.output, settings, force=command.force)
        drop(command.parts, old)
        if there:
            report(f"{len(there)} of {len(pictures)} pictures are done already: going on")
        with (
            going_on(
                lambda: _rows_in(command, pictures),
                len(pictures),
                "pictures are done",
                force=command.force,
            ),
            Progress(len(pictures), done=len(there), report=report) as progress,
            closing(rows),
        ):
            for _ in rows:
                progress.step()
    return _counted(command, pictures, before=len(there))


def _pictures(command: BulkCommand) -> list[str]:
    """The pictures to explain, as every machine finds them."""
    paths = find_images(command.sources, recursive=command.recursive)
    names = [str(path.absolute()) for path in paths]
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ImageError(
                f"the name {shown(name)} is not UTF-8, and Parquet keeps no others: rename it"
            ) from error
    return names


def _rows(command: BulkCommand, missing: Sequence[str]) -> Generator[Row]:
    """The keys of the rows of pictures, as they are written."""
    model, labels = command.model, command.options.labels
    if is_compiled(metadata_of(model)):
        compiled: Path | bytes = model
    else:
        outputs = tuple(dict.fromkeys((*command.options.given, HEATMAP_RAW)))
        options = replace(command.options, outputs=outputs)
        compiled = compile_model(model, options).model.SerializeToString()
        labels = ()  # they are in the compiled file
    return explain_into(
        command.parts,
        missing,
        compiled,
        target=None if command.target is None else class_of(command.target),
        preprocessing=command.options.preprocessing,
        labels=labels,
        keep=command.keep,
        pool=command.pool,
        address=command.address,
    )


def _stored(folder: Path, pictures: Sequence[str]) -> tuple[dict[str, Done], list[Done]]:
    """The rows of the pictures' present contents, path → row; and those to remove: of other
    contents, of files that could not be read, or there twice.
    """
    wanted = set(pictures)
    rows = [row for row in done_in(folder) if row.path in wanted]
    with ThreadPoolExecutor() as pool:
        contents = pool.map(_checksum, [row.path for row in rows])
        known = list(zip(rows, contents, strict=True))
    kept: dict[str, Done] = {}
    old = []
    for row, content in known:
        if content is not None and row.sha256 == content and row.path not in kept:
            kept[row.path] = row
        else:
            old.append(row)
    return kept, old


def _rows_in(command: BulkCommand, pictures: Sequence[str]) -> int:
    """How many of the pictures have a row, once no actor works any more."""
    tidy(command.parts)
    return len({row.path for row in done_in(command.parts)} & set(pictures))


def _checksum(path: str) -> str | None:
    """SHA-256 of a file in hexadecimal; None where it cannot be read."""
    try:
        return hashlib.sha256(bytes_of(Path(path))).hexdigest()
    except ImageError:
        return None


def _counted(command: BulkCommand, pictures: Sequence[str], *, before: int) -> Counts:
    """What the folder has of the pictures: one row of each.

    Raises:
        LrpOnnxError: rows are missing.
    """
    wanted, twice = set(pictures), []
    rows: dict[str, Done] = {}
    for row in done_in(command.parts):
        if row.path in rows:
            twice.append(row)
        elif row.path in wanted:
            rows[row.path] = row
    drop(command.parts, twice)
    if lacking := wanted - rows.keys():
        raise LrpOnnxError(
            f"{len(lacking)} pictures have no row in {command.parts}: "
            f"{what_goes_on(force=command.force)}"
        )
    failed = sorted(path for path, row in rows.items() if row.error is not None)
    return Counts(
        output=command.output,
        explained=len(rows) - len(failed),
        before=before,
        failed=tuple(failed),
    )


def _settings(command: BulkCommand) -> dict[str, Any]:
    return run_settings(
        command.model,
        command.options,
        {"target": command.target, "map": command.keep},
        without=("many_targets", "randomize", "seed", "outputs"),
    )
