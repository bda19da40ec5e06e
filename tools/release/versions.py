"""The tests with the oldest and with the newest versions of what the package needs.

    python -m tools.release.versions oldest --python python3.11
    python -m tools.release.versions newest --python python3.13 -- tests/cli -k explain
    python -m tools.release.versions before --python python3.12

`oldest` installs exactly the lower bounds of pyproject.toml, `newest` what pip finds, `before` what
is not released yet as well. Each goes into a fresh environment, with a copy of the last commit.
Without arguments the tests of `TESTS` are run: about 2,500, a quarter of an hour on two cores.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

import click
from packaging.requirements import Requirement

from tools.release.archives import committed

ROOT = Path(__file__).parents[2]
KINDS = ("oldest", "newest", "before")
TESTS = (
    *("tests/cli", "tests/compiled", "tests/deploy", "tests/files", "tests/maps", "tests/model"),
    *("tests/plan", "tests/relevance/graph", "tests/relevance/post", "tests/report"),
    *("tests/runtime", "tests/test_api.py", "tests/test_compiler.py", "tests/test_imports.py"),
    *("tests/test_inputs.py", "tests/test_kinds.py", "tests/test_notation.py"),
)
"""What calls the dependencies; the formulas of rules are numpy's whatever its version."""


def oldest(requirements: Iterable[str]) -> list[str]:
    """The constraints that allow the lower bound of every requirement alone.

    Raises:
        ValueError: a requirement has no lower bound, or more than that.
    """
    constraints = []
    for text in requirements:
        wanted = Requirement(text)
        bounds = list(wanted.specifier)
        if len(bounds) != 1 or bounds[0].operator != ">=":
            raise ValueError(f"{text!r} is not one lower bound")
        marker = f"; {wanted.marker}" if wanted.marker else ""
        constraints.append(f"{wanted.name}=={bounds[0].version}{marker}")
    return constraints


def needed() -> list[str]:
    """The requirements of the package in pyproject.toml, without extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["dependencies"])


def installed(kind: str, python: str, source: Path, folder: Path) -> Path:
    """Install the package of `source` and what its tests need into a new environment, in `folder`;
    return its Python.

    Raises:
        CalledProcessError: an interpreter or a version cannot be had.
    """
    subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True)
    programs = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    pip = [str(programs / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", "pip"], check=True)
    given = ["-e", f"{source}[dev]"]
    if kind == "oldest":
        constraints = folder / "oldest.txt"
        constraints.write_text("\n".join(oldest(needed())) + "\n", encoding="utf-8")
        given += ["-c", str(constraints)]
    if kind == "before":
        given = ["--pre", *needed(), *given]
    subprocess.run([*pip, *given], check=True)
    return programs / "python"


@click.command(help=__doc__)
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--python", default=sys.executable, help="The interpreter of the environment.")
@click.argument("arguments", nargs=-1)
def main(kind: str, python: str, arguments: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = committed(Path(folder) / "source")
        program = str(installed(kind, python, source, Path(folder)))
        subprocess.run([program, "--version"], check=True)
        subprocess.run([program, "-m", "pip", "list", "--format", "freeze"], check=True)
        command = [program, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"]
        sys.exit(subprocess.run([*command, *(arguments or TESTS)], cwd=source).returncode)


if __name__ == "__main__":
    main()
