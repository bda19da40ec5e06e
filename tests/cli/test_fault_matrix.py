"""A thin part of the fault matrix (``python -m tools.faults.matrix``), and what it rests on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from lrp_onnx.cli.isolation import Stopped
from lrp_onnx.cli.usage import ended_by_signals
from lrp_onnx.errors import OutputError
from lrp_onnx.files.writing import append_line, leftovers, remove_leftovers, write_bytes
from lrp_onnx.report.results import KEYS, Results
from tools.faults.cells import JOBS, Undisturbed
from tools.faults.faults import FAULTS, Fault
from tools.faults.matrix import table, try_fault

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits and signals of POSIX")
COMMAND = [sys.executable, "-m", "lrp_onnx"]


def fault(name: str) -> Fault:
    (found,) = (fault for fault in FAULTS if fault.name == name)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Undisturbed]:
    known: dict[str, Undisturbed] = {}

    def of(name: str) -> Undisturbed:
        if name not in known:
            known[name] = Undisturbed.of(JOBS[name], tmp_path_factory.mktemp(name), runs=1)
        return known[name]

    return of


@pytest.mark.parametrize(
    "name, command, place",
    [
        ("SIGINT", "explain", None),
        ("disk full", "explain", 2),
        ("kept results damaged", "evaluate", 0),
        ("kept results damaged", "evaluate", 1),
        ("disk full", "compile", 3),
    ],
)
def test_a_fault_and_the_same_command_again(
    name: str,
    command: str,
    place: int | None,
    undisturbed: Callable[[str], Undisturbed],
    tmp_path: Path,
) -> None:
    """SIGINT comes at another time in every run of the tests; the message has it."""
    chosen = fault(name)
    if reason := chosen.needs():
        pytest.skip(reason)
    expected = undisturbed(command)
    values = chosen.values(JOBS[command], expected, Random())
    value = Random().choice(values) if place is None else values[place]
    outcome = try_fault(chosen, value, JOBS[command], expected, tmp_path / "cell")
    assert not outcome.wrong, outcome


def test_the_matrix_can_fail(tmp_path: Path) -> None:
    """A cell is wrong where the exit status is, or where files are not as undisturbed."""
    job = JOBS["compile"]
    expected = Undisturbed({"model.lrp.onnx": b""}, "", 1.0, 0, 0, tmp_path)
    outcome = try_fault(fault("standard output closed"), None, job, expected, tmp_path / "cell")
    assert outcome.wrong == ("not as undisturbed: model.lrp.onnx",)
    assert "| standard output closed | 1: exit 0, 1 kept, 1 WRONG |" in table([outcome], {})


def test_what_does_not_fit_a_disk_is_not_appended(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    append_line(lines, "1234")
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from lrp_onnx.files.writing import append_line\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8))\n"
        "append_line(Path(sys.argv[1]), '567890')"
    )
    ended = subprocess.run([sys.executable, "-c", program, lines], capture_output=True, text=True)
    assert "OutputError" in ended.stderr and "File too large" in ended.stderr
    assert lines.read_text() == "1234\n"


def test_temporary_files_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    stale = tmp_path / ".model.onnx.abcd1234"
    other = tmp_path / ".other.onnx.abcd1234"
    stale.write_text("")
    other.write_text("")
    seen = []

    def parts() -> Iterator[bytes]:
        yield b"who"
        seen.extend(leftovers(tmp_path, {"model.onnx"}))
        remove_leftovers(model)  # as another process does: what this one writes is held
        yield b"le"

    write_bytes(model, parts())
    assert model.read_bytes() == b"whole" and len(seen) == 2 and stale in seen
    assert sorted(tmp_path.iterdir()) == [other, model]
    stale.write_text("")
    remove_leftovers(model)
    assert sorted(tmp_path.iterdir()) == [other, model]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_signal_counts(name: str) -> None:
    number = getattr(signal, name)
    before = {each: signal.getsignal(each) for each in (2, 15, 1)}
    try:
        with pytest.raises(Stopped) as caught, ended_by_signals():
            os.kill(os.getpid(), number)
            time.sleep(1)
        assert caught.value.number == number
        os.kill(os.getpid(), signal.SIGINT)  # while it ends
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_signals_that_are_ignored_stay_so_and_others_return() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with ended_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGINT) is not interrupt
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        signal.signal(signal.SIGHUP, before)
    with ended_by_signals():
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(_in_a_thread()))
        thread.start()
        thread.join()
    assert found == ["done"]


def _in_a_thread() -> str:
    with ended_by_signals():
        return "done"


def test_too_little_memory_for_the_libraries() -> None:
    command = ["bash", "-c", 'ulimit -v 400000; exec "$@"', "bash", *COMMAND, "composites"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr == (
        "Error: this process may have 409 MB (ulimit -v), and the libraries that it loads need "
        "700 MB at least: give more memory\n"
    )


def test_results_that_vanish_are_no_success(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"photo")
    results = Results(tmp_path / "out", [photo], settings={})
    results.begin()
    names = results.paths(photo)[0].names
    for name in names.values():
        ending = b"IEND\xaeB`\x82" if name.endswith(".png") else b"PK\x05\x06".ljust(22)
        (tmp_path / "out" / name).write_bytes(bytes(40) + ending)
    results.add(photo, [dict.fromkeys(KEYS) | {"image": str(photo), "files": names}])
    assert results.done == 1
    results.put_in_order()
    values = tmp_path / "out" / names["values"]
    for damaged in (values.read_bytes()[:-30], bytes(60), b""):
        values.write_bytes(damaged)
        assert Results(tmp_path / "out", [photo], settings={}).missing == {photo}
    values.unlink()
    with pytest.raises(OutputError, match=r"1 results were removed from .*out during the run"):
        results.finish("key")
    (tmp_path / "out" / "explanations.jsonl").unlink()
    assert results.done == 0
