"""One Explainer from many threads, in forked and spawned processes, copied and pickled."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import picture, resnet
from numpy.typing import NDArray

import lrp_onnx
from lrp_onnx import Explainer, Explanation
from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import (
    ContractError,
    ImageError,
    ModelFileError,
    ProviderError,
    UnsupportedModelError,
)
from lrp_onnx.runtime import images
from lrp_onnx.runtime.ahead import ahead
from lrp_onnx.runtime.bound import Bound
from lrp_onnx.runtime.preprocess import parse_preprocessing
from lrp_onnx.runtime.session import Session, Tuning
from lrp_onnx.runtime.shared import Shared

THREADS = 8
SECONDS = 60
"""After which a process counts as hanging."""
SAMPLES = sorted((Path(__file__).parents[2] / "models" / "samples").glob("*.png"))
Arrays = dict[str, NDArray[Any]]

forks = pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be forked here")
# Python warns of just that which is tested: a fork beside threads.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled file whose runs take long enough to meet."""
    return written(tmp_path_factory.mktemp("large"), size=(96, 96))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled file that takes a class and a start."""
    return written(tmp_path_factory.mktemp("one"))


def written(folder: Path, size: tuple[int, int] = (32, 32), **choices: Any) -> Path:
    onnx.save(resnet(size=size), folder / "model.onnx")
    choices = {
        "composite": "lrp-resnet",
        "preprocessing": parse_preprocessing("zero-one"),
    } | choices
    return compile_model(folder / "model.onnx", **choices).save(folder / "model.lrp.onnx")


def opened(path: Path | bytes, **how: Any) -> Explainer:
    return Explainer(path, **{"provider": "cpu", "threads": 1, **how})


def batch(size: int = 1, seed: int = 0) -> NDArray[np.float32]:
    return picture(resnet(size=(32, 32)), batch=size, seed=seed)


def together(works: list[Callable[[], Any]]) -> list[Any]:
    """What every piece of work gives, done by eight threads that begin at once."""
    ready = threading.Barrier(THREADS)
    parts: list[list[Any]] = [[] for _ in range(THREADS)]

    def run(thread: int) -> None:
        ready.wait(SECONDS)
        parts[thread].extend(work() for work in works[thread::THREADS])

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(run, range(THREADS)))
    return [parts[n % THREADS][n // THREADS] for n in range(len(works))]


def assert_same(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def told(one: Explanation) -> dict[str, Any]:
    """All that an explanation says but how long it took."""
    known = {name: getattr(one, name) for name in one.__dataclass_fields__ if name != "seconds"}
    return {name: np.asarray(value) for name, value in known.items() if name != "box"}


# Threads.


def test_eight_threads_get_what_one_gets(compiled: Path) -> None:
    """Batches of three sizes, classes, and starts of their own: other shapes of other inputs."""
    explainer = opened(compiled)
    works: list[Callable[[], Arrays]] = []
    for seed in range(72):
        size = 1 + seed % 3
        start = np.eye(10, dtype=np.float32)[[seed % 10]] if seed % 4 == 0 else None
        target = None if seed % 5 == 0 else [(seed + n) % 10 for n in range(size)]
        works.append(partial(explainer.explain, batch(size, seed), target=target, start=start))
    assert_same(together(works), [work() for work in works])


def test_eight_threads_with_inputs_of_one_shape(large: Path) -> None:
    explainer = opened(large)
    works = [
        partial(explainer.explain, picture(resnet(size=(96, 96)), seed=seed), target=seed % 10)
        for seed in range(64)
    ]
    assert_same(together([*works]), [work() for work in works])


def test_eight_threads_of_many_targets(tmp_path: Path) -> None:
    explainer = opened(written(tmp_path, many_targets=True))
    works = [
        partial(explainer.explain, batch(1, seed), target=[(seed + n) % 10 for n in range(count)])
        for seed in range(24)
        for count in (1, 3)
    ]
    assert_same(together([*works]), [work() for work in works])


def test_eight_threads_with_pictures(compiled: Path) -> None:
    """Explanations name the picture and the class that were asked for."""
    explainer = opened(compiled)
    works: list[Callable[[], Any]] = [
        partial(explainer, [path, SAMPLES[0]], target=target, batch_size=size)
        for path in SAMPLES
        for target in (None, 2, 7)
        for size in (1, 2)
    ]
    many, one = together(works), [work() for work in works]
    for few, expected in zip(many, one, strict=True):
        assert_same(map(told, few), map(told, expected))


def test_runs_overlap_unless_cuda_graphs_forbid_it(
    compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that do have buffers of their own."""
    inside: list[Bound] = []
    most, usual = [0], Bound.run

    def run(bound: Bound, feeds: Any) -> Arrays:
        assert bound not in inside
        inside.append(bound)
        most[0] = max(most[0], len(inside))
        time.sleep(0.05)
        inside.remove(bound)
        return usual(bound, feeds)

    monkeypatch.setattr(Bound, "run", run)
    for tuning, expected in ((Tuning(), True), (Tuning(cuda_graph=True), False)):
        explainer, most[0] = opened(compiled, tuning=tuning), 0
        together([partial(explainer.explain, batch())] * 16)
        assert (most[0] > 1) is expected


