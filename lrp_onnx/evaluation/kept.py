"""Maps on disk while an evaluation runs, so that one that was stopped does not make them again."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import OutputError
from lrp_onnx.files.writing import make_folder, write_bytes

Values = Sequence[dict[str, Any]]
"""Metric → value of every photo, for the metrics that are computed with the maps."""


PART, SLOW = 8, 1.0
"""Pictures of a part of a method's maps; seconds that make it worth keeping."""
Run = Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float32]]
"""(pictures (N, …), class to explain of each (N,)) → maps (N, H, W) float32."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The maps of unfinished results, in a folder beside the results file."""

    results: Path | None
    """The results file; None keeps nothing."""
    key: str
    """What the maps depend on, as text: those of another key are not taken."""

    @property
    def folder(self) -> Path | None:
        return self.results and _folder_of(self.results)

    def save(
        self, method: str, photos: Sequence[str], maps: NDArray[np.float32], values: Values
    ) -> None:
        """Keep a method's maps (N, H, W) and values of `photos`.

        Raises:
            OutputError: they cannot be written.
        """
        if self.folder is None:
            return
        self._make(self.folder)
        photos, values = list(photos), list(values)
        said = json.dumps({"key": self.key, "method": method, "photos": photos, "values": values})
        file = io.BytesIO()
        np.savez_compressed(file, maps=maps, said=np.array(said))
        write_bytes(self._path(self.folder, method), file.getvalue(), force=True)

    def load(
        self, method: str, photos: Sequence[str], metrics: Sequence[str]
    ) -> tuple[NDArray[np.float32], Values] | None:
        """Maps and values of `photos` with all of `metrics`, or None where some are missing."""
        if self.folder is None:
            return None
        try:
            data = io.BytesIO(self._path(self.folder, method).read_bytes())
            with np.load(data, allow_pickle=False) as file:
                maps, said = file["maps"], json.loads(str(file["said"]))
            places = {name: index for index, name in enumerate(said["photos"])}
            rows = [places[name] for name in photos]
            values = [said["values"][row] for row in rows]
            same = (said["key"], said["method"]) == (self.key, method)
            whole = same and len(maps) == len(places)
        except (OSError, ValueError, LookupError, TypeError, EOFError, BadZipFile, zlib.error):
            return None  # it is not there, or damaged: maps can be made again
        if not whole or any(set(metrics) - set(row) for row in values):
            return None
        return maps[rows], values

    def in_parts(self, method: str, run: Run) -> Run:
        """The function that makes a method's maps, in parts of `PART` pictures: those that take
        longer than `SLOW` are kept on disk, each alone, so that what was stopped inside a method
        goes on there.
        """
        folder = self.folder
        if folder is None:
            return run
        text = f"{self.key}\n{method}\n".encode()

        def part(x: NDArray[np.float32], t: NDArray[np.int64]) -> NDArray[np.float32]:
            digest = hashlib.sha256(text)
            digest.update(x.tobytes())
            digest.update(np.asarray(t).tobytes())
            path = folder / f"{digest.hexdigest()[:24]}.npy"
            try:
                known = np.load(path, allow_pickle=False)
                if known.dtype == np.float32 and known.ndim == 3 and len(known) == len(x):
                    return np.asarray(known)
            except (OSError, ValueError, EOFError):
                pass  # it is not there, or damaged: maps can be made again
            begun = time.monotonic()
            maps = run(x, t)
            if time.monotonic() - begun > SLOW:
                file = io.BytesIO()
                np.save(file, maps)
                self._make(folder)
                write_bytes(path, file.getvalue(), force=True)
            return maps

        def whole(x: NDArray[np.float32], t: NDArray[np.int64]) -> NDArray[np.float32]:
            starts = range(0, len(x), PART)
            return np.concatenate([part(x[i : i + PART], t[i : i + PART]) for i in starts])

        return whole

    @staticmethod
    def _make(folder: Path) -> None:
        """Create the folder, but not that of the results, which was there and is gone."""
        if not folder.parent.is_dir():
            raise OutputError(f"{folder} cannot be written: {folder.parent} was removed")
        make_folder(folder)

    @staticmethod
    def _path(folder: Path, method: str) -> Path:
        return folder / f"{hashlib.sha256(method.encode()).hexdigest()[:24]}.npz"


def forget(results: Path | None) -> None:
    """Remove all maps beside a results file, where they can be removed."""
    if results is not None:
        shutil.rmtree(_folder_of(results), ignore_errors=True)


def _folder_of(results: Path) -> Path:
    return results.with_name(f"{results.name}.maps")
