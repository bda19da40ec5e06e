"""What interrupts a command: signals, full disks, closed pipes, files that never end. One line, the
right exit status, and results that the same command goes on with.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from lrp_onnx.errors import OutputError
from lrp_onnx.files.writing import held_folder

EMBEDDED = Path(__file__).parents[2] / "models"
MODEL, SAMPLE = EMBEDDED / "shapes-resnet.onnx", EMBEDDED / "samples" / "star.png"
COMMAND = [sys.executable, "-m", "lrp_onnx"]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(16):
        shutil.copy(SAMPLE, folder / f"{index:02}.png")
    return folder


def names(folder: Path) -> list[str]:
    lines = (folder / "explanations.jsonl").read_text().splitlines()
    return [Path(json.loads(line)["image"]).name for line in lines]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_that_the_same_command_goes_on_with(
    number: signal.Signals, photos: Path, tmp_path: Path
) -> None:
    arguments = ["explain", MODEL, photos, "-o", tmp_path / "out", "--batch", 1, "--report", "none"]
    command = [*COMMAND, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    default = partial(signal.signal, number, signal.SIG_DFL)  # tests that run aside ignore some
    with subprocess.Popen(command, preexec_fn=default, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    done = names(tmp_path / "out")
    assert 0 < len(done) < 16
    last = said.splitlines()[-1]
    assert last == f"Stopped. {len(done)} of 16 pictures are done: the same command goes on"
    assert "Traceback" not in said
    assert run(*arguments, stdout=subprocess.DEVNULL).returncode == 0
    after = names(tmp_path / "out")
    assert after[: len(done)] == done
    assert sorted(after) == sorted(path.name for path in photos.iterdir())


def test_who_reads_the_results_may_have_enough(photos: Path, tmp_path: Path) -> None:
    arguments = ["explain", MODEL, photos, "-o", tmp_path / "out", "--batch", 1, "--report", "none"]
    read, write = os.pipe()
    os.close(read)
    result = run(*arguments, stdout=write)
    os.close(write)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "the same command goes on" in result.stderr


@needs_full
@pytest.mark.parametrize("command", [["composites"], ["plan", MODEL, "--json"], ["guide"]])
def test_standard_output_on_a_full_disk(command: list[object]) -> None:
    with FULL.open("w") as full:
        result = run(*command, stdout=full)
    assert result.returncode == 1
    assert result.stderr == "Error: standard output: No space left on device\n"


ENDLESS = {
    "model": ["plan", "{pipe}"],
    "compiled model": ["verify", "{pipe}"],
    "picture": ["explain", MODEL, "{pipe}"],
    "labels": ["explain", MODEL, SAMPLE, "--labels", "{pipe}"],
    "class names": ["explain", MODEL, SAMPLE, "--classes", "{pipe}"],
    "rules": ["plan", MODEL, "--rules", "{pipe}"],
}


@pytest.mark.parametrize("case", ENDLESS)
def test_pipes_are_not_waited_for(case: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    arguments = [str(argument).format(pipe=pipe) for argument in ENDLESS[case]]
    result = run(*arguments, cwd=tmp_path, stdout=subprocess.PIPE)
    assert result.returncode == 1 and result.stdout == ""
    assert f"{pipe}" in result.stderr and "it is a pipe or a device" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["plan", "compile", "verify"])
@pytest.mark.parametrize("name", ["/", ".", "", "n" * 300])
def test_names_that_no_model_has(command: str, name: str, tmp_path: Path) -> None:
    result = run(command, name, cwd=tmp_path, stdout=subprocess.PIPE)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("Error: ") and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["explain", "evaluate"])
def test_two_runs_into_one_folder(command: str, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    output = tmp_path / "new" / "out"
    with held_folder(output):
        result = run(command, MODEL, photos, "-o", output, stdout=subprocess.PIPE)
        assert result.returncode == 1 and result.stdout == ""
        assert f"another run writes into {output}" in result.stderr
        assert list(output.iterdir()) == []
    assert not output.parent.exists()


def test_a_folder_is_free_after_a_run_that_was_killed(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    program = (
        "import sys; from pathlib import Path; from lrp_onnx.files.writing import held_folder\n"
        "with held_folder(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(OutputError, match="another run"), held_folder(tmp_path / "out"):
            pass
        process.kill()
    with held_folder(tmp_path / "out"):
        (tmp_path / "out" / "result").write_text("")
    assert (tmp_path / "out" / "result").exists()
