"""The fuzzer's parts that need no fuzzer: its readers, and how findings are kept."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from lrp_onnx.errors import LrpOnnxError
from tools.fuzz import texts
from tools.fuzz.campaign import Findings, guarded, watched


def test_every_reader_takes_some_text_and_fails_in_words_alone(tmp_path: Path) -> None:
    readers = texts.readers_of(tmp_path)
    assert len(readers) == texts.READERS
    read = set()
    for text in (*texts.SEEDS, "", "\udcff", "9" * 5000, "(" * 500, "\x1b[31m"):
        for index, reader in enumerate(readers):
            try:
                reader(text.encode("utf-8", "surrogateescape"))
            except LrpOnnxError:
                continue
            read.add(index)
    assert len(read) > 20


def test_what_is_read_and_written_again_must_be_the_same() -> None:
    texts.there_and_back(int, str)("07")
    with pytest.raises(AssertionError):
        texts.there_and_back(int, lambda number: str(number + 1))("7")


@pytest.mark.skipif(not hasattr(signal, "SIGPROF"), reason="no timer of a processor")
def test_findings_are_kept_once_and_small(tmp_path: Path) -> None:
    def target(data: bytes) -> None:
        if data.startswith(b"bad"):
            raise KeyError(data)

    findings = Findings(tmp_path)
    run = guarded(target, findings)
    for data in (b"good", b"bad and long", b"bad", b"bad again"):
        run(data)
    (place,) = findings.places()
    assert "KeyError test_fuzz.py:target" in place and findings.places()[place] == 3
    kept = [path for path in (tmp_path / "findings").iterdir() if path.name in place.split()]
    assert [path.read_bytes() for path in kept] == [b"bad"]


def test_figures_are_read_from_what_the_fuzzer_prints(tmp_path: Path) -> None:
    line = "#865\tREDUCE cov: 4065 ft: 10590 corp: 233/8218Kb lim: 300000 exec/s: 8 rss: 213Mb"
    program = f"import sys; sys.stderr.write({line!r} + chr(10) + 'more'); sys.exit(3)"
    figures = watched([sys.executable, "-c", program], tmp_path / "log")
    assert figures == [865, 4065, 10590, 233, 3]
    assert line in (tmp_path / "log").read_text(encoding="utf-8")
