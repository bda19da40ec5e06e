"""Installing: the CPU-only line, compiling without a runtime, and what a wheel holds."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from pages import PAGES, ROOT

from tools.release import archives

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODEL = ROOT / "models" / "shapes-resnet.onnx"
WITHOUT_RUNTIME = """
import sys


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'")


sys.meta_path.insert(0, Missing())
"""
"""Begins a program that cannot import onnxruntime."""


@pytest.mark.parametrize("page", ["README", "installing"])
def test_the_cpu_line_lists_the_dependencies(page: str) -> None:
    """All of them with their versions, and the small runtime alone."""
    text = PAGES[page].read_text(encoding="utf-8")
    (line,) = re.findall(r"^<!-- cpu only -->\n```bash\n(.*)\n```$", text, re.M)
    first, second = line.split(" && ")
    listed = shlex.split(first)
    assert listed[:2] == ["pip", "install"] and second == "pip install --no-deps ."
    wanted = {name.partition(";")[0].strip() for name in PROJECT["dependencies"]}
    (large,) = {name for name in wanted if name.startswith("onnxruntime-gpu")}
    assert set(listed[2:]) == wanted - {large} and len(listed) == len(wanted) + 1


def test_every_extra_is_listed() -> None:
    text = PAGES["installing"].read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z-]+)` \|", text, re.M)
    assert sorted(listed) == sorted(PROJECT["optional-dependencies"])


def without_runtime(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_RUNTIME + program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    "arguments",
    [["plan", str(MODEL)], ["compile", str(MODEL), "-o", "c.onnx", "--no-check"], ["composites"]],
    ids=lambda arguments: arguments[0],
)
def test_the_compile_half_needs_no_runtime(arguments: list[str], tmp_path: Path) -> None:
    call = f"from lrp_onnx.cli.commands import main\nmain({arguments!r})"
    done = without_runtime(call, tmp_path)
    assert done.returncode == 0, done.stderr


def test_python_compiles_without_a_runtime(tmp_path: Path) -> None:
    call = f"import lrp_onnx\nlrp_onnx.compile_model({str(MODEL)!r}).save('c.onnx')"
    done = without_runtime(call, tmp_path)
    assert done.returncode == 0 and (tmp_path / "c.onnx").stat().st_size > 1e6, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["compile", str(MODEL), "-o", "d.onnx"], ["verify", "c.onnx"]],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_a_runtime_says_so(arguments: list[str], tmp_path: Path) -> None:
    call = (
        "import lrp_onnx\nfrom lrp_onnx.cli.commands import main\n"
        f"lrp_onnx.compile_model({str(MODEL)!r}).save('c.onnx')\nmain({arguments!r})"
    )
    done = without_runtime(call, tmp_path)
    assert done.returncode == 1 and "ONNX Runtime cannot be imported" in done.stderr


def copy_of_the_repository(folder: Path) -> Path:
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("lrp_onnx", "models", "tests/maps"):
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    for name in (
        *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"),
        ".gitignore",
    ):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheel and the sdist of a copy of the repository, built without the network."""
    folder = tmp_path_factory.mktemp("built")
    wheel, sdist = archives.build(copy_of_the_repository(folder / "copy"), folder / "dist")
    assert wheel.suffix == ".whl" and sdist.suffix == ".gz"
    return [wheel, sdist]


@pytest.fixture(scope="module")
def wheel(built: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(built[0]) as packed:
        packed.extractall(folder)
    return folder


def test_archives_are_the_same_bytes_for_everyone(built: list[Path], tmp_path: Path) -> None:
    again = archives.build_otherwise(copy_of_the_repository(tmp_path / "ä b"), tmp_path / "again")
    for path in (*again, archives.wheel_of(built[1], tmp_path / "of the sdist")):
        (first,) = [one for one in built if one.name == path.name]
        assert path.read_bytes() == first.read_bytes(), path


def test_archives_hold_nothing_of_the_machine(built: list[Path]) -> None:
    own = (str(ROOT), str(built[0].parent))
    for archive in built:
        names = [name for name, _ in archives.contents(archive)]
        assert any(name.endswith("lrp_onnx/py.typed") for name in names)
        assert list(archives.faults(archive, own)) == []


def test_what_does_not_belong_into_an_archive_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a/__pycache__/b.cpython-311.pyc", b"")
        packed.writestr("tests/test_b.py", b"")
        packed.writestr("a/c.py", b"HOME = '/home/me/work'")
    assert list(archives.faults(path, ("/home/me",))) == [
        "a.whl holds a/__pycache__/b.cpython-311.pyc",
        "a.whl holds tests/test_b.py",
        "a/c.py of a.whl holds '/home/me'",
    ]


def test_a_wheel_holds_every_file_and_the_samples(wheel: Path) -> None:
    def files(root: Path) -> set[str]:
        paths = (path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix() for path in paths if path.suffix != ".pyc"}

    samples = {f"samples/{path.name}" for path in (ROOT / "models" / "samples").glob("*.png")}
    embedded = {f"embedded/{name}" for name in ("shapes-resnet.onnx", *samples)}
    assert files(wheel / "lrp_onnx") == files(ROOT / "lrp_onnx") | embedded
    assert {path.name.partition("-")[0] for path in wheel.iterdir()} == {"lrp_onnx"}
    assert sum(path.stat().st_size for path in wheel.rglob("*") if path.is_file()) < 5e6
    (licence,) = wheel.glob("*.dist-info/licenses/LICENSE")
    assert licence.read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_demo_of_a_wheel(wheel: Path, tmp_path: Path) -> None:
    """From an empty folder, without the repository."""
    call = (
        "import sys\nsys.path.insert(0, sys.argv.pop(1))\n"
        "import lrp_onnx\nfrom lrp_onnx.cli.commands import main\n"
        "print(lrp_onnx.__file__)\nmain(['demo', '-o', 'shown'])"
    )
    command = [sys.executable, "-c", call, str(wheel)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    where, *lines = done.stdout.splitlines()
    assert Path(where).is_relative_to(wheel)
    assert len(lines) == 4 and all(str(wheel) in line for line in lines)
    assert len(list((tmp_path / "shown").glob("*.npz"))) == 4
