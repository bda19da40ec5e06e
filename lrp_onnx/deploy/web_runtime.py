"""onnxruntime-web, which the page in the browser runs models with: from a CDN, or copied."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrp_onnx.errors import ProviderError, shown

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
"""The version that the CDN gives out, and that the page is tested with."""
CDN = "https://cdn.jsdelivr.net"
FOLDER = "runtime"
"""Where a copied runtime lies in the site's folder."""
FILES: Mapping[str, Mapping[str, str]] = {
    "webgpu": {
        "module": "ort.webgpu.min.mjs",
        "loader": "ort-wasm-simd-threaded.asyncify.mjs",
        "binary": "ort-wasm-simd-threaded.asyncify.wasm",
    },
    "wasm": {
        "module": "ort.wasm.min.mjs",
        "loader": "ort-wasm-simd-threaded.mjs",
        "binary": "ort-wasm-simd-threaded.wasm",
    },
}
"""Processor → the package's files that it takes. The package's default import is not among them:
its WebGPU provider is another, which computes maps wrongly without an error.
"""
INTEGRITY: Mapping[str, str] = {
    "ort.webgpu.min.mjs": (
        "sha384-FPQBMbud8ICuP0Ii+Gr95KWEX9pKHtUC3lacIp0aPI8WYluKvTsEGQ3AE2Ze3QlL"
    ),
    "ort-wasm-simd-threaded.asyncify.mjs": (
        "sha384-qViEcCGzsR/m8nlQwIsbYh7afN4thuraqFYDQY6huvmoLVoZq/eYawQ1wrv8nnhA"
    ),
    "ort-wasm-simd-threaded.asyncify.wasm": (
        "sha384-EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR"
    ),
    "ort.wasm.min.mjs": "sha384-SfFfy/pvthiOsgaw3KX0bV5TfQ6Iq+oY9KutMe4SxIuHH4cl+DCSD4rTsYOoG1tJ",
    "ort-wasm-simd-threaded.mjs": (
        "sha384-XcXA/MtAf0WpB8e023xQH9CM7RIjiugakT7x99DIwpFf7k56BIFFcAPerIF7FDad"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM"
    ),
}
"""File of `VERSION` → its hash, without which the browser refuses it."""


@dataclass(frozen=True, slots=True, eq=False)
class WebRuntime:
    """Where the page finds its runtime."""

    base: str = f"{CDN}/npm/{PACKAGE}@{VERSION}/dist/"
    """Address before the files' names, ending in a slash; relative to the page where copied."""
    version: str = VERSION
    integrity: Mapping[str, str] = field(default_factory=lambda: INTEGRITY)
    copied: Mapping[str, bytes] = field(default_factory=dict)
    """Name → bytes of the files that are part of the site."""

    @property
    def origin(self) -> str:
        """What a page must be allowed to load from besides its own site; empty for nothing."""
        return "" if self.copied else CDN

    def facts(self) -> dict[str, Any]:
        """What the page reads, as JSON-ready data."""
        return {
            "version": self.version,
            "base": self.base,
            "files": {kind: dict(files) for kind, files in FILES.items()},
            "integrity": dict(self.integrity),
        }


def installed_runtime(folder: Path) -> WebRuntime:
    """The runtime of an npm package, to be copied.

    Args:
        folder: ``node_modules/onnxruntime-web``, ``node_modules``, or the folder that holds it.

    Raises:
        ProviderError: the package is not there, or lacks files.
    """
    places = (folder, folder / PACKAGE, folder / "node_modules" / PACKAGE)
    first = FILES["wasm"]["module"]
    package = next((place for place in places if (place / "dist" / first).is_file()), None)
    if package is None:
        raise ProviderError(
            f"{shown(folder)} holds no {PACKAGE}: run npm install {PACKAGE}@{VERSION}, and give "
            f"--runtime node_modules/{PACKAGE}"
        )
    copied = {}
    for name in INTEGRITY:
        try:
            copied[name] = (package / "dist" / name).read_bytes()
        except OSError as error:
            raise ProviderError(
                f"{shown(package)} lacks dist/{name} ({error.strerror or error}): install version "
                f"{VERSION}, npm install {PACKAGE}@{VERSION}"
            ) from error
    return WebRuntime(
        base=f"{FOLDER}/",
        version=_version(package / "package.json"),
        integrity={name: hash_of(data) for name, data in copied.items()},
        copied=copied,
    )


def hash_of(data: bytes) -> str:
    """The hash of a file as browsers check it."""
    return "sha384-" + base64.b64encode(hashlib.sha384(data).digest()).decode()


def _version(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError) as error:
        raise ProviderError(f"{shown(path)} does not say its version ({error})") from error
