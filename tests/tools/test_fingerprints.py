"""The fingerprints of one family are the same twice, and what has changed is listed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.relevance.graph.emission import EMISSIONS
from tools.zoo import fingerprints as tool

FAMILY, NAME = "core-qdq", "core-qdq.onnxruntime"
MODEL = Path(__file__).parents[2] / "models" / "shapes-resnet.onnx"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fingerprints")


@pytest.fixture(scope="module")
def found(folder: Path) -> tool.Found:
    assert tool.main(["--family", FAMILY, "-o", str(folder / "before.json")]) == 0
    before: tool.Found = json.loads((folder / "before.json").read_text(encoding="utf-8"))
    return before


def test_every_composite_runtime_and_error_has_its_own(found: tool.Found) -> None:
    assert set(found) == {NAME}
    forms = found[NAME]
    graphs = {forms[name]["graph"] for name in COMPOSITES}
    assert len(graphs) > len(COMPOSITES) / 2  # some are the same where nothing tells them apart
    assert {f"lrp-resnet for {runtime}" for runtime in EMISSIONS if runtime != "cpu"} <= set(forms)
    assert forms["lrp-resnet for cuda"] != forms["lrp-resnet"]
    refused = {form for form, one in forms.items() if "error" in one}
    assert refused == {
        "no such output",
        "start from no such start",
        *(f"{name} at 28" for name in tool.EMITTED),
    }
    kinds = {forms[form]["said"].partition(":")[0] for form in refused}
    assert kinds == {"RuleError", "ChoiceError"}


def test_twice_the_same_and_a_change_is_listed(
    found: tool.Found,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed: tool.Found = json.loads(json.dumps(found))
    forms = changed[NAME]
    forms["c3-lrp"]["graph"] = "0"
    forms["shuffled weights"]["metadata"] = "0"
    forms["no such output"]["error"] = "0"
    forms["gone"] = forms.pop("gradient")
    changed["another family's"] = {}
    (folder / "changed.json").write_text(json.dumps(changed), encoding="utf-8")
    now, against = folder / "now.json", str(folder / "changed.json")
    assert tool.main(["--family", FAMILY, "-o", str(now), "--against", against]) == 1
    listed = capsys.readouterr().out.splitlines()[1:]
    touched = ("c3-lrp", "gone", "gradient", "no such output", "shuffled weights")
    assert [line.partition(": ")[0] for line in listed] == [f"{NAME} | {form}" for form in touched]
    assert listed[0].endswith(": graph") and listed[4].endswith(": metadata")
    assert listed[1].endswith(": only before") and listed[2].endswith(": only now")
    assert json.loads(now.read_text(encoding="utf-8")) == found

    def again(jobs: Sequence[tool.Job]) -> tool.Found:
        assert [job.name for job in jobs] == [NAME]
        return found

    monkeypatch.setattr(tool, "fingerprints", again)
    assert tool.main(["--family", FAMILY, "--against", str(folder / "before.json")]) == 0
    assert "nothing has changed" in capsys.readouterr().out


def test_a_second_time_under_other_circumstances(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes have them, and what is not the same is listed."""
    seen = []

    def found(jobs: Sequence[tool.Job], *, elsewhere: bool = False) -> tool.Found:
        seen.append(elsewhere)
        return {NAME: {"form": {"graph": str(differs and elsewhere), "metadata": "2"}}}

    monkeypatch.setattr(tool, "fingerprints", found)
    for differs, said in ((False, "nothing has changed"), (True, f"{NAME} | form: graph")):
        assert tool.main(["--family", FAMILY, "--again"]) == int(differs)
        assert capsys.readouterr().out.splitlines()[1:] == [said]
    assert seen == [False, True] * 2

    before = dict(os.environ)
    with tool.changed({"PYTHONHASHSEED": "7"}):
        assert os.environ["PYTHONHASHSEED"] == "7"
    assert dict(os.environ) == before
    monkeypatch.setattr(time, "time", time.time)
    monkeypatch.chdir(Path.cwd())
    now, here = time.time(), Path.cwd()
    tool.move()
    assert time.time() > now + tool.LATER - 1 and Path.cwd() != here


def test_a_file_that_is_gone_is_a_change() -> None:
    one = {"form": {"graph": "1", "metadata": "2"}}
    changes = tool.differences({"a": one, "b": one}, {"a": one, "c": one})
    assert changes == ["b: only before", "c: only now"]
    refused = {"form": {"error": "3", "said": "RuleError: no"}}
    (change,) = tool.differences({"a": one}, {"a": refused})
    assert change == "a | form: compiled; now RuleError: no"


def test_paths_and_versions_do_not_count(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        path = tmp_path / name / "model.onnx"
        path.parent.mkdir()
        path.write_bytes(MODEL.read_bytes()[:1000])
        texts.append(tool.fingerprint(path, {}))
    assert texts[0] == texts[1] and "MODEL" in texts[0]["said"]
    model = tool.compile_model(MODEL).model
    before = tool.graph_of(model), tool.metadata_of(model)
    model.producer_version = "another"
    for entry in model.metadata_props:
        entry.value = "another" if entry.key == tool.VERSIONS else entry.value
    assert (tool.graph_of(model), tool.metadata_of(model)) == before
    model.graph.node[0].name = "another"
    model.metadata_props[0].value += " "
    assert tool.graph_of(model) != before[0] and tool.metadata_of(model) != before[1]


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (([], "--against"), (["--family", "none", "-o", "x"], "no family none")):
        with pytest.raises(SystemExit):
            tool.main(arguments)
        assert said in capsys.readouterr().err
