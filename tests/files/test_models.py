"""The checksum by which a model is recognised, with the files of its weights."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from networks import resnet

from lrp_onnx.errors import ModelFileError
from lrp_onnx.files.models import checksum_of


def test_a_checksum_is_of_the_weights_too(tmp_path: Path) -> None:
    path, weights = tmp_path / "m.onnx", tmp_path / "weights.data"
    onnx.save(resnet(), path, save_as_external_data=True, location=weights.name, size_threshold=0)
    first = checksum_of(path)
    assert first == checksum_of(path)
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    assert checksum_of(path) != first
    weights.unlink()
    assert checksum_of(path) not in ("", first)
    path.write_text("no model")
    with pytest.raises(ModelFileError, match="is not an ONNX model"):
        checksum_of(path)
