"""Long runs of `explain`: stopped and gone on with, bad pictures, names, the table, progress."""

from __future__ import annotations

import contextlib
import csv
import gc
import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from networks import resnet

import lrp_onnx.cli.explain
import lrp_onnx.cli.given
import lrp_onnx.report.results
from lrp_onnx.cli.commands import main
from lrp_onnx.cli.explain import ExplainCommand, _batches_with, explain_files
from lrp_onnx.cli.progress import Progress
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.errors import ImageError, going_on
from lrp_onnx.files.writing import append_line
from lrp_onnx.report.results import KEYS
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.explanation import Explanation

EMBEDDED = Path(__file__).parents[2] / "models" / "shapes-resnet.onnx"


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def draw(path: Path, seed: int, side: int = 40) -> Path:
    """A picture of noise with a square."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (side, side + seed % 7, 3)).astype(np.uint8)
    left, top = rng.integers(0, side // 2, 2)
    picture[top : top + side // 3, left : left + side // 3] = rng.integers(0, 256, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)
    return path


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder, without the times."""
    lines = [json.loads(text) for text in (folder / "explanations.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None)
    return lines


def assert_equal(found: Path, expected: Path) -> None:
    """Two folders hold the same results, bit by bit, but for the times."""
    names = sorted(path.name for path in expected.iterdir())
    assert sorted(path.name for path in found.iterdir()) == names
    assert lines_of(found) == lines_of(expected)
    for name in names:
        if name.endswith(".npz"):
            with np.load(found / name) as values, np.load(expected / name) as wanted:
                assert set(values) == set(wanted)
                assert all(np.array_equal(values[key], wanted[key]) for key in wanted), name
        elif name != "explanations.jsonl":
            one, other = (
                re.sub(rb"[-0-9]{10} [0-9:]{5} UTC", b"", (folder / name).read_bytes())
                for folder in (found, expected)
            )
            assert one == other, name


def times(folder: Path) -> dict[str, int]:
    """File → when it was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Small compiled files with class names: for many targets, and for one."""
    folder = tmp_path_factory.mktemp("model")
    path = folder / "model.onnx"
    path.write_bytes(resnet(size=(32, 32)).SerializeToString())
    options = Options(
        labels=tuple(f"class {index}" for index in range(10)), outputs=("heatmap", "heatmap_raw")
    )
    return {
        many: compile_model(path, options, many_targets=many).save(folder / f"{many}.onnx")
        for many in (False, True)
    }


@pytest.fixture
def model(models: dict[bool, Path]) -> Path:
    return models[False]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 20 pictures."""
    for index in range(20):
        draw(tmp_path / "photos" / f"{index:02}.png", index)
    return tmp_path / "photos"


# --- stopped and gone on with ------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_kill_9_at_any_moment(seed: int, tmp_path: Path) -> None:
    """Killed three times, then left alone: the results are those of an undisturbed run."""
    rng = random.Random(seed)
    for index in range(64):
        draw(tmp_path / "photos" / f"{index:02}.png", index, side=64)
    (tmp_path / "photos" / "30.png").write_bytes(b"no picture")
    command = [sys.executable, "-m", "lrp_onnx", "explain", EMBEDDED, tmp_path / "photos", "-o"]
    killed = 0
    for least in sorted(rng.sample(range(1, 60), 3)):
        process = subprocess.Popen(
            [*command, tmp_path / "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        lines = tmp_path / "killed" / "explanations.jsonl"
        while process.poll() is None:
            if lines.exists() and lines.read_bytes().count(b"\n") >= least:
                time.sleep(rng.uniform(0, 0.03))
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        killed += process.wait() == -signal.SIGKILL
    assert killed == 3
    left = lines.read_bytes().count(b"\n")
    assert left < 64
    last = subprocess.run([*command, tmp_path / "killed"], capture_output=True, text=True)
    assert last.returncode == 1 and " of 64 pictures are done already" in last.stderr
    whole = subprocess.run([*command, tmp_path / "whole"], capture_output=True, text=True)
    assert whole.returncode == 1 and "63 explained, 1 could not be read: 30.png" in whole.stderr
    assert last.stdout == whole.stdout and len(whole.stdout.splitlines()) == 63
    assert_equal(tmp_path / "killed", tmp_path / "whole")


class Stop(BaseException):
    """Ends a run as a signal does."""


def test_stopped_before_every_write(
    models: dict[bool, Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file's replacement and of a line: each in turn, each gone on with."""
    (photos / "01.png").write_bytes(b"no picture")
    pictures = [photos / f"{index:02}.png" for index in range(3)]
    command = ("explain", models[True], *pictures, "--top", 2, "-o")
    left = [-1]

    def stopping(write: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **choices: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Stop
            return write(*arguments, **choices)

        return instead

    monkeypatch.setattr(Path, "replace", stopping(Path.replace))
    monkeypatch.setattr(lrp_onnx.report.results, "append_line", stopping(append_line))
    assert call(*command, tmp_path / "whole").exit_code == 1
    writes = -1 - left[0]
    # Figures, files, lines; run, page, table, sheet, run.
    assert writes == 2 + 2 * 2 * 3 + 3 + 5
    for moment in range(1, writes + 1):
        left[0] = moment
        with pytest.raises(Stop):
            call(*command, tmp_path / str(moment))
        assert call(*command, tmp_path / str(moment)).exit_code == 1
        assert_equal(tmp_path / str(moment), tmp_path / "whole")


@pytest.mark.parametrize("choices", [(), ("--top", 3), ("--target", 3, "--target", "class 8")])
@pytest.mark.parametrize("cut", [1, 40, 3000])
def test_a_torn_last_line(
    choices: Sequence[object], cut: int, photos: Path, models: dict[bool, Path], tmp_path: Path
) -> None:
    """Whatever the last bytes are, and though the files of later pictures are there already."""
    command = ("explain", models[bool(choices)], photos, *choices, "-o")
    assert call(*command, tmp_path / "whole").exit_code == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "torn")
    lines = tmp_path / "torn" / "explanations.jsonl"
    with lines.open("r+b") as file_of_lines:
        file_of_lines.truncate(lines.stat().st_size - cut)
    for name in ("sheet.png", "results.csv"):
        (tmp_path / "torn" / name).unlink()
    result = call(*command, tmp_path / "torn")
    assert result.exit_code == 0 and " of 20 pictures are done already" in result.stderr
    assert_equal(tmp_path / "torn", tmp_path / "whole")


def test_damaged_lines_and_lost_files_are_made_again(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    command, out = ("explain", model, photos, "-o"), tmp_path / "out"
    assert call(*command, tmp_path / "whole").exit_code == 0
    assert call(*command, out).exit_code == 0
    lines = (out / "explanations.jsonl").read_bytes().splitlines(keepends=True)
    lines[3] = b"\0" * 20 + b"\n"
    elsewhere = {"image": "elsewhere.png", "files": {"x": "../x"}, "sha256": ""}
    whole = dict.fromkeys(KEYS) | elsewhere
    lines[5], lines[6] = lines[6], json.dumps(whole).encode() + b"\n"
    (out / "explanations.jsonl").write_bytes(b"".join(lines))
    (out / "11.npz").unlink()
    before = times(out)
    again = call(*command, out)
    assert "17 of 20 pictures are done already" in again.stderr
    assert_equal(out, tmp_path / "whole")
    written = {name for name, when in times(out).items() if before.get(name) != when}
    assert {name for name in written if name.endswith(".npz")} == {"03.npz", "05.npz", "11.npz"}


@pytest.mark.parametrize("force", [False, True])
def test_temporary_files_of_a_killed_run_are_removed(
    force: bool, model: Path, photos: Path, tmp_path: Path
) -> None:
    command, out = ("explain", model, photos / "03.png", "-o", tmp_path / "out"), tmp_path / "out"
    assert call(*command).exit_code == 0
    own = {".03.npz.abcd0123", ".run.json.abcd0123", ".sheet.png.abcd0123"}
    others = {".04.npz.abcd0123", ".03.npz.mine", ".03.npz"}
    for name in own | others:
        (out / name).touch()
    (out / "03.npz").unlink()
    assert call(*command, *(["--force"] if force else [])).exit_code == 0
    assert {path.name for path in out.glob(".*")} == others


def test_a_finished_run_computes_and_writes_nothing(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "07.png").write_bytes(b"no picture")
    command = ("explain", model, photos, "-o", tmp_path / "out")
    first = call(*command)
    before = times(tmp_path / "out")
    monkeypatch.setattr(lrp_onnx.cli.explain, "Explainer", None)
    again = call(*command, "--batch", 3, "--threads", 1, "--provider", "cpu")
    assert "all 20 pictures are done already" in again.stderr
    assert times(tmp_path / "out") == before
    assert again.stdout == first.stdout and again.exit_code == first.exit_code == 1
    assert first.stderr.splitlines()[-1] == again.stderr.splitlines()[-1]


def test_batches_are_those_of_an_undisturbed_run() -> None:
    """A batch of one picture is rounded otherwise, so that a lone missing one takes its batch."""
    pictures = [Path(str(index)) for index in range(10)]
    found = _batches_with(frozenset({pictures[4], pictures[9]}), pictures, 4)
    assert found == [*pictures[4:8], *pictures[8:]]
    assert _batches_with(frozenset(), pictures, 4) == []


def test_a_changed_photo_is_explained_again(model: Path, photos: Path, tmp_path: Path) -> None:
    """Even with its old size and time; the others are not, nor one that was touched alone."""
    command, out = ("explain", model, photos, "-o"), tmp_path / "out"
    assert call(*command, out).exit_code == 0
    photo = photos / "05.png"
    status, data = photo.stat(), bytearray(photo.read_bytes())
    other = draw(tmp_path / "other.png", 5 + 7 * 100).read_bytes()
    photo.write_bytes(other[: len(data)] + b"\0" * (len(data) - len(other)))
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert photo.stat().st_size == status.st_size
    (photos / "06.png").touch()
    before = times(out)
    result = call(*command, out)
    assert result.exit_code == 0 and "19 of 20 pictures" in result.stderr
    written = {name for name, when in times(out).items() if before[name] != when}
    assert {name for name in written if name.endswith(".npz")} == {"05.npz"}
    assert call(*command, tmp_path / "whole").exit_code == 0
    assert_equal(out, tmp_path / "whole")


def test_a_photo_that_changes_during_the_run(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was explained is not known: the next run explains it."""
    command, out = ("explain", model, photos, "-o"), tmp_path / "out"
    explain = Explainer.explain_images

    def and_change(*arguments: Any, **choices: Any) -> Any:
        for explanation in explain(*arguments, **choices):
            if explanation.path.name == "03.png":
                draw(explanation.path, 99)
            yield explanation

    with monkeypatch.context() as patched:
        patched.setattr(Explainer, "explain_images", and_change)
        assert call(*command, out).exit_code == 0
    assert "19 of 20 pictures are done already" in call(*command, out).stderr
    assert call(*command, tmp_path / "whole").exit_code == 0
    assert_equal(out, tmp_path / "whole")


def test_more_pictures_and_fewer(model: Path, photos: Path, tmp_path: Path) -> None:
    """A folder gets what it does not have; what it has of other pictures stays, after this run's.
    The same name of another picture gets a number.
    """
    out, later = tmp_path / "out", draw(tmp_path / "later" / "03.png", 50)
    command = ("explain", model, "-o", out)
    assert call(*command, photos / "03.png", photos / "04.png").exit_code == 0
    assert call(*command, later).exit_code == 0
    images = [Path(line["image"]) for line in lines_of(out)]
    assert images == [later, photos / "03.png", photos / "04.png"]
    assert [line["files"]["values"] for line in lines_of(out)] == ["03-2.npz", "03.npz", "04.npz"]
    result = call(*command, photos)
    assert "2 of 20 pictures are done already" in result.stderr
    lines = lines_of(out)
    assert len(lines) == 21 and lines[-1]["image"] == str(later)
    assert [line["files"]["values"] for line in lines[:20]] == [f"{i:02}.npz" for i in range(20)]
    with (out / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [line["image"] for line in lines]


# --- other settings, other files ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (("--top", 2), "top: not given there, 2 here"),
        (("--target", "class 3"), 'target: not given there, ["class 3"] here'),
        (("--post", "none"), "post: not given there, none here"),
        (("--preprocess", "raw"), "preprocess: not given there, {"),
        (("--outputs", "heatmap,c3"), 'outputs: not given there, ["heatmap", "c3"] here'),
    ],
)
def test_other_settings_are_refused(
    choices: Sequence[object], said: str, model: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("explain", model, photos / "01.png", "-o", out)
    assert call(*command).exit_code == 0
    before = times(out)
    result = call(*command, *choices)
    assert result.exit_code == 1 and result.stdout == ""
    assert said in result.stderr and "--force" in result.stderr and "-o" in result.stderr
    assert result.stderr.count("there,") == 1 and times(out) == before


def test_another_composite_is_refused(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(resnet(size=(32, 32)).SerializeToString())
    command = ("explain", path, photos / "01.png", "-o", tmp_path / "out")
    assert call(*command).exit_code == 0
    result = call(*command, "--composite", "lrp-resnet")
    assert result.exit_code == 1
    assert "composite: not given there, lrp-resnet here" in result.stderr


def test_another_model_version_or_class_names_are_refused(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, names = tmp_path / "out", tmp_path / "names.txt"
    command = ("explain", model, photos / "01.png", "-o", out, "--classes", names)
    names.write_text("\n".join("abcdefghij"))
    assert call(*command).exit_code == 0
    names.write_text("\n".join("abcdefghiz"))
    assert "classes 9: j there, z here" in call(*command).stderr
    names.write_text("\n".join("abcdefghij"))
    monkeypatch.setattr(lrp_onnx.cli.given, "__version__", "99.0")
    assert "lrp-onnx: " in (said := call(*command).stderr) and "there, 99.0 here" in said
    monkeypatch.undo()
    model.write_bytes((before := model.read_bytes()) + b"\x0a\x00")  # an empty domain follows
    try:
        assert "model: " in (said := call(*command).stderr) and said.count("there,") == 1
    finally:
        model.write_bytes(before)


def test_force_removes_what_is_the_runs_own_and_nothing_else(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert call("explain", model, photos, "-o", out, "--post", "none").exit_code == 0
    (out / "note.txt").write_text("mine")
    (out / "mine.overlay.png").write_text("mine")
    (tmp_path / "kept.npz").write_text("mine")
    hostile = dict.fromkeys(KEYS) | {
        "image": "x.png",
        "sha256": "",
        "files": {"values": "../kept.npz"},
    }
    with (out / "explanations.jsonl").open("a") as file:
        file.write(json.dumps(hostile) + "\n")
    result = call("explain", model, photos / "04.png", "-o", out, "--force")
    assert result.exit_code == 0
    own = {f"04.{kind}" for kind in ("figure.png", "overlay.png", "heatmap.png", "npz")}
    own |= {"explanations.jsonl", "results.csv", "sheet.png", "report.html", "run.json"}
    assert set(times(out)) == own | {"note.txt", "mine.overlay.png"}
    assert (tmp_path / "kept.npz").exists() and len(lines_of(out)) == 1


def test_force_that_fails_removes_nothing(model: Path, photos: Path, tmp_path: Path) -> None:
    command = ("explain", model, "-o", tmp_path / "out", "--force")
    assert call(*command, photos).exit_code == 0
    before = times(tmp_path / "out")
    assert call(*command, photos, "--target", 99).exit_code == 1
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert call(*command, tmp_path / "bad.png").exit_code == 1
    assert times(tmp_path / "out") == before


def test_a_folder_of_others_is_refused(model: Path, photos: Path, tmp_path: Path) -> None:
    """Without a run of ours, as with a damaged one, or another picture's results in the way."""
    out = tmp_path / "out"
    out.mkdir()
    command = ("explain", model, photos / "01.png", "-o", out)
    for name in ("01.npz", "sheet.png", "results.csv", "explanations.jsonl"):
        (out / name).write_text("mine")
        result = call(*command)
        assert result.exit_code == 1 and f"{out / name} and 0 other results exist" in result.stderr
        assert (out / name).read_text() == "mine" and "--force" in result.stderr
        (out / name).unlink()
    for text in ("", "[]", '{"stems": 3}', '{"settings": {}, "each": 1, "stems": {"a": "../a"}}'):
        (out / "run.json").write_text(text)
        result = call(*command)
        assert result.exit_code == 1 and "run.json cannot be read" in result.stderr
        assert "--force" in result.stderr and (out / "run.json").read_text() == text
    assert call(*command, "--force").exit_code == 0
    (out / "02.npz").write_text("mine")
    result = call("explain", model, photos / "02.png", "-o", out)
    assert result.exit_code == 1 and "02.npz and 0 other" in result.stderr


# --- bad pictures ------------------------------------------------------------------------------


def test_bad_pictures_are_named_and_the_run_goes_on(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    bad = [photos / "00.png", photos / "07.png", photos / "a\x1b[31m\nb.png"]
    for path in bad:
        path.write_bytes(b"no picture")
    result = call("explain", model, photos, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 1
    printed = [json.loads(text) for text in result.stdout.splitlines()]
    stored = [
        json.loads(text)
        for text in (tmp_path / "out" / "explanations.jsonl").read_text().splitlines()
    ]
    assert printed == stored
    assert [line["image"] for line in printed] == [str(path) for path in sorted(photos.iterdir())]
    failed = [line for line in printed if "error" in line]
    assert [line["image"] for line in failed] == [str(path) for path in bad]
    assert all("cannot be read as a picture" in line["error"] for line in failed)
    said = result.stderr.splitlines()
    assert sum(line.startswith("not explained: ") for line in said) == 3
    assert "18 explained, 3 could not be read: 00.png, 07.png, a\\x1b[31m\\nb.png" in said[-1]
    assert "\x1b" not in result.output
    # One that is mended is explained; the others still fail.
    draw(bad[1], 7)
    again = call("explain", model, photos, "-o", tmp_path / "out")
    assert again.exit_code == 1 and "19 explained, 2 could not be read" in again.stderr
    assert "20 of 21 pictures are done already" in again.stderr
    assert [line["image"] for line in lines_of(tmp_path / "out") if "error" in line] == [
        str(bad[0]),
        str(bad[2]),
    ]


def test_strict_stops_at_the_first(model: Path, photos: Path, tmp_path: Path) -> None:
    """And what is done before stays; a fault that an earlier run met counts too."""
    (photos / "12.png").write_bytes(b"no picture")
    command = ("explain", model, photos, "-o", tmp_path / "out", "--batch", 4)
    result = call(*command, "--strict")
    assert result.exit_code == 1 and "Error: " in result.stderr and "12.png" in result.stderr
    assert "not explained" not in result.stderr and len(result.stdout.splitlines()) == 12
    assert "12 of 20 pictures are done already" in (again := call(*command)).stderr
    assert again.exit_code == 1 and "19 explained, 1 could not be read" in again.stderr
    last = call(*command, "--strict")
    assert last.exit_code == 1 and last.stdout == result.stdout
    assert "not explained" not in last.stderr


def test_where_no_picture_can_be_read_nothing_is_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for index in range(12):
        (tmp_path / "photos" / f"{index}.png").write_bytes(b"no picture")
    (tmp_path / "photos" / "a folder.png").mkdir()
    result = call("explain", model, tmp_path / "photos", "-o", tmp_path / "out")
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert (
        "0 explained, 12 could not be read: 0.png, 1.png, 10.png, 11.png, 2.png and 7 others"
        in (result.stderr)
    )


# --- names, subfolders, the table --------------------------------------------------------------


def test_subfolders(model: Path, tmp_path: Path) -> None:
    """Names tell the folders, and differ whatever the files are called."""
    root = tmp_path / "root"
    for index, name in enumerate(("x.png", "a/x.png", "a/b/x.png", "c/y.png")):
        draw(root / name, index)
    assert call("explain", model, root, "-o", tmp_path / "flat").exit_code == 0
    assert len(lines_of(tmp_path / "flat")) == 1
    result = call("explain", model, root, "-o", tmp_path / "out", "--recursive")
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == 4
    names = [line["files"]["overlay"] for line in lines_of(tmp_path / "out")]
    assert sorted(names) == [f"{stem}.overlay.png" for stem in ("a__b__x", "a__x", "c__y", "x")]
    assert all((tmp_path / "out" / name).is_file() for name in names)
    clash = [draw(tmp_path / "clash" / name, 1) for name in ("a/b__c.png", "a__b/c.png", "D.png")]
    clash += [draw(tmp_path / "clash" / "d.png", 2), draw(tmp_path / "clash" / "d.bmp", 3)]
    result = call("explain", model, *clash, "-o", tmp_path / "two")
    stems = [line["files"]["values"] for line in lines_of(tmp_path / "two")]
    assert result.exit_code == 0 and len({stem.casefold() for stem in stems}) == 5
    assert stems[:2] == ["a__b__c.png.npz", "a__b__c.png-2.npz"]


@pytest.mark.parametrize("out", [".", "sub/results"])
def test_results_among_the_pictures_are_not_pictures(
    out: str, model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command finds the same pictures, wherever its results lie; those named are meant."""
    draw(photos / "sub" / "x.png", 30)
    monkeypatch.chdir(photos)
    command = ("explain", model, ".", "--recursive", "-o", out)
    first = call(*command)
    assert first.exit_code == 0 and len(first.stdout.splitlines()) == 21
    again = call(*command)
    assert again.stdout == first.stdout and "all 21 pictures are done" in again.stderr
    other = call("explain", model, ".", "--recursive", "-o", "other")
    assert other.exit_code == 0 and len(other.stdout.splitlines()) == 21
    named = call("explain", model, Path("other") / "07.overlay.png", "-o", "named")
    assert named.exit_code == 0 and len(named.stdout.splitlines()) == 1
    alone = call("explain", model, "named", "-o", "last")
    assert alone.exit_code == 1 and "results of explain alone" in alone.stderr


def test_names_that_a_file_system_would_not_take(model: Path, tmp_path: Path) -> None:
    long, root = "é" * 60, tmp_path / "root"
    photos = [draw(root / long / long / "x.png", 1), draw(root / "-rf.png", 2)]
    photos.append(draw(root / "a\\b:c\n.png", 3))
    result = call("explain", model, *photos, "-o", tmp_path / "out")
    assert result.exit_code == 0
    values = [line["files"]["values"] for line in lines_of(tmp_path / "out")]
    assert values[0].endswith("é__x.npz") and values[1:] == ["-rf.npz", "a_b_c_.npz"]


def test_the_table(model: Path, tmp_path: Path) -> None:
    """Every value as in the lines, nothing that a spreadsheet would compute."""
    folder, names = tmp_path / "photos", tmp_path / "names.txt"
    names.write_text("\n".join(f'=HYPERLINK("http://x/{index}","a,b")' for index in range(10)))
    for index, name in enumerate(("=1+2.png", "+3.png", "-4.png", "@x.png", "a,b 'c'.png")):
        draw(folder / name, index)
    (folder / "z.png").write_bytes(b"no picture")
    (folder / "labels.csv").write_text("file,label\n=1+2.png,3\nz.png,1\n")
    pictures = sorted(path.name for path in folder.glob("*.png"))
    command = [
        sys.executable,
        "-m",
        "lrp_onnx",
        "explain",
        model,
        "--classes",
        names,
        "--",
        *pictures,
    ]
    root = str(Path(lrp_onnx.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 1 and "5 explained, 1 could not be read: z.png" in result.stderr
    lines = lines_of(folder / "explained")
    text = (folder / "explained" / "results.csv").read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == len(lines) == 6
    for row, line in zip(rows, lines, strict=True):
        for cell in (row["image"], row["class_name"], row["overlay"], row["values"]):
            assert not cell.startswith(("=", "+", "-", "@"))
        assert row["image"].removeprefix("'") == line["image"]
        if "error" in line:
            assert row["error"] == line["error"] and row["class"] == ""
            continue
        assert int(row["class"]) == line["top5"][0]["index"]
        assert row["class_name"] == "'" + line["top5"][0]["name"]
        assert float(row["probability"]) == line["top5"][0]["probability"]
        assert int(row["explained"]) == line["target"]["index"]
        assert float(row["sum"]) == line["sums"]["all"]
        assert float(row["sum_negative"]) == line["sums"]["negative"]
    by_image = {row["image"].removeprefix("'"): row for row in rows}
    known = by_image["=1+2.png"]
    assert known["label"] == "3" and known["right"] == ("yes" if known["class"] == "3" else "no")
    assert by_image["+3.png"]["label"] == by_image["+3.png"]["right"] == ""
    assert by_image["z.png"]["label"] == "1"


def test_labels_that_come_later_are_in_the_table(model: Path, photos: Path, tmp_path: Path) -> None:
    command = ("explain", model, photos, "-o", tmp_path / "out")
    assert call(*command).exit_code == 0
    values = times(tmp_path / "out")["03.npz"]
    (photos / "labels.csv").write_text("file,label\n03.png,3\n")
    assert "accuracy on 1 labelled pictures: " in call(*command).stderr
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file) if row["label"]] == ["3"]
    assert times(tmp_path / "out")["03.npz"] == values


def test_the_default_folder(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("explain", model, photos / "01.png").exit_code == 0
    assert (tmp_path / "explained" / "01.overlay.png").is_file()


# --- memory and progress -----------------------------------------------------------------------


def test_explanations_are_not_held(model: Path, photos: Path, tmp_path: Path) -> None:
    command = ExplainCommand(
        model=model, images=[str(photos)], output=tmp_path / "out", options=Options(), batch=2
    )
    held = []
    for _ in explain_files(command, report=lambda _: None):
        held.append(sum(isinstance(thing, Explanation) for thing in gc.get_objects()))
    assert len(held) == 20 and max(held) <= 2


def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    now, said = [0.0], list[str]()
    with Progress(100, done=40, report=said.append, clock=lambda: now[0]) as progress:
        for _ in range(60):
            now[0] += 2
            progress.step()
    assert said[0] == "explained 43 of 100, 30.0 a minute, 1:54 left" and len(said) == 19
    assert said[-1] == "explained 97 of 100, 30.0 a minute, 0:06 left"
    said.clear()
    with Progress(100_000, done=0, report=said.append, clock=lambda: now[0]) as progress:
        for _ in range(100):
            now[0] += 0.25
            progress.step()
    assert said[0] == "explained 20 of 100000, 4.0 a second, 6:56:35 left" and len(said) == 5
    assert capsys.readouterr() == ("", "")


def test_what_ends_a_run_too_early_says_how_it_goes_on() -> None:
    said = list[str]()
    goes_on = "3 of 9 pictures are done: the same command goes on"
    for error in (KeyboardInterrupt, OSError, MemoryError):
        with (
            pytest.raises(error) as caught,
            going_on(lambda: 3, 9, "pictures are done", said.append),
        ):
            raise error
        assert caught.value.__notes__ == [goes_on] and not said
    with pytest.raises(GeneratorExit), going_on(lambda: 3, 9, "pictures are done", said.append):
        raise GeneratorExit
    assert said == [goes_on]

    def results() -> Generator[int]:
        with going_on(lambda: 3, 9, "pictures are done", said.append):
            yield 1

    for stopped, told in ((KeyboardInterrupt(), [goes_on]), (BrokenPipeError(), [])):
        said.clear()
        with pytest.raises(type(stopped)), contextlib.closing(results()) as numbers:
            next(numbers)
            raise stopped
        assert getattr(stopped, "__notes__", []) == told
        assert said == ([] if told else [goes_on])


@pytest.mark.parametrize(
    ("done", "force", "error", "told"),
    [
        (3, True, KeyboardInterrupt, ["the same command without --force goes on"]),
        (0, True, KeyboardInterrupt, ["the same command goes on"]),
        (3, False, ImageError, ["the same command goes on"]),
        (3, True, ImageError, ["the same command without --force goes on"]),
        (0, False, ImageError, []),
        (0, True, ImageError, []),
    ],
)
def test_which_command_goes_on_is_said(
    done: int, force: bool, error: type[BaseException], told: list[str]
) -> None:
    with (
        pytest.raises(error) as caught,
        going_on(lambda: done, 9, "pictures are done", force=force),
    ):
        raise error
    notes = [f"{done} of 9 pictures are done: {text}" for text in told]
    assert getattr(caught.value, "__notes__", []) == notes


@pytest.mark.parametrize("force", [False, True])
def test_a_run_that_starts_over_goes_on_without_force(
    model: Path, tmp_path: Path, force: bool
) -> None:
    pictures = [str(draw(tmp_path / "in" / f"{name}.png", 1)) for name in "ab"]
    said = list[str]()
    command = ExplainCommand(
        model=model,
        images=pictures,
        output=tmp_path / "out",
        options=Options(),
        report="none",
        force=force,
    )
    with contextlib.closing(explain_files(command, report=said.append)) as lines:
        next(lines)
    which = "the same command without --force" if force else "the same command"
    assert said[-1] == f"1 of 2 pictures are done: {which} goes on"


@pytest.mark.parametrize("to_file", [True, False])
def test_results_beside_a_bar(to_file: bool, model: Path, photos: Path, tmp_path: Path) -> None:
    """On a terminal results go above the bar; a file gets them as they are."""
    (photos / "03.png").write_bytes(b"no picture")
    terminal, end = pty.openpty()
    with (tmp_path / "results.txt").open("w") as file:
        command = [sys.executable, "-m", "lrp_onnx", "explain", model, photos, "-o"]
        process = subprocess.Popen(
            [*command, tmp_path / "out"], stdout=file if to_file else end, stderr=end
        )
        os.close(end)
        shown = b""
        with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
            while data := os.read(terminal, 4096):
                shown += data
        assert process.wait() == 1
    os.close(terminal)
    assert b"20 of 20" in shown and b"a second" in shown
    lines = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"\r", shown).split(b"\r")
    assert sum(line.startswith(b"not explained: ") for line in lines) == 1
    results = [line for line in lines if b"figure.png" in line]
    printed = (tmp_path / "results.txt").read_text().splitlines()
    assert (len(printed), len(results)) == ((19, 0) if to_file else (0, 19))
    assert not any(b" of 20" in line for line in results)
