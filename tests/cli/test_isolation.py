"""Native code that crashes, eats memory or never ends: one line, the right exit status, and nothing
left behind.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner

from lrp_onnx.cli.commands import main

MODEL = Path(__file__).parents[2] / "models" / "shapes-resnet.onnx"
COMMAND = [sys.executable, "-m", "lrp_onnx"]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")

PROGRAM = """
import ctypes, os, resource, signal, sys, time, types
sys.modules["lrp_onnx.files.budget"] = budget = types.ModuleType("budget")
budget.machine_memory = lambda: 1e9
import click
from lrp_onnx.cli import isolation, options, usage
from lrp_onnx.errors import ModelFileError
isolation.GRACE = 0.3
@click.group(cls=usage.Commands)
def main():
    pass
@main.command("compile")
@click.argument("model", type=options.PATH)
@click.option("--max-memory", type=float)
@click.option("-o", "--output", type=options.PATH)
@options.isolate_option
def compile_(model, max_memory, output):
    {body}
main()
"""
"""A light program whose one command does something else."""


def program(body: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(body=body), "compile", *map(str, arguments)]


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(command, text=True, timeout=60, **pipes)


CRASHES = {
    "ctypes.string_at(0)": "native code crashed (SIGSEGV) in string_at; ",
    "os.write(2, b'free(): \\x1b[31mno\\nmore\\n'); os.abort()": "native code crashed (SIGABRT: "
    r"free(): \x1b[31mno) in compile_; ",
    "os.kill(os.getpid(), signal.SIGKILL)": "the system ended the command (SIGKILL), mostly for "
    "lack of memory; ",
    "(output.parent / '.out.onnx.abcd0123').write_text('half'); ctypes.string_at(0)": "native code "
    "crashed (SIGSEGV) in string_at; ",
}


@pytest.mark.parametrize("body", CRASHES)
def test_a_crash_is_one_line(body: str, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    output.write_text("before")
    result = run(program(body, "model.onnx", "-o", output))
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith(f"Error: model.onnx: {CRASHES[body]}nothing was written. ")
    assert result.stderr.count("\n") == 1
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_what_was_written_before_a_crash_is_said(tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    result = run(program("output.write_text('x'); os.abort()", "model.onnx", "-o", output))
    assert f"; {output} was written. " in result.stderr


def test_no_empty_folder_is_left(tmp_path: Path) -> None:
    output = tmp_path / "new" / "out"
    run(program("output.mkdir(parents=True); os.abort()", "model.onnx", "-o", output))
    assert list(tmp_path.iterdir()) == []


def test_memory_is_limited() -> None:
    result = run(program("return [bytearray(10**8) for _ in range(20)]", "model.onnx"))
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("Error: out of memory") and result.stderr.count("\n") == 1
    body = "print(*resource.getrlimit(resource.RLIMIT_DATA), *resource.getrlimit(4))"
    for most in (3e9, 1e6):  # it bounds the graph, not the process
        given = run(program(body, "model.onnx", "--max-memory", most)).stdout.split()
        assert given == ["1000000000", "1000000000", "0", "0"]  # and no core is dumped


@pytest.mark.parametrize("deaf", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both(number: signal.Signals, deaf: bool) -> None:
    """Also where it comes twice, from the terminal and from the parent, and where native code does
    not hear it.
    """
    body = "signal.pthread_sigmask(signal.SIG_BLOCK, [2, 15]);" * deaf + (
        "print(os.getpid(), flush=True); time.sleep(30)"
    )
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = program(body, "model.onnx")
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert out == "" and "Traceback" not in err and "Error" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_closed_streams(tmp_path: Path) -> None:
    """The pipe to the parent then has the number of standard error."""
    output = tmp_path / "out"
    command = program(
        "kind = os.fstat(2).st_mode & 0o170000; output.write_text(oct(kind))", "model", "-o", output
    )
    done = run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command])
    assert done.returncode == 0 and output.read_text() == oct(stat.S_IFIFO)


def test_no_further_process() -> None:
    refuse = (
        "def fork(): raise BlockingIOError(11, 'Resource temporarily unavailable')\nos.fork = fork"
    )
    body = "print(signal.pthread_sigmask(signal.SIG_BLOCK, []), len(os.listdir('/dev/fd')))"
    command = program(body, "model.onnx")
    command[2] = command[2].replace("isolation.GRACE", f"{refuse}\nisolation.GRACE")
    same = run([*command, "--no-isolate"])
    result = run(command)
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout == same.stdout and result.stdout.startswith("set() ")
    wanted = run([*command, "--isolate"])
    assert wanted.returncode == 1 and wanted.stdout == ""
    assert wanted.stderr == (
        "Error: the system gives no process of its own (Resource temporarily unavailable): leave "
        "--isolate out\n"
    )


def test_further_signals_give_no_further_time() -> None:
    body = "signal.pthread_sigmask(signal.SIG_BLOCK, [2]); print(flush=True); time.sleep(5)"
    with subprocess.Popen(program(body, "model.onnx"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
    assert time.monotonic() - began < 3


@pytest.mark.skipif(sys.platform != "linux", reason="a system that does not end children")
def test_the_child_ends_with_its_parent() -> None:
    command = program("print(flush=True); time.sleep(30)", "model.onnx")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        process.kill()
        assert process.stdout.read() == ""  # at the end of the child, which has the pipe too
        assert time.monotonic() - began < 20


SAME = {
    "print('result'); os.write(2, b'\\x1bnative\\n'); return click.get_current_context().exit(3)": (
        3,
        "result\n",
        "\\x1bnative\n",
    ),
    "click.echo('a note', err=True); raise ModelFileError('it is not')": (
        1,
        "",
        "a note\nError: it is not\n",
    ),
    "raise click.UsageError('give another')": (2, "", "Error: give another\n"),
    "print('x' * 10**6)": (0, "x" * 10**6 + "\n", ""),
}


@pytest.mark.parametrize("body", SAME)
def test_all_else_comes_through(body: str) -> None:
    for option in ("--isolate", "--no-isolate"):
        result = run(program(body, "model.onnx", option))
        code, out, err = SAME[body]
        assert result.returncode == code and result.stdout == out
        said = result.stderr.rpartition("\n\n")[2]  # without the usage
        assert said.replace("\x1b", "\\x1b") == err
        assert option == "--no-isolate" or "\x1b" not in said


def test_who_reads_may_have_enough() -> None:
    read, write = os.pipe()
    os.close(read)
    result = run(program("click.echo('x' * 10**6)", "model.onnx"), stdout=write)
    os.close(write)
    assert result.returncode == 1 and result.stderr == ""


def test_a_program_in_python_keeps_its_process() -> None:
    refused = CliRunner().invoke(main, ["plan", str(MODEL), "--isolate"])
    assert refused.exit_code == 2
    assert "--isolate is not possible here: it was called from Python" in refused.stderr


def crashing(folder: Path) -> Path:
    """A model that crashes what converts opsets in ONNX 1.23.2: an operator lacks its input."""
    model = onnx.load(MODEL)
    node = onnx.helper.make_node("EyeLike", [""], ["eye"], dtype=onnx.TensorProto.FLOAT)
    model.graph.node.insert(0, node)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("command", ["plan", "compile"])
def test_a_file_that_crashes_a_library(command: str, tmp_path: Path) -> None:
    """Where the installed version no longer crashes, the file is refused or compiled."""
    path = crashing(tmp_path)
    result = run([*COMMAND, command, str(path)], cwd=tmp_path)
    assert "Traceback" not in result.stderr
    if onnx.__version__ == "1.23.2":
        assert result.returncode == 1
        assert result.stderr == (
            f"Error: {path}: ONNX crashed (SIGSEGV) in convert_version while its layers were "
            "recognised; nothing was written. The file is damaged where the library does not look: "
            "make it again with its exporter\n"
        )
        assert list(tmp_path.iterdir()) == [path]