def test_buffers_are_as_many_as_runs_at_once(
    compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, usual = [], Bound.__init__

    def count(self: Bound, *given: Any) -> None:
        made.append(self)
        usual(self, *given)

    monkeypatch.setattr(Bound, "__init__", count)
    explainer = opened(compiled)
    for seed in range(4):
        explainer.explain(batch(1, seed))
    assert len(made) == 1
    together([partial(explainer.explain, batch())] * 80)
    assert len(made) <= THREADS


def test_a_run_that_fails_takes_nothing_with_it(compiled: Path) -> None:
    explainer = opened(compiled)
    expected = explainer.explain(batch())
    with pytest.raises(ImageError):
        explainer.explain(batch()[:, :, :5])
    assert_same([explainer.explain(batch())], [expected])


def test_eight_threads_compile_the_same_bytes(tmp_path: Path) -> None:
    onnx.save(resnet(size=(32, 32)), tmp_path / "model.onnx")
    works = [partial(compile_model, tmp_path / "model.onnx")] * THREADS
    found = {made.model.SerializeToString() for made in together([*works])}
    assert found == {works[0]().model.SerializeToString()}


# Copies.


@pytest.mark.parametrize("again", [copy.deepcopy, lambda e: pickle.loads(dumped(e))])
def test_copies_are_equal_and_open_once(
    again: Callable[[Explainer], Explainer], compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy opens a session when it is first used, one for all threads."""
    explainer = opened(compiled, classes=[f"class {n}" for n in range(10)])
    expected = explainer(SAMPLES[0], target="class 3")
    other, openings, usual = again(explainer), [], Shared._opened_again

    def count(shared: Shared) -> Session:
        openings.append(shared)
        return usual(shared)

    monkeypatch.setattr(Shared, "_opened_again", count)
    assert not openings
    found = together([partial(other, SAMPLES[0], target="class 3")] * THREADS)
    assert len(openings) == 1 and other.session is not explainer.session
    assert_same(map(told, found), [told(expected)] * THREADS)
    assert (other.contract, other.labels, other.preprocessing, other.sources) == (
        explainer.contract,
        explainer.labels,
        explainer.preprocessing,
        explainer.sources,
    )


def dumped(value: Any) -> bytes:
    return pickle.dumps(value)


def test_an_explainer_is_pickled_by_path_or_with_its_bytes(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = compiled.stat().st_size
    with_bytes = dumped(opened(compiled.read_bytes()))
    assert len(with_bytes) - len(dumped(opened(compiled))) > 0.9 * size
    whole = dumped(Explainer(compiled.with_name("model.onnx"), composite="lrp-resnet"))
    assert len(whole) > compiled.with_name("model.onnx").stat().st_size

    monkeypatch.chdir(compiled.parent)
    relative = dumped(opened(Path(compiled.name)))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(relative).explain(batch())["heatmap"].shape == (1, 32, 32)


def test_a_copy_of_a_file_that_has_changed(tmp_path: Path) -> None:
    path = written(tmp_path)
    there = dumped(opened(path))
    path.unlink()
    (tmp_path / "model.onnx").unlink()
    written(tmp_path, composite="lrp-epsilon")
    with pytest.raises(ContractError, match="has changed since"):
        pickle.loads(there).explain(batch())
    path.unlink()
    with pytest.raises(ModelFileError, match=path.name):
        pickle.loads(there).explain(batch())


# Forked processes.


def forked(work: Callable[[], Any]) -> Any:
    """What `work` gives in a process that is forked here, or its error."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def run() -> None:
        try:
            there.send(work())
        except Exception as error:
            there.send(error)

    process = context.Process(target=run)
    process.start()
    try:
        assert here.poll(SECONDS), "the forked process hangs"
        return here.recv()
    finally:
        process.kill()
        process.join()


@forks
@pytest.mark.parametrize("threads", [1, 4])
def test_an_explainer_in_a_forked_process(threads: int, compiled: Path) -> None:
    """Used before and after, by one thread and by eight, and again in a process forked there."""
    explainer = opened(compiled, threads=threads)
    work = partial(explainer.explain, batch())
    expected, session = work(), explainer.session
    assert_same([forked(work)], [expected])
    assert_same(forked(lambda: together([work] * THREADS)), [expected] * THREADS)
    assert_same([forked(lambda: forked(work))], [expected])
    assert forked(lambda: explainer.session is session) is False
    assert explainer.session is session
    assert_same([work()], [expected])


@forks
def test_an_explainer_is_given_up_in_a_forked_process(compiled: Path) -> None:
    """ONNX Runtime would wait for threads that are not there."""
    explainers = [opened(compiled, threads=4)]
    explainers[0].explain(batch())
    assert forked(lambda: explainers.clear() or len(explainers)) == 0


@forks
def test_forked_while_other_threads_run_and_read(compiled: Path) -> None:
    explainer = opened(compiled)
    expected, stop = explainer(SAMPLES[0]), threading.Event()

    def busy() -> None:
        while not stop.is_set():
            list(explainer.explain_images(SAMPLES, batch_size=1))

    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(busy)
        try:
            for _ in range(5):
                assert_same([told(forked(partial(explainer, SAMPLES[0])))], [told(expected)])
        finally:
            stop.set()


@forks
def test_forked_while_a_lock_is_held(compiled: Path) -> None:
    """As if another thread were decoding a picture, and another opening a session."""
    explainer = opened(compiled)
    with images._quiet._lock, explainer._shared._opening:
        assert isinstance(forked(partial(explainer, SAMPLES[0])), Explanation)


@forks
def test_forked_while_a_picture_is_decoded() -> None:
    """As if another thread were: that one is not in the new process, and OpenCV speaks again."""
    before = images._log.getLogLevel()

    def found() -> tuple[int, int]:
        return images._quiet._inside, images._log.getLogLevel()

    with images._quiet:
        assert found() == (1, images.SILENT)
        assert forked(found) == (0, before)
    assert found() == (0, before)


@forks
def test_results_that_were_begun_before_a_fork() -> None:
    results: Iterator[int] = ahead([lambda n=n: n for n in range(9)])
    assert next(results) == 0
    error = forked(lambda: next(results))
    assert isinstance(error, RuntimeError) and "begin again there" in str(error)
    assert list(results) == list(range(1, 9))


@forks
def test_cuda_is_refused_in_a_forked_process() -> None:
    class Runtime:
        def get_modelmeta(self) -> Any:
            return self

        custom_metadata_map: dict[str, str] = {}  # noqa: RUF012

    session = Session(Runtime(), "cuda")
    shared = Shared(session, again=lambda: session)
    error = forked(lambda: shared.session)
    assert isinstance(error, ProviderError) and 'get_context("spawn")' in str(error)


# Other processes.


@pytest.fixture(scope="module")
def processes() -> Iterator[list[ProcessPoolExecutor]]:
    """One process of every kind that does not begin as a copy of this one."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context(method)))
            for method in multiprocessing.get_all_start_methods()
            if method != "fork"
        ]


def test_processes_that_begin_anew(processes: list[ProcessPoolExecutor], compiled: Path) -> None:
    explainer = opened(compiled)
    expected = [explainer(path) for path in SAMPLES]
    explain = partial(lrp_onnx.explain, compiled, provider="cpu", threads=1)
    runs = [
        pool.map(f, SAMPLES, timeout=SECONDS) for f in (explain, explainer) for pool in processes
    ]
    for run in runs:
        found = list(run)
        assert_same(map(told, found), map(told, expected))
        assert [one.path for one in found] == SAMPLES and type(found[0]) is Explanation
    assert len({os.getpid(), *(pool.submit(os.getpid).result() for pool in processes)}) > 1


def test_errors_come_back_from_processes(
    processes: list[ProcessPoolExecutor], tmp_path: Path
) -> None:
    """With all fields, and without breaking the pool."""
    net = resnet(size=(32, 32))
    net.graph.node[0].op_type = "NoSuchOperator"
    (tmp_path / "odd.onnx").write_bytes(net.SerializeToString())
    with pytest.raises(UnsupportedModelError) as here:
        lrp_onnx.explain(tmp_path / "odd.onnx", SAMPLES[0])
    for pool in processes:
        future = pool.submit(lrp_onnx.explain, tmp_path / "odd.onnx", SAMPLES[0])
        with pytest.raises(UnsupportedModelError) as there:
            future.result(SECONDS)
        assert str(there.value) == str(here.value)
        assert there.value.__dict__ == here.value.__dict__
        assert pool.submit(len, "pool").result(SECONDS) == 4
