"""What a release says of the versions that it needs: its SBOM, and its oldest dependencies."""

from __future__ import annotations

import copy
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tools.release.sbom import bill, licences
from tools.release.versions import TESTS, needed, oldest

ROOT = Path(__file__).parents[2]


def package(name: str, digest: str, **metadata: Any) -> dict[str, Any]:
    """An entry of pip's report."""
    return {
        "download_info": {"archive_info": {"hashes": {"sha256": digest}}},
        "is_direct": False,
        "metadata": {"name": name, "version": "2.0", **metadata},
    }


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "lrp_onnx-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("lrp_onnx/__init__.py", "")
        packed.writestr("lrp_onnx/embedded/shapes.onnx", b"weights")
        packed.writestr("lrp_onnx/embedded/samples/star.png", b"star")
    return path


@pytest.fixture
def report(wheel: Path) -> dict[str, Any]:
    """Of a package that needs two others, one of them through the first, on Linux."""
    own = package(
        "lrp-onnx",
        hashlib.sha256(wheel.read_bytes()).hexdigest(),
        license_expression="Apache-2.0",
        requires_dist=[
            "Zeta.One>=1",
            "winonly>=1; sys_platform == 'win32'",
            "dev-tool>=1; extra == 'dev'",
        ],
    )
    return {
        "install": [
            own | {"is_direct": True},
            package("zeta_one", "22" * 32, requires_dist=["alpha"]),
            package("alpha", "11" * 32, license="MIT"),
            package("dev-tool", "33" * 32),
        ],
        "environment": {
            "implementation_name": "cpython",
            "python_full_version": "3.11.7",
            "sys_platform": "linux",
            "platform_machine": "x86_64",
        },
    }


def test_the_sbom_lists_packages_data_and_who_needs_whom(
    wheel: Path, report: dict[str, Any]
) -> None:
    found = bill(report, wheel)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert [one["purl"] for one in found["components"]] == [
        "pkg:pypi/alpha@2.0",
        "pkg:pypi/dev-tool@2.0",
        "pkg:pypi/zeta-one@2.0",
    ]
    assert found["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "11" * 32}]
    assert found["components"][0]["licenses"] == [{"license": {"name": "MIT"}}]
    needs = {one["ref"]: one["dependsOn"] for one in found["dependencies"]}
    assert needs["pkg:pypi/lrp-onnx@2.0"] == ["pkg:pypi/zeta-one@2.0"]
    assert needs["pkg:pypi/zeta-one@2.0"] == ["pkg:pypi/alpha@2.0"]
    own = found["metadata"]["component"]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert own["hashes"][0]["content"] == digest
    assert [(one["type"], one["name"]) for one in own["components"]] == [
        ("data", "lrp_onnx/embedded/samples/star.png"),
        ("machine-learning-model", "lrp_onnx/embedded/shapes.onnx"),
    ]
    weights = hashlib.sha256(b"weights").hexdigest()
    assert own["components"][1]["hashes"][0]["content"] == weights


def test_the_sbom_is_the_same_for_the_same_answer(wheel: Path, report: dict[str, Any]) -> None:
    turned = copy.deepcopy(report)
    turned["install"].reverse()
    assert json.dumps(bill(turned, wheel)) == json.dumps(bill(report, wheel))
    turned["install"][0]["metadata"]["version"] = "2.1"
    assert bill(turned, wheel)["serialNumber"] != bill(report, wheel)["serialNumber"]


def test_the_sbom_is_of_one_wheel(wheel: Path, report: dict[str, Any]) -> None:
    with zipfile.ZipFile(wheel, "a") as packed:
        packed.writestr("more.txt", "")
    with pytest.raises(ValueError, match=r"not of lrp_onnx-0\.1\.0"):
        bill(report, wheel)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"license_expression": "MIT OR 0BSD", "license": "x"}, [{"expression": "MIT OR 0BSD"}]),
        (
            {"classifier": ["License :: OSI Approved :: BSD License", "Typing :: Typed"]},
            [{"license": {"name": "BSD License"}}],
        ),
        ({"license": "MIT License\n\nCopyright (c)"}, [{"license": {"name": "MIT License"}}]),
        ({}, []),
    ],
)
def test_licences_are_what_the_metadata_says(metadata: dict[str, Any], expected: object) -> None:
    assert licences(metadata) == expected


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    assert oldest(["a>=1.2", "b>=3; sys_platform == 'linux'"]) == [
        "a==1.2",
        'b==3; sys_platform == "linux"',
    ]
    for text in ("a", "a>=1,<2", "a==1"):
        with pytest.raises(ValueError, match="not one lower bound"):
            oldest([text])
    assert len(oldest(needed())) == len(needed())


def test_the_tests_of_versions_are_there() -> None:
    assert all((ROOT / path).exists() for path in TESTS)
