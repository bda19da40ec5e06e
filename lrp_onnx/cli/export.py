"""The `export` command: results for programs where people look at data."""

from __future__ import annotations

from pathlib import Path

from lrp_onnx.cli.stdout import check_open, write_stdout
from lrp_onnx.deploy.annotations import FORMATS, common_folder
from lrp_onnx.deploy.findings import Finding
from lrp_onnx.errors import OutputError, shown
from lrp_onnx.files.writing import STDOUT, check_writable, write_bytes
from lrp_onnx.report.results import stored_lines


def export_results(
    folder: Path, to: str, output: Path, *, images: str | None = None, force: bool = False
) -> str:
    """Write the results in `folder` as one file; returns what was written, in words.

    Args:
        folder: results of `lrp-onnx explain`.
        to: one of `FORMATS`.
        output: the file, or `STDOUT`.
        images: what the photos' names begin with in the file; None for the format's own.
        force: whether an existing file is overwritten.

    Raises:
        ImageError: a photo cannot be read, or is none.
        OutputError: there are no results, or not those that are needed; or the file cannot be
            written, or standard output is closed.
        OutputExistsError: the file exists and `force` is not set.
    """
    if output == STDOUT:
        check_open()
    lines = [line for line in stored_lines(folder) if "error" not in line]
    if output != STDOUT:
        check_writable(output, force=force)
    if not lines:
        raise OutputError(f"{shown(folder)} holds no explanation: no picture there could be read")
    photos = {Path(line["image"]) for line in lines}
    findings = (Finding.stored(line, folder) for line in lines)
    options = {} if images is None else {"images": images}
    parts = FORMATS[to](findings, common_folder(photos), **options)
    if output == STDOUT:
        write_stdout(parts)
    else:
        write_bytes(output, parts, force=force)
    counts = ((len(lines), "map"), (len(photos), "photo"))
    maps, of = (f"{count} {word}{'s' * (count > 1)}" for count, word in counts)
    where = "standard output" if output == STDOUT else shown(output)
    return f"{where}: {maps} of {of}, for {to}"
