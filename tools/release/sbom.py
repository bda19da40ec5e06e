"""The list of what is installed with a wheel (SBOM), as CycloneDX 1.6 in JSON.

    python -m tools.release.sbom dist/*.whl -o dist/lrp_onnx.cdx.json

pip says which versions it would install on this machine today, with their licences and the
hashes of their archives; nothing is installed. The list lies beside the wheel and not in it: it
holds the wheel's own hash, and versions that a wheel does not fix. The same answer of pip gives
the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import uuid
import venv
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import click
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Json = dict[str, Any]
EMBEDDED = "lrp_onnx/embedded/"
"""Where a wheel has what is data and no code."""
KINDS = {".onnx": "machine-learning-model", ".png": "data"}
"""Ending of a file of data → CycloneDX's word for it."""
LONGEST_NAME = 80
"""Characters of a licence's name; what is longer is the licence itself."""


def resolved(wheel: Path) -> Json:
    """The report of the newest pip on what it would install for a wheel, on this machine and
    Python. Older ones leave out what licence a package states.

    Raises:
        CalledProcessError: there is no index, or it has no such versions.
    """
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = shutil.which("python", path=f"{folder}/bin{os.pathsep}{folder}/Scripts")
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--upgrade", "pip"], check=True)
        report = Path(folder) / "report.json"
        subprocess.run([*pip, "--dry-run", "--report", str(report), str(wheel)], check=True)
        found: Json = json.loads(report.read_text(encoding="utf-8"))
    return found


def bill(report: Json, wheel: Path) -> Json:
    """The list for a wheel, of pip's report on it.

    Raises:
        ValueError: the report is not of this wheel.
    """
    packages = {_name(one): one for one in report["install"]}
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    own = [name for name, one in packages.items() if one.get("is_direct")]
    if len(own) != 1 or _hash(packages[own[0]]) != digest:
        raise ValueError(f"the report is not of {wheel.name}")
    environment = report["environment"]
    platform = "{implementation_name} {python_full_version} on {sys_platform}, {platform_machine}"
    rest = [_component(packages[name]) for name in sorted(packages.keys() - own)]
    content = {
        "metadata": {
            "component": _component(packages[own[0]]) | {"components": _data(wheel)},
            "properties": [
                {"name": "resolved for", "value": platform.format_map(environment)},
            ],
        },
        "components": rest,
        "dependencies": [
            {"ref": _purl(packages[name]), "dependsOn": _needs(packages, name, environment)}
            for name in sorted(packages)
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        **content,
    }


def _component(package: Json) -> Json:
    metadata = package["metadata"]
    return {
        "type": "library",
        "bom-ref": _purl(package),
        "name": metadata["name"],
        "version": metadata["version"],
        "purl": _purl(package),
        "licenses": licences(metadata),
        "hashes": [{"alg": "SHA-256", "content": _hash(package)}],
    }


def _name(package: Json) -> str:
    return canonicalize_name(package["metadata"]["name"])


def _purl(package: Json) -> str:
    return f"pkg:pypi/{_name(package)}@{package['metadata']['version']}"


def _hash(package: Json) -> str:
    return str(package["download_info"]["archive_info"]["hashes"]["sha256"])


def licences(metadata: Json) -> list[Json]:
    """A package's licences as its metadata says them; empty where it says none.

    In this order: an SPDX expression, classifiers, the old field of free text.
    """
    if expression := metadata.get("license_expression"):
        return [{"expression": expression}]
    classified = [c for c in metadata.get("classifier", []) if c.startswith("License ::")]
    names = sorted({c.rpartition(" :: ")[2] for c in classified} - {"OSI Approved"})
    if not names and (text := metadata.get("license", "").strip()):
        names = [text.splitlines()[0][:LONGEST_NAME]]
    return [{"license": {"name": name}} for name in names]


def _needs(packages: Json, name: str, environment: Json) -> list[str]:
    """What a package needs of the others, extras left out."""
    needed = [Requirement(text) for text in packages[name]["metadata"].get("requires_dist", [])]
    holds = environment | {"extra": ""}
    names = {
        canonicalize_name(one.name)
        for one in needed
        if one.marker is None or one.marker.evaluate(holds)
    }
    return [_purl(packages[one]) for one in sorted(names) if one in packages]


def _data(wheel: Path) -> list[Json]:
    """The files of a wheel that are data and no code."""
    with zipfile.ZipFile(wheel) as packed:
        names = sorted(name for name in packed.namelist() if name.startswith(EMBEDDED))
        hashes = {name: hashlib.sha256(packed.read(name)).hexdigest() for name in names}
    return [
        {
            "type": KINDS.get(PurePosixPath(name).suffix, "file"),
            "bom-ref": name,
            "name": name,
            "licenses": [{"expression": "Apache-2.0"}],
            "hashes": [{"alg": "SHA-256", "content": digest}],
        }
        for name, digest in hashes.items()
    ]


def write(wheel: Path, output: Path) -> Json:
    """Resolve what a wheel needs, write the list, and return it."""
    found = bill(resolved(wheel), wheel)
    output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8", newline="\n")
    return found


@click.command(help=__doc__)
@click.argument("wheel", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(wheel: Path, output: Path) -> None:
    for component in write(wheel, output)["components"]:
        licence = component["licenses"] or [{"expression": "no licence stated"}]
        names = [one.get("expression") or one["license"]["name"] for one in licence]
        click.echo(f"{component['name']:20} {component['version']:12} {', '.join(names)}")


if __name__ == "__main__":
    main()
