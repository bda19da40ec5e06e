"""Names and texts from files are shown and never obeyed: by a terminal, a page, a file system."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from rich.text import Text as RichText

from lrp_onnx.cli.commands import main
from lrp_onnx.cli.tables import plain_console

EMBEDDED = Path(__file__).parents[2] / "models"
ESCAPE, TURN = "\x1b", "\u202e"
HOSTILE = f"{ESCAPE}]8;;http://example.org\x07[red]../../x[/nobold]{TURN}<script>:smile:"
SHOWN = r"\x1b]8;;http://example.org\x07[red]../../x[/nobold]\u202e<script>:smile:"
LABELS = [f"{HOSTILE}{number}" for number in range(10)]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model whose nodes, outputs and classes have hostile names, and a picture."""
    folder = tmp_path_factory.mktemp("hostile")
    model = onnx.load(EMBEDDED / "shapes-resnet.onnx")
    for index, node in enumerate(model.graph.node):
        node.name = f"{HOSTILE}{index}"
        for names in (node.input, node.output):
            names[:] = [HOSTILE if name == "logits" else name for name in names]
    model.graph.output[0].name = HOSTILE
    for entry in model.metadata_props:
        if entry.key == "lrp_onnx.labels":
            entry.value = json.dumps(LABELS)
    onnx.save(model, folder / "model.onnx")
    picture = (EMBEDDED / "samples" / "star.png").read_bytes()
    (folder / f"{ESCAPE}[31m[red]{TURN}.png").write_bytes(picture)
    return folder


def printed(folder: Path, *arguments: str, code: int | None = 0) -> str:
    """What a command prints; it holds nothing that a terminal obeys."""
    words = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    done = CliRunner().invoke(main, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    assert code is None or done.exit_code == code, done.output
    obeyed = {c for c in done.output if (ord(c) < 32 and c != "\n") or c in (TURN, "\x7f")}
    assert not obeyed, done.output
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
    for path in out.rglob("*"):
        assert path.name.isprintable(), path
    page = (out / "report.html").read_text(encoding="utf-8")
    assert ESCAPE not in page and TURN not in page and "[/nobold]" in page
    assert "<script>:smile:" not in page and "&lt;script&gt;:smile:" in page
    lines = (out / "explanations.jsonl").read_text(encoding="utf-8")
    assert ESCAPE not in lines and json.loads(lines.splitlines()[0])


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


def test_the_console_obeys_no_markup() -> None:
    console = plain_console(width=1000)
    with console.capture() as captured:
        console.print("[red]:smile:", RichText(f"{ESCAPE}]8;;{TURN}"), sep="")
    assert captured.get().rstrip() == r"[red]:smile:\x1b]8;;\u202e"
