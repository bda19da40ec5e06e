"""The guides and the README do as they say: their commands and code run, in order, as written."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pages import BLOCK, MARK, PAGES, ROOT, blocks_of, run, set_up, shell

import lrp_onnx
from lrp_onnx.cli.commands import main
from lrp_onnx.cli.guide import guides
from lrp_onnx.evaluation.baselines import BASELINES
from lrp_onnx.maps.chain import STEPS
from lrp_onnx.relevance.composites.assign import WHICH
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.relevance.rules.table import RULES
from lrp_onnx.runtime.preprocess import PRESETS

NOT_RUN: Mapping[str, list[str]] = {
    "annotations": [
        "tests/runtimes/test_readers.py runs it",
        "the settings of a project",
        "tests/runtimes/test_readers.py runs it",
        "tests/runtimes/test_readers.py runs it",
    ],
    "README": [
        "installs packages",
        "installs packages",
        "installs packages and runs this test",
    ],
    "browser": ["serves until it is stopped", "installs packages", "settings of a host"],
    "bulk": ["installs packages", "needs Ray", "needs Ray", "needs Ray"],
    "installing": [
        "installs packages",
        "installs packages",
        "the line of another shell",
        "the line of another shell",
    ],
    "kernels": ["needs a GPU"],
    "other-languages": ["tests/runtimes/test_other_languages.py runs it"] * 6,
    "runtimes": [
        "needs Node or a browser",
        "needs OpenVINO",
        "needs tract",
        "the form depends on the version of OpenCV",
        "needs a C++ compiler and OpenCV",
        "needs MNN",
    ],
    "security": ["builds a release"],
    "serving": [
        "needs a server",
        "needs tritonclient and a server",
        "needs a cluster",
        "needs a server",
        "needs OpenVINO",
        "needs MLflow",
    ],
}
"""Page → why blocks of it are not run here. Everything else is."""


def text_of(page: str) -> str:
    return PAGES[page].read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_works_as_written(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(page, tmp_path)


def test_what_is_not_run_is_listed() -> None:
    found = {page: [b.not_run for b in blocks_of(page) if b.not_run is not None] for page in PAGES}
    assert {page: reasons for page, reasons in found.items() if reasons} == NOT_RUN
    for page in PAGES:
        for block in blocks_of(page):
            assert block.not_run is not None or block.language in ("bash", "python"), block.text


def test_every_fence_and_mark_is_read() -> None:
    for page in PAGES:
        text = text_of(page)
        assert text.count("```") == 2 * len(blocks_of(page)), page
        assert len(MARK.findall(text)) == sum(len(MARK.findall(m[0])) for m in BLOCK.findall(text))


def test_a_line_that_fails_is_seen(tmp_path: Path) -> None:
    programs = set_up(tmp_path)
    assert shell("lrp-onnx guide\ntrue", tmp_path, programs).returncode == 0
    assert shell("lrp-onnx plan none.onnx\ntrue", tmp_path, programs).returncode != 0


def test_links_lead_somewhere() -> None:
    for page, path in PAGES.items():
        for target in re.findall(r"\]\(([^)#:]+)\)", text_of(page)):
            assert (path.parent / target).exists(), (page, target)
        for name in re.findall(r"guides?((?: `[a-z-]+`(?:,| and)?)+)", text_of(page)):
            assert set(re.findall(r"`([a-z-]+)`", name)) <= set(PAGES), (page, name)


def parameters(value: Any) -> str:
    """Parameters and defaults of an option, as they are written."""
    given = {field.name: getattr(value, field.name) for field in fields(value)}
    texts = {
        name: str(one).lower() if isinstance(one, bool) else f"{one:g}"
        for name, one in given.items()
        if isinstance(one, int | float)
    } | {name: one for name, one in given.items() if isinstance(one, str)}
    return ", ".join(f"`{name}={texts[name]}`" for name in given if name in texts)


def option_rows(options: Mapping[str, Any]) -> list[str]:
    """Name, first sentence of the docstring, parameters and defaults."""
    rows = []
    for name, value in options.items():
        first = (inspect.getdoc(type(value)) or "").split("\n\n")[0]
        said = first.replace("\n", " ").replace("``", "`").replace("|", "\\|")
        rows.append(f"| `{name}` | {said} | {parameters(value)} |")
    return rows


def composite_rows() -> list[str]:
    rows = ["| composite | what it does | starts from | source |", "|---|---|---|---|"]
    return rows + [
        f"| `{name}` | {c.title} | {c.start} | {c.source} |" for name, c in COMPOSITES.items()
    ]


@pytest.mark.parametrize(
    ("page", "rows"),
    [
        ("composites", composite_rows()),
        ("composites", option_rows(RULES)),
        ("judging", option_rows(BASELINES)),
    ],
    ids=["composites", "rules", "baselines"],
)
def test_a_table_is_its_registry(page: str, rows: list[str]) -> None:
    assert "\n".join(rows) in text_of(page), "the table is now\n" + "\n".join(rows)


def test_every_choice_is_named() -> None:
    """Kinds of steps, steps of post-processing, presets, metrics and public names."""
    for names, page in (
        (WHICH, "composites"),
        (STEPS, "post-processing"),
        (PRESETS, "limits"),
        (set(lrp_onnx.__all__) - {"__version__"}, "api"),
    ):
        for name in names:
            assert re.search(rf"\b{re.escape(name)}\b", text_of(page)), (page, name)
    said = CliRunner().invoke(main, ["evaluate", "--help"]).stdout.split("Metrics,")[1]
    metrics = set(re.findall(r"[a-z]+(?:-[a-z]+)*", said.split("[default")[0].replace("\n", " ")))
    listed = set(re.findall(r"`([a-z-]+)`", text_of("judging")))
    assert {"exact", "keio", "rise", "srg", "mosaic", "lattice", "adcc"} <= metrics & listed


def test_the_steps_defaults_are_said() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", text_of("post-processing"), re.M))
    assert list(rows) == list(STEPS)
    for name, step in STEPS.items():
        if name != "c1c":  # as c3, with one other default
            assert rows[name] == parameters(step)
    assert parameters(STEPS["c1c"]) == rows["c3"].replace("component=area", "component=peak")


def test_guides_are_listed_and_shown() -> None:
    listed = CliRunner().invoke(main, ["guide"]).stdout
    assert set(guides()) == set(PAGES) - {"README"}
    for name, title in guides().items():
        assert re.search(rf"^{name} +{re.escape(title)}", listed, re.M)
        assert title and not title.startswith("#")
        shown = CliRunner().invoke(main, ["guide", name]).stdout
        assert shown.startswith(f"# {title}\n") and "<!--" not in shown


def test_a_terminal_gets_no_markdown() -> None:
    """Styled in a terminal, unless --raw is given."""
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}
    shown = CliRunner().invoke(main, ["guide", "speed"], env=terminal, color=True).stdout
    assert "\x1b[" in shown and "```" not in shown and "<!--" not in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "Speed and memory" in plain and max(map(len, plain.splitlines())) <= 80
    raw = CliRunner().invoke(main, ["guide", "speed", "--raw"], env=terminal, color=True).stdout
    assert raw.startswith("# Speed and memory\n") and "\x1b[" not in raw


def test_no_name_is_cut_in_a_terminal() -> None:
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}
    shown = CliRunner().invoke(main, ["guide", "composites"], env=terminal, color=True).stdout
    words = set(re.sub(r"\x1b\[[0-9;]*m", "", shown).split())
    assert COMPOSITES.keys() | RULES.keys() <= words


def test_an_unknown_topic() -> None:
    found = CliRunner().invoke(main, ["guide", "composite"])
    assert found.exit_code == 1 and "did you mean composites?" in found.stderr
    found = CliRunner().invoke(main, ["guide", "../guides/speed"])
    assert found.exit_code == 1 and "there is no guide" in found.stderr


def test_completion_knows_the_commands(tmp_path: Path) -> None:
    programs = set_up(tmp_path)
    line = shlex.quote('eval "$(_LRP_ONNX_COMPLETE=bash_source lrp-onnx)"; complete -p lrp-onnx')
    assert "lrp_onnx_completion" in shell(f"bash -c {line}", tmp_path, programs).stdout
    asked = {
        "COMP_WORDS": "lrp-onnx expl",
        "COMP_CWORD": "1",
        "_LRP_ONNX_COMPLETE": "bash_complete",
    }
    found = shell("lrp-onnx", tmp_path, programs, **asked)
    assert found.stdout.split() == ["plain,explain"]


def test_the_pages_are_in_the_package() -> None:
    assert (Path(lrp_onnx.__file__).parent / "guides").samefile(ROOT / "lrp_onnx" / "guides")
