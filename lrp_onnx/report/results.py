"""A folder of results: what lies in it, and how a run that was stopped goes on in it.

The folder's `RUN` says with which settings it was made, and which files are its own. Every picture
has its files first and then its lines in `LINES`, so that whatever a run leaves when it is stopped,
a later one knows what is done.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from lrp_onnx.errors import ImageError, OutputError, OutputExistsError, shown
from lrp_onnx.files.writing import append_line, check_folder, leftovers, make_folder, write_bytes
from lrp_onnx.report.names import stems_of

RUN, LINES, TABLE, SHEET = "run.json", "explanations.jsonl", "results.csv", "sheet.png"
REPORT = "report.html"
ENDS = (LINES, TABLE, SHEET, REPORT)
"""Files that are made of all results, at the end of a run."""
REMEDY = "give another -o/--output, or --force to start over"

Line = dict[str, Any]
"""One line of `LINES`: an explanation, or the ``error`` of a picture that cannot be read."""
Span = tuple[int, int]
"""Where a line begins and ends in `LINES`, in bytes."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of one explanation."""

    figure: Path
    """Shared by all explanations of a picture."""
    overlay: Path
    heatmap: Path
    values: Path

    @classmethod
    def of(cls, folder: Path, stem: str, number: int | None = None) -> Paths:
        """The files in `folder` of the picture whose names begin with `stem`, and of its
        explanation of this number.
        """
        one = stem if number is None else f"{stem}.{number}"
        return cls(
            folder / f"{stem}.figure.png",
            folder / f"{one}.overlay.png",
            folder / f"{one}.heatmap.png",
            folder / f"{one}.npz",
        )

    @property
    def names(self) -> dict[str, str]:
        """Kind of file → its name."""
        return {kind.name: getattr(self, kind.name).name for kind in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What `RUN` holds."""

    settings: Mapping[str, Any]
    """All that decides the results: name → value."""
    each: int
    """Explanations per picture; more than one are numbered from 1."""
    stems: Mapping[str, str]
    """Picture → what its files' names begin with."""
    finished: str = ""
    """What the files at the end were made from, beside the lines; empty while they are not made."""

    @classmethod
    def read(cls, folder: Path) -> _Run | None:
        """The run of a folder, or None where it has none.

        Raises:
            OutputError: `RUN` is damaged.
        """
        path = folder / RUN
        if not path.exists():
            return None
        try:
            run = cls(**json.loads(path.read_text(encoding="utf-8")))
            outside = [stem for stem in run.stems.values() if Path(stem).name != stem]
            if outside or not isinstance(run.settings, dict) or not isinstance(run.each, int):
                raise ValueError("it is not written by explain")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise OutputError(f"{path} cannot be read ({error}): {REMEDY}") from error
        return run

    def paths(self, folder: Path, picture: str) -> list[Paths]:
        """The files of a picture's explanations."""
        stem = self.stems[picture]
        if self.each == 1:
            return [Paths.of(folder, stem)]
        return [Paths.of(folder, stem, number + 1) for number in range(self.each)]


class Results:
    """The results of pictures in a folder; nothing is written before `begin`.

    Args:
        folder: where the results are, or will be.
        pictures: the pictures to explain, each once. Results of other pictures in the folder stay.
        settings: all that decides the results, name → value that JSON can hold.
        each: explanations per picture.
        force: start over: the folder's own results are removed, and files of others that are in
            the way are overwritten.

    Raises:
        OutputError: `folder` is a file or the name of one, or its `RUN` is damaged.
        OutputExistsError: the folder has results of other settings, or files of others are in the
            way, and `force` is not set.
    """

    def __init__(
        self,
        folder: Path,
        pictures: Sequence[Path],
        *,
        settings: Mapping[str, Any],
        each: int = 1,
        force: bool = False,
    ) -> None:
        check_folder(folder)
        self.folder, self.pictures = folder, list(pictures)
        self._opened = time.time_ns()
        self._stored: _Run | None = None
        """What `RUN` holds on disk, if that counts."""
        self._waiting: list[Line] = []
        """Lines of faults before `begin`."""
        self._begun = False
        self._written: set[str] = set()
        """Pictures whose lines this run has written."""
        settings = json.loads(json.dumps(settings))
        if force:
            self._old = _own_files(folder)
        else:
            self._old = []
            self._stored = _Run.read(folder)
            if self._stored is not None:
                _check_settings(folder, self._stored, settings)
        known = self._stored.stems if self._stored else {}
        stems = stems_of(self.pictures, known)
        self._run = _Run(settings=settings, each=each, stems={**known, **stems})
        if not force:
            self._check_free([picture for picture in stems if picture not in known])
        self._spans: dict[str, list[Span]] = {}
        self._end = 0
        if self._stored is not None:
            self._index()

    def _check_free(self, pictures: Iterable[str]) -> None:
        """Raise OutputExistsError where a file is in the way of the results of `pictures`."""
        paths = [
            path
            for picture in pictures
            for paths in self._run.paths(self.folder, picture)
            for path in (self.folder / name for name in paths.names.values())
        ]
        if self._stored is None:
            paths += [self.folder / name for name in ENDS]
        existing = [path for path in paths if path.exists()]
        if existing:
            raise OutputExistsError(
                f"{existing[0]} and {len(existing) - 1} other results exist: give another "
                "-o/--output, or --force to overwrite them"
            )

    def _index(self) -> None:
        """Find the last lines of every picture. Damaged ones, and what follows the last end of a
        line, do not count.
        """
        self._spans, self._end = {}, 0
        path = self.folder / LINES
        if not path.exists():
            return
        faulty: set[str] = set()
        with path.open("rb") as file:
            for text in file:
                if not text.endswith(b"\n"):
                    break
                span = (self._end, self._end + len(text))
                self._end = span[1]
                line = _parsed(text)
                if line is None:
                    continue
                image = line["image"]
                spans = self._spans.get(image, [])
                if "error" in line or image in faulty:
                    spans = []
                (faulty.add if "error" in line else faulty.discard)(image)
                self._spans[image] = [*spans, span][-self._run.each :]

    @cached_property
    def missing(self) -> frozenset[Path]:
        """The pictures without results, or with those of another content."""
        return frozenset(picture for picture in self.pictures if not self._has(picture))

    @property
    def done(self) -> int:
        """How many of the pictures have their lines in the folder as it is now."""
        self._index()
        there = [picture for picture in self.pictures if str(picture) in self._spans]
        return sum(
            picture not in self.missing or str(picture) in self._written for picture in there
        )

    @property
    def is_begun(self) -> bool:
        """Whether the folder holds the run."""
        return self._stored is not None

    def is_finished(self, key: str, ends: Sequence[str] = ENDS) -> bool:
        """Whether nothing is missing, and `ends`, files at the end, are made from `key` too."""
        made = self._stored is not None and self._stored.finished == key
        there = all((self.folder / name).exists() for name in ends)
        return made and there and not self.missing and self._is_tidy()

    def paths(self, picture: Path) -> list[Paths]:
        """The files of a picture's explanations."""
        return self._run.paths(self.folder, str(picture))

    def stored(self, picture: Path | str) -> list[Line]:
        """The lines of a picture."""
        spans = self._spans.get(str(picture))
        return [json.loads(text) for text in self._texts(spans)] if spans else []

    def lines(self) -> Iterator[Line]:
        """All lines, in the order of the file."""
        for image in self._spans:
            yield from self.stored(image)

    @property
    def others(self) -> list[str]:
        """The pictures of earlier runs in the folder that are not among this run's."""
        own = {str(picture) for picture in self.pictures}
        return [image for image in self._spans if image not in own]

    def is_unchanged(self, line: Line) -> bool:
        """Whether a picture is there and has the content that its line tells of."""
        return line["sha256"] is not None and line["sha256"] == _checksum(Path(line["image"]))

    def begin(self) -> None:
        """Make the folder ready for results: what it is goes first."""
        if self._begun:
            return
        self._begun = True
        make_folder(self.folder)
        for path in self._old:
            path.unlink(missing_ok=True)
        self._save(self._run)
        lines = self.folder / LINES
        if lines.exists() and lines.stat().st_size > self._end:
            with lines.open("r+b") as file:
                file.truncate(self._end)
        for line in self._waiting:
            self._append([line])

    def add(self, picture: Path, lines: Sequence[Line]) -> list[Line]:
        """Append the lines of a picture whose files are written; returns them as they are stored.

        A picture that was changed after the run began has no checksum: what was explained is not
        known, and a later run explains it again.

        Raises:
            OutputError: they cannot be written.
        """
        checksum = _checksum(picture, before=self._opened)
        stored = [{**line, "sha256": checksum} for line in lines]
        self._append(stored)
        return stored

    def add_fault(self, picture: Path, fault: ImageError) -> list[Line]:
        """Append the line of a picture that cannot be read; returns it.

        Such lines wait for the first explanation: where there is none, nothing is written.
        """
        checksum = _checksum(picture, before=self._opened)
        line = {"image": str(picture), "error": str(fault), "sha256": checksum}
        if self._begun or self._stored is not None:
            self.begin()
            self._append([line])
        else:
            self._waiting.append(line)
        return [line]

    def put_in_order(self) -> None:
        """Sort the lines: this run's pictures in their order, then what the folder has of others.

        Raises:
            OutputError: they cannot be written.
        """
        self._index()  # another run may have appended to the same file
        own = {str(picture): None for picture in self.pictures}
        others = [image for image in self._spans if image not in own and self._has_files(image)]
        order = [image for image in (*own, *others) if image in self._spans]
        spans = [span for image in order for span in self._spans[image]]
        joined = all(first[1] == second[0] for first, second in pairwise(spans))
        whole = joined and spans and spans[0][0] == 0 and spans[-1][1] == self._end
        if not whole or not self._is_tidy():
            write_bytes(self.folder / LINES, self._texts(spans), force=True)
        self._index()

    def _is_tidy(self) -> bool:
        """Whether `LINES` holds the lines that count, and nothing else."""
        counted = sum(end - start for spans in self._spans.values() for start, end in spans)
        return (self.folder / LINES).stat().st_size == counted

    def finish(self, key: str) -> None:
        """Note that the files at the end are made from the lines and `key`.

        Raises:
            OutputError: it cannot be written, or results have gone since they were written.
        """
        gone = sum(not self._has_results(str(picture)) for picture in self.pictures)
        if gone:
            raise OutputError(f"{gone} results were removed from {self.folder} during the run")
        for path in leftovers(self.folder, _names(self._run)):
            path.unlink(missing_ok=True)
        self._save(replace(self._run, finished=key))

    def _save(self, run: _Run) -> None:
        if run != self._stored:
            text = json.dumps(asdict(run), indent=1)
            write_bytes(self.folder / RUN, text.encode(), force=True)
            self._stored = run

    def _append(self, lines: Sequence[Line]) -> None:
        texts = [json.dumps(line) for line in lines]
        append_line(self.folder / LINES, "\n".join(texts))
        spans = []
        for text in texts:
            spans.append((self._end, self._end + len(text) + 1))
            self._end = spans[-1][1]
        self._spans[lines[0]["image"]] = spans
        self._written.add(lines[0]["image"])

    def _texts(self, spans: Iterable[Span]) -> Iterator[bytes]:
        with (self.folder / LINES).open("rb") as file:
            for start, end in spans:
                file.seek(start)
                yield file.read(end - start)

    def _has(self, picture: Path) -> bool:
        lines = self.stored(picture)
        if lines and "error" in lines[0]:
            return bool(lines[0]["sha256"] == _checksum(picture))
        return self._has_files(str(picture)) and self.is_unchanged(lines[0])

    def _has_results(self, image: str) -> bool:
        """Whether a picture's files are there, or the line that says why it has none."""
        lines = self.stored(image)
        return bool(lines and "error" in lines[0]) or self._has_files(image)

    def _has_files(self, image: str) -> bool:
        """Whether all explanations of a picture are there, with their files, whole."""
        lines = self.stored(image)
        names = [name for line in lines for name in line.get("files", {}).values()]
        there = all(_is_whole(self.folder / name) for name in names)
        return bool(names) and len(lines) == self._run.each and there


LAST = {".png": b"IEND\xaeB`\x82", ".npz": b"PK\x05\x06"}
"""What stands in the last 22 bytes of a file that is whole."""


def _is_whole(path: Path) -> bool:
    """Whether a file of results is there to its end; after a power cut it may be cut, or zeros."""
    try:
        with path.open("rb") as file:
            file.seek(-22, os.SEEK_END)
            return LAST.get(path.suffix, b"") in file.read()
    except OSError:
        return False


def stored_lines(folder: Path) -> Iterator[Line]:
    """The lines of a folder of results, those of one picture together.

    Raises:
        OutputError: there are no results in the folder, or its `RUN` is damaged.
    """
    run = _Run.read(folder) if folder.is_dir() else None
    if run is None:
        found = "holds no results" if folder.is_dir() else "is no folder of results"
        raise OutputError(f"{shown(folder)} {found} of lrp-onnx explain: name its -o/--output")
    return Results(folder, [], settings=run.settings, each=run.each).lines()


KEYS = frozenset({"target", "top5", "output", "start", "composite", "post", "box", "files"})
"""What every line of an explanation has."""


def _parsed(text: bytes) -> Line | None:
    """A line of `LINES`, or None where it is damaged."""
    try:
        line = json.loads(text)
        files = line.get("files", {}).values()
        whole = isinstance(line["image"], str) and ("error" in line or line.keys() >= KEYS)
        plain = all(Path(name).name == name for name in files)
        return line if whole and plain and "sha256" in line else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def without_results(pictures: Sequence[Path]) -> list[Path]:
    """The pictures that are not themselves results of a run in their folder."""
    own = {folder: _own_files(folder) for folder in {picture.parent for picture in pictures}}
    results = {path for paths in own.values() for path in paths}
    return [picture for picture in pictures if picture not in results]


def _own_files(folder: Path) -> list[Path]:
    """The files in a folder that its `RUN` and its lines list; nothing outside it."""
    try:
        run = _Run.read(folder)
    except OutputError:
        run = None
    if run is None:
        return []
    names = _names(run)
    lines = folder / LINES
    for text in lines.read_bytes().splitlines() if lines.is_file() else []:
        names.update((_parsed(text) or {}).get("files", {}).values())
    files = [folder / name for name in sorted(names - {RUN}) if (folder / name).is_file()]
    return files + leftovers(folder, names)


def _names(run: _Run) -> set[str]:
    """The names of all files of a run."""
    paths = [paths for picture in run.stems for paths in run.paths(Path(), picture)]
    return {RUN, *ENDS}.union(*(each.names.values() for each in paths))


def _check_settings(folder: Path, run: _Run, settings: Mapping[str, Any]) -> None:
    """Raise OutputExistsError unless a folder's results have these settings."""
    there = run.settings
    differing = [n for n in {**there, **settings} if there.get(n) != settings.get(n)]
    if differing:
        said = "; ".join(_difference(n, there.get(n), settings.get(n)) for n in differing)
        raise OutputExistsError(f"{folder} holds results of other settings: {said}: {REMEDY}")


def _difference(name: str, there: Any, here: Any) -> str:
    """``name: 1 there, 2 here``; of two lists the first place that differs."""
    if isinstance(there, list) and isinstance(here, list):
        if len(there) != len(here):
            return f"{name}: {len(there)} there, {len(here)} here"
        place = next(i for i, pair in enumerate(zip(there, here, strict=True)) if len({*pair}) > 1)
        name, there, here = f"{name} {place}", there[place], here[place]
    return f"{name}: {_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    text = "not given" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _checksum(picture: Path, *, before: int | None = None) -> str | None:
    """SHA-256 of a file in hexadecimal; None where it cannot be read, or was changed after
    `before`, in nanoseconds since 1970.
    """
    try:
        if not picture.is_file():  # a pipe would never end
            return None
        with picture.open("rb") as file:
            if before is not None and os.fstat(file.fileno()).st_ctime_ns >= before:
                return None
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
