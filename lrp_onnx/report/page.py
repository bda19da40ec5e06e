"""The HTML report: one file with all photos of a run, that needs no network and no other file.

write_page("report.html", Run.of(explainer, model), entries)
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from io import SEEK_END
from itertools import chain
from pathlib import Path
from string import Template
from tempfile import SpooledTemporaryFile, gettempdir
from weakref import finalize

import numpy as np

from lrp_onnx.errors import OutputError
from lrp_onnx.files.writing import check_writable, write_bytes
from lrp_onnx.report.card import card, colors_over_photo, json_text
from lrp_onnx.report.entry import Entry, Failed, Run
from lrp_onnx.report.render import STYLE
from lrp_onnx.report.words import STARTS, class_name, color_name, markup

NAME = "report.html"
"""The report's usual name."""
STOPS = 16
"""Steps of each half of the colour bar."""
GROUND = 64
"""The grey behind the colour bar: that of a dimmed photo."""
LOOK = 40
"""Which colour from the end of either side gives the side its name."""
IN_MEMORY, AT_ONCE = 4_000_000, 1_000_000
"""Bytes of pictures that wait in memory, and that are copied at once."""
TINY = 1e-6
"""A start below this gives no share of relevance."""


def write_page(
    path: str | Path,
    run: Run,
    entries: Iterable[Entry | Failed],
    *,
    full_size: bool = False,
    force: bool = False,
) -> Path:
    """Write the report of a run, atomically.

    Args:
        path: the file to write.
        run: what was done.
        entries: the photos and the pictures that failed, in order. They are taken one at a time,
            and only their small pictures are kept.
        full_size: photos of up to 1600 pixels a side instead of 480.
        force: whether an existing file is overwritten.

    Returns:
        `path`.

    Raises:
        OutputExistsError: the file exists and `force` is not set; before any entry is taken.
        OutputError: it cannot be written.
        ValueError: a photo or a map is not a valid array.
    """
    check_writable(Path(path), force=force)
    page = Page(full_size=full_size)
    for entry in entries:
        page.add(entry)
    return page.write(path, run, force=force)


class Page:
    """A report that grows photo by photo; only their small pictures are kept, the most of them in
    a temporary file.

    Args:
        full_size: photos of up to 1600 pixels a side instead of 480.
    """

    def __init__(self, *, full_size: bool = False) -> None:
        self._full_size = full_size
        self._cards = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        finalize(self, self._cards.close)
        self._tally = _Tally()

    def add(self, entry: Entry | Failed) -> None:
        """Add a photo, or a picture that failed.

        Raises:
            OutputError: there is no room for its pictures.
            ValueError: a photo or a map is not a valid array.
        """
        if isinstance(entry, Failed):
            self._tally.failed.append(entry)
            return
        text = card(entry, self._tally.photos, full_size=self._full_size).encode()
        try:
            self._cards.seek(0, SEEK_END)
            self._cards.write(text)
        except OSError as error:
            raise OutputError(
                "the pictures of the HTML report cannot be kept in "
                f"{gettempdir()}: {error.strerror or error}; set TMPDIR to another folder, or give "
                "--report none"
            ) from error
        self._tally.add(entry)

    def write(self, path: str | Path, run: Run, *, force: bool = False) -> Path:
        """Write what was added so far, atomically, and return `path`.

        Raises:
            OutputExistsError: the file exists and `force` is not set.
            OutputError: it cannot be written.
        """
        head, tail = _around(run, self._tally)
        self._cards.seek(0)
        cards = iter(partial(self._cards.read, AT_ONCE), b"")
        return write_bytes(Path(path), chain([head], cards, [tail]), force=force)


@dataclass(slots=True)
class _Tally:
    """What is counted over all photos."""

    photos: int = 0
    right: int = 0
    labelled: int = 0
    several: bool = False
    regions: bool = False
    names: dict[int, str] = field(default_factory=dict)
    said: Counter[int] = field(default_factory=Counter)
    true: Counter[int] = field(default_factory=Counter)
    arrived: list[float] = field(default_factory=list)
    """Σ relevance / start of every map where both are known."""
    failed: list[Failed] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        self.photos += 1
        self.several |= len(entry.maps) > 1
        self.regions |= any(shown.region is not None for shown in entry.maps)
        index, name, _ = entry.top5[0]
        self.said[index] += 1
        self.names[index] = class_name(index, name)
        if entry.label is not None:
            self.labelled += 1
            self.right += bool(entry.right)
            self.true[entry.label] += 1
            self.names.setdefault(entry.label, class_name(entry.label, entry.label_name))
        for shown in entry.maps:
            start = shown.start_value
            if shown.sums is not None and start is not None and abs(start) > TINY:
                self.arrived.append(shown.sums["all"] / start)


def _around(run: Run, tally: _Tally) -> tuple[bytes, bytes]:
    """The page before and after the photos."""
    style, script = _asset("page.css"), _asset("page.js")
    colors = colors_over_photo()
    page = Template(_asset("page.html")).substitute(
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        settings=json_text({"colors": b64encode(colors.tobytes()).decode()}),
        color_for=color_name(colors[-LOOK]).capitalize(),
        color_against=color_name(colors[LOOK - 1]),
        opacity=round(STYLE.opacity * 100),
        model=markup(run.model),
        summary=_summary(tally),
        notes=_notes(run.notes),
        bars=_bars(),
        classes=_classes(tally),
        labelled="" if tally.labelled else " hidden",
        several="" if tally.several else " hidden",
        regions="" if tally.regions else " hidden",
        cards="\0",
        failed=_failed(tally.failed),
        done=_done(run),
        conservation=_conservation(run, tally.arrived),
    )
    head, tail = page.split("\0")
    return head.encode(), tail.encode()


