"""Explaining pictures on a cluster, by Ray Data: a session in every actor of a pool."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from lrp_onnx.contract import Preprocessing
from lrp_onnx.deploy.parts import KEY, write_part
from lrp_onnx.deploy.rows import KEPT, Row, module, row_of, table_of
from lrp_onnx.errors import ContractError, ImageError, LrpOnnxError, first_line, shown
from lrp_onnx.files.models import SIZE_LIMIT, load_proto
from lrp_onnx.runtime.ahead import ahead
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.explanation import Explanation
from lrp_onnx.runtime.images import bytes_of, decoded_image, picture_bytes
from lrp_onnx.runtime.sources import ARRAY, BYTES, Source

MOST_ROWS, MOST_BYTES = 128, 32_000_000
"""A block has so many pictures at most, and so many bytes of maps before they are compressed."""
OPEN_SIDE = 256
"""What stands for a side of the model's input that its file leaves open."""
READERS = 1
"""CPUs that stay free for tasks that read."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to Ray's makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its processes' logs are no lines of ours
}
"""Variables of the environment for a cluster that is started here, where they are not set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The actors of a run, and what each takes of its machine."""

    actors: int | None = None
    """How many at most; None for as many as the cluster has room for."""
    cpus: float = 1
    """CPUs of an actor, and its threads."""
    gpus: float = 0
    """GPUs of an actor, or a share of one; 0 to run on the CPU."""
    batch: int = 8
    """Pictures of a run of the model."""
    block: int | None = None
    """Pictures of a task; None for a number whose maps fit memory, see `MOST_ROWS`."""

    def __post_init__(self) -> None:
        least = {"actors": self.actors, "batch": self.batch, "block": self.block}
        for name, value in least.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it is at least 1")
        if self.cpus < 0 or self.gpus < 0:
            raise ValueError("cpus and gpus are at least 0")

    def size(self) -> int:
        """The actors that the cluster has room for, at least 1."""
        if self.actors is not None:
            return self.actors
        there = module("ray").cluster_resources()
        rooms = [
            int(there.get(name, 0) / each)
            for name, each in (("CPU", self.cpus), ("GPU", self.gpus))
            if each
        ]
        return max(1, min(rooms, default=1))

    def beside_readers(self) -> Pool:
        """The pool with `READERS` CPUs left for tasks that read, without which actors wait for
        ever. Where there is no CPU left for an actor, it takes none for itself.
        """
        cpus = module("ray").cluster_resources().get("CPU", 0) - READERS
        if cpus < self.cpus:
            return replace(self, cpus=0, actors=self.actors if self.gpus else 1)
        most = int(cpus / self.cpus) if self.cpus else self.size()
        return replace(self, actors=min(self.size(), most))


DEFAULT_POOL = Pool()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What an actor is told."""

    model: Any
    """A compiled file: its path, its bytes or, for actors, a reference to them."""
    preprocessing: Preprocessing | None
    labels: Sequence[str]
    target: int | str | None
    keep: str
    provider: str
    threads: int
    batch: int
    into: Path | None = None
    """Where rows go; None where they are the result."""


def explain(
    dataset: Any,
    model: str | Path | bytes,
    *,
    target: int | str | None = None,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] = (),
    keep: str = "float32",
    pool: Pool = DEFAULT_POOL,
) -> Any:
    """Explain the pictures of a Ray dataset.

    Args:
        dataset: a ``ray.data.Dataset`` with the column ``bytes``, of picture files as
            ``ray.data.read_binary_files(…, include_paths=True)`` reads them, or ``path`` alone, of
            files that every machine can read.
        model: a compiled file.
        target: a class index or name for all pictures; None for the predicted class.
        preprocessing: how pictures become input; None for what the file says, else ImageNet's.
        labels: class names; empty for those that the file has.
        keep: how maps are kept: ``float32``, ``float16`` or ``none``.
        pool: the actors; a CPU of the cluster stays free for reading.

    Returns:
        A ``ray.data.Dataset`` of rows, one for every picture: see `rows.row_of`. A picture that
        cannot be read has the reason in its column ``error``. Nothing is computed before it is
        read or written.

    Raises:
        LrpOnnxError: Ray is not installed, or what `Explainer` raises of the model, the class
            names and the preprocessing; the target is not a class.
    """
    need_ray()
    job, rows = _prepared(model, target, preprocessing, labels, keep, pool)
    return _mapped(dataset, job, pool.beside_readers(), rows)


