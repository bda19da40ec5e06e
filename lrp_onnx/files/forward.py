"""Whether the part of a compiled file that predicts is the one that was compiled.

A compiled file states a hash of that part. It is no signature: who changes a file on purpose can
write another hash. It tells what simplifiers, optimisers, quantisers, converters to float16 and
accidents leave: a file whose predictions nobody has compared with the original's. Such a file may
well be right, so that it is explained with a warning; verifying compares it with the original, or
refuses it where that is not given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from lrp_onnx.contract import Contract
from lrp_onnx.files.structure import behind, opset_of, read_by

CHUNK = 1 << 24
"""Bytes of a file that are read at once."""


def hash_of(proto: onnx.ModelProto, outputs: Collection[str], folder: Path | None = None) -> str:
    """A hash, 32 hexadecimal digits, of what a model computes its `outputs` with: nodes, opset and
    weights.

    The order of nodes and of weights, names of nodes, stated shapes, metadata and the file in which
    weights lie change nothing.

    Args:
        proto: the model.
        outputs: names of graph outputs.
        folder: where its external data lies, None where it has none.
    """
    aside = behind(proto.graph, outputs)
    nodes = [node for node in proto.graph.node if aside.isdisjoint(node.output)]
    read = {name for node in nodes for name in read_by(node)} | {*outputs}
    opset = opset_of(proto)
    # BLAKE2 is the fastest of the standard library where the processor has no instructions for SHA.
    digest = hashlib.blake2b(digest_size=16)
    for text in [repr((opset, sorted(outputs))), *sorted(map(_as_text, nodes))]:
        digest.update(text.encode())
    for tensor in sorted(proto.graph.initializer, key=lambda tensor: tensor.name):
        if tensor.name in read:
            digest.update(repr((tensor.name, tensor.data_type, [*tensor.dims])).encode())
            for data in _values(tensor, folder):
                digest.update(data)
    return digest.hexdigest()


def remark_on(
    proto: onnx.ModelProto, contract: Contract, source: str, folder: Path | None = None
) -> str:
    """What to say where the part that predicts is not the one that was compiled; empty where it is,
    and where the file states no hash, as those of early versions.
    """
    if contract.forward in ("", hash_of(proto, [*contract.outputs], folder)):
        return ""
    return (
        f"the part of {source} that predicts is not the one that was compiled: it was simplified, "
        "optimised, converted or changed by hand since, and its predictions and maps may be others"
    )


def _as_text(node: onnx.NodeProto) -> str:
    attributes = sorted((a.name, a.SerializeToString(deterministic=True)) for a in node.attribute)
    domain = "" if node.domain == "ai.onnx" else node.domain
    return repr((domain, node.op_type, [*node.input], [*node.output], attributes))


def _values(tensor: TensorProto, folder: Path | None) -> Iterator[bytes]:
    """The bytes of a stored tensor, part by part."""
    if tensor.data_location != TensorProto.EXTERNAL:
        raw = tensor.HasField("raw_data")
        yield tensor.raw_data if raw else tensor.SerializeToString(deterministic=True)
    elif folder is not None:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        with (folder / entries["location"]).open("rb") as file:
            file.seek(int(entries.get("offset", "0")))
            left = int(entries.get("length", "-1"))
            while data := file.read(CHUNK if left < 0 else min(CHUNK, left)):
                left -= len(data) if left >= 0 else 0
                yield data
