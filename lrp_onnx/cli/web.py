"""The `web` command: a static folder with a page that explains photos in the browser."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrp_onnx.cli.given import IMAGENET_IS_ASSUMED, refuse_settled
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.contract import Contract, is_compiled
from lrp_onnx.deploy.web import FACTS, MODEL, PAGE, Site, check_site, write_site
from lrp_onnx.deploy.web_runtime import FOLDER, VERSION, installed_runtime
from lrp_onnx.errors import ModelFileError
from lrp_onnx.explanation import style_of
from lrp_onnx.files.models import SIZE_LIMIT, load_proto, metadata_of
from lrp_onnx.maps.chain import parse_chain
from lrp_onnx.report.colors import GROUND, SIGNED_FROM, TABLES
from lrp_onnx.report.render import VIVID
from lrp_onnx.runtime.images import find_images

PURPOSE = "web"
"""Runtime that the model is compiled for."""
LARGE = 100_000_000
"""Bytes of a model beyond which hosts of static pages refuse it, and visitors wait long."""


def make_site(
    model: Path,
    folder: Path,
    *,
    options: Options,
    settled: Sequence[str] = (),
    samples: Path | None = None,
    runtime: Path | None = None,
    force: bool = False,
) -> tuple[Site, list[str]]:
    """Compile `model` for the browser, unless it is compiled, and write the site.

    Args:
        model: an ONNX file, compiled or not.
        folder: where the site goes.
        options: how a model that is not compiled is compiled.
        settled: options of a compilation that were given, which a compiled file cannot follow.
        samples: a folder of pictures, or one picture, that the page offers.
        runtime: an installed npm package onnxruntime-web to copy; None for the CDN.
        force: whether existing files are overwritten.

    Returns:
        The site, and notes for whoever made it.

    Raises:
        RuleError: the file is compiled and `settled` is not empty.
        What `compile_model` and `write_site` raise.
    """
    metadata = metadata_of(model)  # a model that cannot be read is told before anything else
    check_site(folder, (PAGE, FACTS, MODEL), force=force)
    copied = None if runtime is None else installed_runtime(runtime)
    pictures = [] if samples is None else find_images([samples])
    compiled, notes = _compiled(model, options, settled, is_compiled=is_compiled(metadata))
    contract = Contract.from_metadata(metadata_of(compiled))
    site = write_site(
        compiled,
        folder,
        name=model.name,
        look=look_of(contract),
        samples=pictures,
        runtime=copied,
        preprocessing=options.preprocessing,
        labels=options.labels,
        force=force,
    )
    if contract.preprocessing is None and options.preprocessing is None:
        notes.append(IMAGENET_IS_ASSUMED)
    if len(compiled) > LARGE:
        notes.append(
            f"the compiled model has {len(compiled) / 1e6:,.0f} MB: visitors load all of it, and "
            "GitHub Pages takes no file above 100 MB"
        )
    if copied is not None and copied.version != VERSION:
        notes.append(
            f"the runtime is onnxruntime-web {copied.version}; the page was tested with {VERSION}"
        )
    return site, notes


def _compiled(
    model: Path, options: Options, settled: Sequence[str], *, is_compiled: bool
) -> tuple[bytes, list[str]]:
    """The compiled file's bytes, weights included, and the compiler's notes."""
    notes: list[str] = []
    if is_compiled:
        refuse_settled(model, settled)
        proto = load_proto(model, max_memory=options.max_memory)
    else:
        compiled = compile_model(model, replace(options, optimize_for=PURPOSE))
        proto, notes = compiled.model, list(compiled.plan.notes)
    if proto.ByteSize() > SIZE_LIMIT:
        raise ModelFileError(
            f"{model} has {proto.ByteSize():,} bytes when it is compiled; browsers load at most "
            f"{SIZE_LIMIT:,}: take a smaller model"
        )
    return proto.SerializeToString(), notes


def look_of(contract: Contract) -> dict[str, Any]:
    """The colours of a file's maps, as the page reads them: those of `report`."""
    style = style_of(parse_chain(contract.post), contract.start_value, contract.composite)
    return {
        "colors": style.colors,
        "percentile": style.percentile,
        "opacity": style.opacity,
        "gamma": style.gamma,
        "vivid": VIVID,
        "ground": GROUND,
        "signed_from": SIGNED_FROM,
        "tables": {
            name: base64.b64encode(table.tobytes()).decode() for name, table in TABLES.items()
        },
    }


def site_lines(site: Site) -> list[str]:
    """What was written, and how to look at it."""
    runtime = sum(size for name, size in site.sizes.items() if name.startswith(f"{FOLDER}/"))
    own = f"{(site.bytes - runtime) / 1e6:.1f} MB"
    where = (
        f"and the runtime, {runtime / 1e6:.0f} MB, of which a visitor loads one half"
        if runtime
        else f"the page loads onnxruntime-web {VERSION} from jsDelivr"
    )
    folder = shlex.quote(str(site.folder))
    return [
        f"{site.folder}: {len(site.sizes)} files, {own}; {where}",
        f"look at it: python -m http.server --directory {folder}, then http://localhost:8000",
    ]
