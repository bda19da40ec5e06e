"""The wheel and the sdist of the last commit, built twice and tried where there is no repository.

    python -m tools.release.archives -o dist

Builds both from two copies of what is committed, which differ in folder, umask, time zone,
language, modes and times of files, and the wheel once more from the sdist: all have to be the same
bytes. Then looks into them, installs the wheel into a new environment, and runs it from an empty
folder with nothing else on the path. Beside the archives come SHA256SUMS and the SBOM
(`tools.release.sbom`).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from tools.release import sbom

ROOT = Path(__file__).parents[2]
OTHERWISE = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
"""Variables of the second build."""
UNWANTED = re.compile(r"(^|/)(tests|tools|\.venv|__pycache__)/|\.(pyc|pyo|log|tmp)$")
"""Names that an archive must not have."""
CALLS = (
    ("lrp-onnx", "demo", "-o", "shown"),
    ("lrp-onnx", "guide", "explaining"),
    ("lrp-onnx", "doctor"),
    (
        "python",
        "-c",
        "import lrp_onnx; from lrp_onnx.cli.demo import embedded; model, pictures = embedded(); "
        "print(lrp_onnx.explain(model, pictures / 'star.png').top5[0])",
    ),
)
"""What is run of the installed wheel."""


def build(
    source: Path,
    output: Path,
    *targets: str,
    umask: int = -1,
    variables: Mapping[str, str] | None = None,
) -> list[Path]:
    """Build the archives of a folder into another, `targets` (all: sdist, wheel); their paths.

    Raises:
        CalledProcessError: hatchling cannot.
    """
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(output)]
    for target in targets:
        command += ["-t", target]
    subprocess.run(
        command,
        cwd=source,
        env={**os.environ, **(variables or {})},
        umask=umask,
        check=True,
        capture_output=True,
    )
    return sorted(output.iterdir())


def faults(archive: Path, texts: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with an archive: files that do not belong there, or that hold a text."""
    for name, data in contents(archive):
        if UNWANTED.search(name):
            yield f"{archive.name} holds {name}"
        for text in texts:
            if text.encode() in data:
                yield f"{name} of {archive.name} holds {text!r}"


def contents(archive: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every file in a wheel or an sdist."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as packed:
            yield from ((name, packed.read(name)) for name in packed.namelist())
        return
    with tarfile.open(archive) as packed_tar:
        for member in packed_tar:
            if file := packed_tar.extractfile(member):
                yield member.name, file.read()


def digest(path: Path) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def committed(folder: Path) -> Path:
    """A copy of what is committed, without the repository."""
    command = ["git", "archive", "--format=tar", "HEAD"]
    packed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def build_otherwise(source: Path, output: Path) -> list[Path]:
    """As `build`, for another user on another day: the folder's modes and times are changed."""
    for path in source.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (1e9, 1e9))
    return build(source, output, umask=0o077, variables=OTHERWISE)


def wheel_of(sdist: Path, folder: Path) -> Path:
    """The wheel that an sdist builds, both in a new folder."""
    with tarfile.open(sdist) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    (wheel,) = build(source, folder / "built", "wheel")
    return wheel


def built_thrice(output: Path, scratch: Path) -> list[Path]:
    """The archives, in `output`.

    Raises:
        ClickException: builds differ.
    """
    first = build(committed(scratch / "one"), output)
    second = build_otherwise(committed(scratch / "an other folder"), scratch / "second")
    sdist, wheel = (next(p for p in first if p.name.endswith(end)) for end in (".gz", ".whl"))
    for path in (*second, wheel_of(sdist, scratch / "third")):
        if digest(path) != digest(output / path.name):
            raise click.ClickException(f"{path.name}: two builds differ")
    return [sdist, wheel]


def try_out(wheel: Path, folder: Path) -> None:
    """Install a wheel into a new environment and run it from an empty folder.

    Raises:
        CalledProcessError: it does not run.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    programs = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    install = [str(programs / "python"), "-m", "pip", "install", "--quiet", str(wheel)]
    subprocess.run(install, check=True)
    empty, home = folder / "empty", folder / "home"
    empty.mkdir()
    home.mkdir()
    alone = {"PATH": str(programs), "HOME": str(home), "PYTHONIOENCODING": "utf-8"}
    for program, *arguments in CALLS:
        subprocess.run(
            [str(programs / program), *arguments],
            cwd=empty,
            env=alone,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        click.echo(f"runs: {program} {arguments[0]}")


@click.command(help=__doc__)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("dist"))
def main(output: Path) -> None:
    if output.exists() and any(output.iterdir()):
        raise click.ClickException(f"{output} is not empty: name another folder")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        archives = built_thrice(output.absolute(), scratch)
        own = (str(ROOT), str(Path.home()) + os.sep, str(scratch))
        if found := [fault for archive in archives for fault in faults(archive, own)]:
            raise click.ClickException("\n".join(found))
        try_out(archives[-1], scratch)
    bill = output / "lrp_onnx.cdx.json"
    sbom.write(archives[-1], bill)
    sums = "".join(f"{digest(path)}  {path.name}\n" for path in [*archives, bill])
    (output / "SHA256SUMS").write_text(sums, encoding="utf-8")
    click.echo(sums, nl=False)


if __name__ == "__main__":
    main()
