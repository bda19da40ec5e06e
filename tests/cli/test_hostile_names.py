"""Names and texts from files are shown and never obeyed: by a terminal, a page, a file system."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from google.protobuf.text_encoding import CUnescape
from rich.text import Text as RichText

from lrp_onnx.cli.commands import main
from lrp_onnx.cli.tables import plain_console

EMBEDDED = Path(__file__).parents[2] / "models"
ESCAPE, TURN = "\x1b", "\u202e"
FORGED = "Error: forged"
HOSTILE = (
    f"{ESCAPE}]8;;http://example.org\x07[red]../../x[/nobold]{TURN}<script>:smile:"
    f"\u200b\u2066\x9b\x7f\n{FORGED}\r\"'</script>${{7*7}}%s{{0}}"
)
SHOWN = (
    r"\x1b]8;;http://example.org\x07[red]../../x[/nobold]\u202e<script>:smile:"
    r"\u200b\u2066\x9b\x7f\n" + FORGED + r"""\r"'</script>${7*7}%s{0}"""
)
LABELS = [f"={HOSTILE}\ud800{number}" for number in range(10)]
PICTURES = [os.fsencode(f"{ESCAPE}[31m[red]{TURN}.png"), b"=cmd(),'\".png", b"CON.png", b"\xff.png"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model whose nodes, outputs and classes have hostile names, and a picture."""
    folder = tmp_path_factory.mktemp("hostile")
    model = onnx.load(EMBEDDED / "shapes-resnet.onnx")
    for index, node in enumerate(model.graph.node):
        node.name, node.doc_string = f"{HOSTILE}{index}", HOSTILE
        for names in (node.input, node.output):
            names[:] = [HOSTILE if name == "logits" else name for name in names]
    model.graph.output[0].name = HOSTILE
    for entry in model.metadata_props:
        if entry.key == "lrp_onnx.labels":
            entry.value = json.dumps(LABELS)
    for said in (model, model.graph):
        said.doc_string = HOSTILE
    model.producer_name = model.producer_version = model.domain = model.graph.name = HOSTILE
    model.metadata_props.add(key=HOSTILE, value=HOSTILE)
    model.opset_import.add(domain=HOSTILE, version=1)
    onnx.save(model, folder / "model.onnx")
    picture = (EMBEDDED / "samples" / "star.png").read_bytes()
    for name in PICTURES:
        with suppress(OSError):  # a file system that takes only Unicode
            (folder / os.fsdecode(name)).write_bytes(picture)
    return folder


def obeyed(text: str) -> set[str]:
    """Characters that a terminal obeys, but for line feeds, and those that nobody sees."""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return {letter for letter in text if unicodedata.category(letter) in kinds} - {"\n"}


def check_texts(folder: Path, *endings: str) -> None:
    """No text among the files of a folder holds what a terminal obeys, nor has one such a name."""
    found = set()
    for path in folder.rglob("*"):
        assert path.name.isprintable(), path
        if path.suffix in endings:
            found.add(path.suffix)
            assert not obeyed(path.read_text(encoding="utf-8-sig")), path
    assert found == set(endings)


def printed(folder: Path, *arguments: str, code: int | None = 0) -> str:
    """What a command prints; it holds nothing that a terminal obeys."""
    words = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    done = CliRunner().invoke(main, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    assert code is None or done.exit_code == code, done.output
    assert not obeyed(done.output), done.output
    assert not any(line.startswith(FORGED) for line in done.output.splitlines()), done.output
    return done.output


@pytest.mark.parametrize("arguments", [("--all",), (), ("--composite", "epsilon-plus", "--all")])
def test_the_plan_shows_names_as_they_are(hostile: Path, arguments: tuple[str, ...]) -> None:
    text = printed(hostile, "plan", "FOLDER/model.onnx", *arguments)
    assert f"{SHOWN}0" in text
    assert json.loads(printed(hostile, "plan", "FOLDER/model.onnx", "--json"))


def test_compiling_and_verifying(hostile: Path) -> None:
    line = printed(hostile, "compile", "FOLDER/model.onnx", "-o", "FOLDER/c.lrp.onnx", "--force")
    assert "c.lrp.onnx: " in line
    text = printed(hostile, "verify", "FOLDER/c.lrp.onnx", "--all", "--provider", "cpu")
    assert f"{SHOWN}33" in text
    assert json.loads(
        printed(hostile, "verify", "FOLDER/c.lrp.onnx", "--json", "--provider", "cpu")
    )


def test_a_ledger_of_a_compiled_file(hostile: Path) -> None:
    printed(hostile, "compile", "FOLDER/model.onnx", "-o", "FOLDER/l.lrp.onnx", "--force")
    model = onnx.load(hostile / "l.lrp.onnx")
    for entry in model.metadata_props:
        if entry.key == "lrp_onnx.composite":
            entry.value = json.dumps(HOSTILE)
        if entry.key == "lrp_onnx.post":
            entry.value = json.dumps(HOSTILE)
    onnx.save(model, hostile / "l.lrp.onnx")
    text = printed(hostile, "verify", "FOLDER/l.lrp.onnx", "--provider", "cpu", code=1)
    assert r"\x1b" in text


def test_explaining(hostile: Path) -> None:
    out = hostile / "out"
    before = set(hostile.iterdir())
    arguments = ["explain", "FOLDER/model.onnx", "FOLDER", "-o", "FOLDER/out", "--provider", "cpu"]
    text = printed(hostile, *arguments)
    assert SHOWN in text
    assert set(hostile.iterdir()) - before == {out}
    check_texts(out, ".html", ".csv", ".json", ".jsonl")
    assert not any(path.name.startswith("CON.") for path in out.iterdir())  # on Windows a device
    assert not any(set(path.name) & set('<>:"|?*') for path in out.iterdir())
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "[/nobold]" in page
    assert "<script>:smile:" not in page and "&lt;script&gt;:smile:" in page
    lines = (out / "explanations.jsonl").read_text(encoding="utf-8").splitlines()
    assert {os.fsencode(Path(json.loads(line)["image"]).name) for line in lines} == names(hostile)
    table = (out / "results.csv").read_text(encoding="utf-8-sig")
    for row in csv.DictReader(io.StringIO(table)):
        assert row["class_name"].startswith(f"'={SHOWN}")
        assert not any(cell.startswith("=") for cell in row.values())
    for to in ("coco", "label-studio", "fiftyone"):
        printed(hostile, "export", "FOLDER/out", "--to", to, "-o", f"FOLDER/out/{to}.json")
    check_texts(out, ".html", ".csv", ".json", ".jsonl")
    photos = json.loads((out / "coco.json").read_text(encoding="ascii"))["images"]
    assert {os.fsencode(photo["file_name"]) for photo in photos} == names(hostile)


def names(folder: Path) -> set[bytes]:
    """The names of the pictures."""
    return {os.fsencode(path.name) for path in folder.glob("*.png")}


def test_scoring(hostile: Path) -> None:
    chosen = ["--method", "grad-cam", "--metrics", "sparseness", "--provider", "cpu"]
    printed(hostile, "evaluate", "FOLDER/model.onnx", "FOLDER", "-o", "FOLDER/scores", *chosen)
    check_texts(hostile / "scores", ".csv", ".jsonl", ".md")
    table = (hostile / "scores" / "table.csv").read_text(encoding="utf-8")
    images = {row["image"] for row in csv.DictReader(io.StringIO(table))}
    assert "'=cmd(),'\".png" in images and "=cmd(),'\".png" not in images


def test_a_site_and_a_model_repository(hostile: Path) -> None:
    printed(hostile, "web", "FOLDER/model.onnx", "-o", "FOLDER/site", "--samples", "FOLDER")
    check_texts(hostile / "site", ".html", ".json", ".mjs", ".css")
    facts = json.loads((hostile / "site" / "model.json").read_text(encoding="ascii"))
    assert not any(map(obeyed, [*facts["labels"], *(one["name"] for one in facts["samples"])]))
    assert facts["scores"]["name"] == HOSTILE
    printed(hostile, "triton", "FOLDER/model.onnx", "-o", "FOLDER/repository")
    check_texts(hostile / "repository", ".pbtxt", ".txt")
    config = (hostile / "repository" / "model" / "config.pbtxt").read_text(encoding="utf-8")
    (name,) = {line for line in config.splitlines() if "nobold" in line}
    assert CUnescape(name.partition('"')[2].rpartition('"')[0]).decode() == HOSTILE


def test_the_doctor(hostile: Path) -> None:
    text = printed(hostile, "doctor", "FOLDER/model.onnx", "FOLDER", code=None)
    assert "[red]" in text or r"\x1b" in text


def test_errors(hostile: Path) -> None:
    text = printed(hostile, "plan", f"FOLDER/{HOSTILE.replace('/', '')}.onnx", code=1)
    assert r"\x1b" in text
    model = onnx.load(hostile / "model.onnx")
    model.graph.node[3].op_type = HOSTILE
    onnx.save(model, hostile / "op.onnx")
    assert SHOWN in printed(hostile, "plan", "FOLDER/op.onnx", code=1)
    (hostile / "op.onnx").unlink()


def test_a_terminal_that_has_ascii_alone(hostile: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lrp_onnx", "plan", "model.onnx"],
        cwd=hostile,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert r"[/nobold]\u202e" in done.stdout.decode("ascii")
    assert not obeyed((done.stdout + done.stderr).decode("ascii"))


def test_the_console_obeys_no_markup() -> None:
    console = plain_console(width=1000)
    with console.capture() as captured:
        console.print("[red]:smile:", RichText(f"{ESCAPE}]8;;{TURN}"), sep="")
    assert captured.get().rstrip() == r"[red]:smile:\x1b]8;;\u202e"
