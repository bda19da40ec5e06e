"""The programs of the guide `other-languages`, compiled and run: what they print is Python's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from pages import MODELS, blocks_of

from lrp_onnx import Explainer
from lrp_onnx.compiler import Options, compile_model

pytest.importorskip("fcntl", reason="environments are made on Linux and macOS alone")

from tools.runtimes.environments import node_of
from tools.runtimes.errors import UnavailableError
from tools.runtimes.registry import NODE

pytestmark = pytest.mark.runtimes

LONGEST = 60
"""Lines of a program that is read in one go."""
ASKED: Sequence[int | None] = (None, 0, 3, 9)
PHOTOS = ("heart", "star")

Command = list[str]


def program(language: str) -> str:
    (text,) = (block.text for block in blocks_of("other-languages") if block.language == language)
    return text


def run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def node_packages() -> tuple[str, Path]:
    """Node, and the folder of `onnxruntime-node` among the installed packages."""
    try:
        node, folder = node_of(NODE)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    return node, folder / "node_modules"


def in_cpp(folder: Path) -> Command:
    """With the headers that g++ finds, and the library of `onnxruntime-node`."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++")
    include = ["-I/usr/include/onnxruntime"]
    header = "#include <onnxruntime_cxx_api.h>\n"
    probe = [compiler, *include, "-fsyntax-only", "-std=c++17", "-xc++", "-"]
    if subprocess.run(probe, input=header, text=True, capture_output=True).returncode:
        pytest.skip("no headers of ONNX Runtime: install libonnxruntime-dev, or set CPATH")
    _, packages = node_packages()
    (library,) = packages.glob("onnxruntime-node/bin/napi-v*/linux/x64/libonnxruntime.so.1")
    (folder / "explain.cpp").write_text(program("cpp"), encoding="utf-8")
    strict = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", *include]
    ends = [str(library), f"-Wl,-rpath,{library.parent}", "-o", "explain"]
    run([compiler, *strict, "explain.cpp", *ends], folder)
    return ["./explain"]


def in_javascript(folder: Path) -> Command:
    node, packages = node_packages()
    (folder / "node_modules").symlink_to(packages, target_is_directory=True)
    (folder / "explain.mjs").write_text(program("javascript"), encoding="utf-8")
    return [node, "explain.mjs"]


def in_java(folder: Path) -> Command:
    """With the jar that the environment variable CLASSPATH names."""
    compiler, java = shutil.which("javac"), shutil.which("java")
    if compiler is None or java is None:
        pytest.skip("there is no Java")
    if "CLASSPATH" not in os.environ:
        pytest.skip("no ONNX Runtime for Java: set CLASSPATH to onnxruntime.jar")
    (folder / "Explain.java").write_text(program("java"), encoding="utf-8")
    run([compiler, "-Xlint:all", "-Werror", "-d", ".", "Explain.java"], folder)
    return [java, "-cp", f"{os.environ['CLASSPATH']}{os.pathsep}.", "Explain"]


BUILD: Mapping[str, Callable[[Path], Command]] = {
    "cpp": in_cpp,
    "javascript": in_javascript,
    "java": in_java,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model.onnx``, compiled, and prepared photos."""
    folder = tmp_path_factory.mktemp("languages")
    options = Options(optimize_for="portable")
    compile_model(MODELS / "shapes-resnet.onnx", options).save(folder / "model.onnx")
    for name in PHOTOS:
        photo = cv2.imread(str(MODELS / "samples" / f"{name}.png"))
        cv2.imwrite(str(folder / f"{name}.ppm"), cv2.resize(photo, (96, 96)))
    return folder


def in_python(folder: Path, photo: str, asked: int | None) -> tuple[int, float, float]:
    """The predicted class, and x and y of the centre of mass."""
    explanation = Explainer(folder / "model.onnx")(folder / photo, target=asked)
    relevance = np.maximum(explanation.heatmap, 0).astype(np.float64)
    columns, rows = relevance.sum(axis=0), relevance.sum(axis=1)
    x, y = (float(np.average(np.arange(one.size), weights=one)) for one in (columns, rows))
    return int(np.argmax(explanation.scores)), x, y


@pytest.fixture(scope="module", params=BUILD)
def command(request: pytest.FixtureRequest, folder: Path) -> Command:
    """What runs a program, compiled."""
    return BUILD[request.param](folder)


def test_a_program_prints_what_python_prints(command: Command, folder: Path) -> None:
    found = {}
    for photo in (f"{name}.ppm" for name in PHOTOS):
        for asked in ASKED:
            arguments = [] if asked is None else [str(asked)]
            said = run([*command, "model.onnx", photo, *arguments], folder)
            match = re.fullmatch(r"class (\d+), centre of mass x (\S+), y (\S+)\n", said)
            assert match, said
            best, x, y = in_python(folder, photo, asked)
            assert int(match[1]) == best
            assert float(match[2]) == pytest.approx(x, abs=1e-3)
            assert float(match[3]) == pytest.approx(y, abs=1e-3)
            found[photo, asked] = match[2], match[3]
    assert len(set(found.values())) == len(found), "every class has a map of its own"


def test_what_is_no_ppm_file_is_refused(command: Command, folder: Path) -> None:
    (folder / "cut.ppm").write_bytes(b"P6\n96 96\n65535\n")
    done = subprocess.run(
        [*command, "model.onnx", "cut.ppm"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0 and not done.stdout and "PPM" in done.stderr.upper()


@pytest.mark.parametrize("language", BUILD)
def test_a_program_is_short(language: str) -> None:
    lines = program(language).splitlines()
    assert len(lines) <= LONGEST and max(map(len, lines)) <= 100