def explain_into(
    folder: Path,
    paths: Sequence[str],
    model: str | Path | bytes,
    *,
    target: int | str | None = None,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] = (),
    keep: str = "float32",
    pool: Pool = DEFAULT_POOL,
    address: str | None = None,
) -> Generator[Row]:
    """Explain files, and write their rows into a folder that every machine can write into.

    Args:
        folder: one that exists; it gets a Parquet file for every block, see `parts.write_part`.
        paths: pictures, each once; every machine can read them.
        model, target, preprocessing, labels, keep, pool: as for `explain`.
        address: the cluster, see `cluster`.

    Returns:
        ``path``, ``sha256`` and ``error`` of every picture, in any order, when its row is written.
        The cluster has no work before they are asked for.

    Raises:
        As `explain`; OutputError where a part cannot be written.
    """
    need_ray()
    job, rows = _prepared(model, target, preprocessing, labels, keep, pool)
    return _written(replace(job, into=folder.absolute()), list(paths), pool, rows, address)


def _written(
    job: _Job, paths: list[str], pool: Pool, rows: int, address: str | None
) -> Generator[Row]:
    ray, arrow = module("ray"), module("pyarrow")
    with cluster(address):
        if pool.block is None:  # several blocks for every actor: none waits long for another
            share = -(-len(paths) // (4 * pool.size()))
            rows = min(rows, -(-share // pool.batch) * pool.batch)
        starts = range(0, len(paths), rows)
        blocks = [arrow.table({"path": paths[first : first + rows]}) for first in starts]
        dataset = _mapped(ray.data.from_arrow(blocks), job, pool, rows)
        tables = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        try:
            for table in tables:
                yield from table.to_pylist()
        except ray.exceptions.RayError as error:
            raise _told(error) from error


def _prepared(
    model: str | Path | bytes,
    target: int | str | None,
    preprocessing: Preprocessing | None,
    labels: Sequence[str],
    keep: str,
    pool: Pool,
) -> tuple[_Job, int]:
    """What every actor is told, and the pictures of a block. Faults of the model and of the
    options show here, before the cluster has work.
    """
    if keep not in KEPT:
        raise ValueError(f"keep is one of {', '.join(KEPT)}; got {keep!r}")
    source = model if isinstance(model, bytes) else Path(model)
    # Only the CPU, and briefly: this machine may have no GPU, and explains nothing itself.
    explainer = Explainer(
        source, providers="cpu", threads=1, preprocessing=preprocessing, labels=labels
    )
    if explainer.contract.many_targets:
        raise ContractError(
            "a file compiled for many targets has several maps for a picture, and a row has one: "
            "compile it without --many-targets"
        )
    explainer.classes.indices(target, 1)
    if target is not None and explainer.contract.inputs == "none":
        raise ContractError(
            "this compiled file explains the predicted class only (--inputs none): "
            "compile it with --inputs target to ask for a class"
        )
    job = _Job(
        model=_whole(source),
        preprocessing=explainer.preprocessing if explainer.takes_pictures else None,
        labels=explainer.labels,
        target=target,
        keep=keep,
        provider="cuda" if pool.gpus else "cpu",
        threads=max(1, int(pool.cpus)),
        batch=pool.batch,
    )
    if pool.block is not None:
        return job, pool.block
    _, shape = explainer.session.input_of(explainer.contract.input)
    outside = (0, explainer.contract.layout.index("C"))
    sides = [size for axis, size in enumerate(shape) if axis not in outside]
    values = prod(side if isinstance(side, int) else OPEN_SIDE for side in sides)
    fitting = min(MOST_ROWS, MOST_BYTES // (4 * values))
    return job, max(fitting // pool.batch * pool.batch, pool.batch)


def _whole(model: Path | bytes) -> Path | bytes:
    """The model's bytes with all of its weights; a file that is too large for that."""
    if isinstance(model, bytes):
        return model
    proto = load_proto(model)
    return model.absolute() if proto.ByteSize() > SIZE_LIMIT else proto.SerializeToString()


def _mapped(dataset: Any, job: _Job, pool: Pool, rows: int) -> Any:
    """The dataset of what the actors make of blocks of so many rows."""
    ray, size = module("ray"), pool.size()
    if isinstance(job.model, bytes):
        job = replace(job, model=ray.put(job.model))
    return dataset.map_batches(
        _Actor,
        fn_constructor_kwargs={"job": job},
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=size, initial_size=size),
        batch_size=rows,
        batch_format="pyarrow",
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
    )


_RAISED = re.compile(r"^([\w.]+(?:Error|Exception)): (.*)$", re.MULTILINE)
"""An error in the text of a traceback: all that Ray keeps of one in an actor."""


def _told(error: BaseException) -> LrpOnnxError:
    """What went wrong in an actor, as an error of ours."""
    raised = _RAISED.findall(str(error))
    if not raised:
        return LrpOnnxError(f"Ray gave up: {first_line(error)}")
    for kind, message in raised:  # what caused an error of ours comes before it
        if kind.startswith(f"{LrpOnnxError.__module__}."):
            return LrpOnnxError(message)
    kind, message = raised[0]
    return LrpOnnxError(f"an actor failed: {kind}: {message}")


def need_ray() -> None:
    """Check that Ray Data is installed.

    Raises:
        LrpOnnxError: it is not.
    """
    module("ray.data")
    module("pyarrow.parquet")


@contextmanager
def cluster(address: str | None = None) -> Iterator[None]:
    """A connection to a Ray cluster, for the block; one that there is already is kept.

    Args:
        address: as for ``ray.init``; None for the cluster of this machine, and a new one where
            there is none.

    Raises:
        LrpOnnxError: Ray is not installed, or no cluster answers.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    ray = module("ray")
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are told by us
    on_end = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # also of that class itself, where a part of Ray does not start
        raise LrpOnnxError(
            f"no Ray cluster answers at {address or 'this machine'} ({first_line(error)}): start "
            "one with `ray start --head`, or leave --address out"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_end)  # Ray's own handler ends the process where it stands
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A picture that an actor has read."""

    path: str
    sha256: str | None
    source: Source | None
    """None where there is a fault."""
    fault: str | None = None


class _Actor:
    """One session, and what it makes of blocks of pictures."""

    def __init__(self, job: _Job) -> None:
        model = job.model if isinstance(job.model, Path) else module("ray").get(job.model)
        self._job = job
        self._explainer = Explainer(
            model,
            providers=job.provider,
            threads=job.threads,
            preprocessing=job.preprocessing,
            labels=job.labels,
        )

    def __call__(self, block: Any) -> Any:
        """The table of a block's rows; where they are written, that of their keys."""
        table = table_of(list(self._rows(block)))
        if self._job.into is None:
            return table
        write_part(self._job.into, table)
        return table.select(list(KEY))

    def _rows(self, block: Any) -> Iterator[Row]:
        if not {"path", "bytes"} & set(block.column_names):
            raise ImageError(
                f"the dataset has the columns {', '.join(block.column_names)}: it needs 'bytes', "
                "as of ray.data.read_binary_files, or 'path'"
            )
        block = block.select([n for n in ("path", "bytes") if n in block.column_names])
        size = self._job.batch
        parts = (block.slice(first, size) for first in range(0, len(block), size))
        for batch in ahead(partial(self._load, part) for part in parts):
            sources = [one.source for one in batch if one.source is not None]
            # A batch with faults keeps its size: runtimes may round otherwise in another one.
            fill = sources[-1:] * (len(batch) - len(sources))
            found = iter(self._explained([*sources, *fill]))
            for one in batch:
                result = one.fault if one.source is None else next(found)
                if isinstance(result, Explanation):
                    yield row_of(result, path=one.path, sha256=one.sha256, keep=self._job.keep)
                else:
                    error = str(result).replace(ARRAY, shown(one.path), 1)
                    yield {"path": one.path, "sha256": one.sha256, "error": error}

    def _load(self, part: Any) -> list[_Loaded]:
        return [self._one(row.get("path"), row.get("bytes")) for row in part.to_pylist()]

    def _one(self, path: str | None, data: bytes | None) -> _Loaded:
        name = path or BYTES
        checksum = None
        try:
            if data is None:
                read = picture_bytes if self._explainer.takes_pictures else bytes_of
                data = read(Path(name))
            checksum = hashlib.sha256(data).hexdigest()
            if self._explainer.takes_pictures:
                return _Loaded(name, checksum, decoded_image(data, name))
            return _Loaded(name, checksum, Path(name))
        except ImageError as fault:
            return _Loaded(name, checksum, None, str(fault))

    def _explained(self, sources: Sequence[Source]) -> list[Explanation | str]:
        """The explanation of every source, or why there is none."""
        try:
            explanations = self._explainer.explain_images(
                sources, batch_size=self._job.batch, target=self._job.target
            )
            return list(explanations)
        except ImageError as fault:
            if len(sources) == 1:
                return [str(fault)]
            return [result for source in sources for result in self._explained([source])]