def _asset(name: str) -> str:
    return files("lrp_onnx.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The text's hash as a Content-Security-Policy writes it."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _photos(count: int) -> str:
    return f"{count} photo" if count == 1 else f"{count} photos"


def _summary(tally: _Tally) -> str:
    """One sentence of counts."""
    parts = [_photos(tally.photos)]
    if tally.labelled:
        share = tally.right / tally.labelled
        of = "" if tally.labelled == tally.photos else f" of {tally.labelled} with a true class"
        parts.append(f"{tally.right} right{of} ({share:.1%})")
    if tally.failed:
        parts.append(f'<a href="#failed">{len(tally.failed)} could not be explained</a>')
    return ", ".join(parts)


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{markup(note)}</li>" for note in notes)
    return (
        f'<section class="notes" aria-labelledby="notes"><h2 id="notes">Read this first</h2>'
        f"<ul>{items}</ul></section>"
    )


def _bars() -> str:
    """The colours as gradients and as bars for ``use``: of both signs, and of relevance for."""
    colors = colors_over_photo().astype(np.float64)
    opacity = colors[:, 3:] / 255 * STYLE.opacity
    seen = np.rint(opacity * colors[:, :3] + (1 - opacity) * GROUND).astype(np.int64)
    middle = len(seen) // 2
    bars = []
    for name, first in (("both", 0), ("for", middle)):
        places = np.linspace(first, len(seen) - 1, STOPS + 1)
        stops = "".join(
            f'<stop offset="{index / STOPS:.4g}" stop-color="rgb({red},{green},{blue})"/>'
            for index, (red, green, blue) in enumerate(seen[np.rint(places).astype(np.int64)])
        )
        bars.append(
            f'<linearGradient id="colors-{name}">{stops}</linearGradient>'
            f'<rect id="bar-{name}" width="100" height="8" fill="url(#colors-{name})"/>'
        )
    return "".join(bars)


def _classes(tally: _Tally) -> str:
    """The options of the choice of a class: as the model says, and as it is."""
    groups = []
    for title, letter, counts in (
        ("The model says", "says", tally.said),
        ("It is", "is", tally.true),
    ):
        options = "".join(
            f'<option value="{letter} {index}">{markup(tally.names[index])} ({count})</option>'
            for index, count in sorted(counts.items(), key=lambda item: tally.names[item[0]])
        )
        groups.append(f'<optgroup label="{title}">{options}</optgroup>' if counts else "")
    return "".join(groups)


def _failed(failed: Sequence[Failed]) -> str:
    if not failed:
        return ""
    rows = "".join(
        f'<tr><th scope="row"><bdi>{markup(each.name)}</bdi></th>'
        f"<td>{markup(each.reason)}</td></tr>"
        for each in failed
    )
    return (
        '<section aria-labelledby="failed"><h2 id="failed">Pictures that could not be explained'
        '</h2><table class="facts"><thead><tr><th scope="col">Picture</th>'
        f'<th scope="col">Reason</th></tr></thead><tbody>{rows}</tbody></table></section>'
    )


def _done(run: Run) -> str:
    """What was done, as a list of terms; what is not known is left out."""
    start = STARTS.get(run.start, run.start)
    facts = {
        "Model": markup(run.model),
        "SHA-256 of the file": f"<code>{markup(run.sha256)}</code>" if run.sha256 else "",
        "Method": _two(run.composite, run.composite_in_words),
        "Rules": _listed(run.rules),
        "Relevance starts from": markup(start),
        "Relevance stops at": markup(run.resolution),
        "Post-processing": "none" if run.post == "none" else _code(run.post),
        "Colours show": markup(run.shown),
        "Preparation of pictures": markup(run.preprocessing),
        "Preparation known from": markup(run.preprocessing_from),
        "Class names from": markup(run.classes_from),
        "Ran on": markup(run.provider),
        "Versions": markup(", ".join(f"{name} {number}" for name, number in run.versions.items())),
        "When": markup(run.when),
        "Command": _code(run.command),
    }
    return "".join(f"<dt>{name}</dt><dd>{fact}</dd>" for name, fact in facts.items() if fact)


def _code(text: str) -> str:
    return f"<code>{markup(text)}</code>" if text else ""


def _two(name: str, words: str) -> str:
    """A name, and what it means if that is known."""
    return f"{_code(name)}: {markup(words)}" if name and words else _code(name) or markup(words)


def _listed(words: Mapping[str, str]) -> str:
    items = "".join(f"<li>{_two(name, text)}</li>" for name, text in words.items())
    return f"<ul>{items}</ul>" if items else ""


def _conservation(run: Run, arrived: Sequence[float]) -> str:
    """How much of the start arrived at the pixels, in a sentence, and the run's own figures."""
    sentences = []
    if arrived:
        low, middle, high = np.percentile(arrived, [0, 50, 100])
        of = "the map" if len(arrived) == 1 else f"{len(arrived)} maps"
        spread = "" if len(arrived) == 1 else f" (median; from {low:.1%} to {high:.1%})"
        sentences.append(
            f"<p>In this run <strong>{middle:.1%}</strong> of the relevance at the model's output "
            f"arrived in {of}{spread}.</p>"
        )
    elif not run.conservation:
        sentences.append("<p>This run does not tell how much relevance arrived.</p>")
    rows = "".join(
        f"<dt>{markup(name)}</dt><dd>{markup(value)}</dd>"
        for name, value in run.conservation.items()
    )
    return "".join(sentences) + (f"<dl>{rows}</dl>" if rows else "")
