"""``-o -``: bytes on standard output and words on standard error, or a refusal in words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from lrp_onnx.cli.commands import main
from lrp_onnx.contract import is_compiled

MODELS = Path(__file__).parents[2] / "models"
MODEL, STAR = MODELS / "shapes-resnet.onnx", MODELS / "samples" / "star.png"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_model_on_standard_output(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["compile", str(MODEL), "-o", "-", "--no-check"])
    assert done.exit_code == 0
    model = onnx.load_from_string(done.stdout_bytes)
    assert is_compiled({entry.key: entry.value for entry in model.metadata_props})
    assert done.stderr.startswith("standard output: residual-c3")
    again = CliRunner().invoke(main, ["compile", str(MODEL), "-o", "file.onnx", "--no-check"])
    assert again.exit_code == 0 and (tmp_path / "file.onnx").read_bytes() == done.stdout_bytes
    assert [path.name for path in tmp_path.iterdir()] == ["file.onnx"]


@pytest.mark.parametrize("name", ["./-", ".//-"])
def test_a_file_may_have_its_name(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["compile", str(MODEL), "-o", name, "--no-check"])
    assert done.exit_code == 0 and done.stdout.startswith(f"{tmp_path / '-'}: residual-c3")
    onnx.load(tmp_path / "-")


def test_two_results_do_not_share_it() -> None:
    done = CliRunner().invoke(main, ["compile", str(MODEL), "-o", "-", "--json"])
    assert done.exit_code == 2 and "-o - and --json both write to standard output" in done.stderr
    assert done.stdout_bytes == b""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_gets_no_model() -> None:
    main_end, terminal = os.openpty()
    command = [sys.executable, "-m", "lrp_onnx", "compile", str(MODEL), "-o", "-"]
    done = subprocess.run(
        command, stdout=terminal, stderr=subprocess.PIPE, timeout=120, check=False
    )
    os.close(terminal)
    os.set_blocking(main_end, False)
    with pytest.raises(OSError, match=r"Input/output|temporarily"):
        os.read(main_end, 1)
    os.close(main_end)
    assert done.returncode == 1 and b"standard output is a terminal" in done.stderr


def test_results_for_other_programs_on_standard_output(tmp_path: Path) -> None:
    explained = ["explain", str(MODEL), str(STAR), "-o", "out", "--provider", "cpu"]
    assert CliRunner().invoke(main, [*explained, "--report", "none"]).exit_code == 0
    done = CliRunner().invoke(main, ["export", "out", "--to", "fiftyone", "-o", "-"])
    assert done.exit_code == 0 and json.loads(done.stdout)
    assert "standard output: 1 map of 1 photo, for fiftyone" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", str(MODEL), str(STAR)],
        ["evaluate", str(MODEL), str(STAR)],
        ["compare", str(MODEL), str(STAR)],
        ["web", str(MODEL)],
        ["triton", str(MODEL)],
        ["demo"],
    ],
)
def test_what_is_no_single_file_is_refused(arguments: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [*arguments, "-o", "-"])
    assert done.exit_code == 1 and done.stdout == ""
    words = "name ends in .png" if arguments[0] == "compare" else "several results: name a folder"
    assert words in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="no shell that closes it")
@pytest.mark.parametrize(
    "arguments", [["compile", str(MODEL)], ["export", ".", "--to", "fiftyone"]]
)
def test_a_closed_standard_output_is_said(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "lrp_onnx", *arguments, "-o", "-"]
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: standard output is closed: name a file with -o/--output\n"
