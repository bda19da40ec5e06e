"""What Triton does with a model repository, in small: it reads config.pbtxt by Triton's own
definition, refuses what the server's ONNX Runtime backend refuses, joins requests to a batch, and
gives each its own part of the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import text_format
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
TYPES = {
    "TYPE_FP32": ("tensor(float)", np.float32),
    "TYPE_FP16": ("tensor(float16)", np.float16),
    "TYPE_FP64": ("tensor(double)", np.float64),
    "TYPE_INT64": ("tensor(int64)", np.int64),
    "TYPE_INT8": ("tensor(int8)", np.int8),
    "TYPE_UINT8": ("tensor(uint8)", np.uint8),
}


def parsed(text: str) -> Any:
    """A ``ModelConfig``; raises where a field is unknown or has a value of another type."""
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(text, model_config_pb2.ModelConfig())


def fits(shape: Sequence[int], dims: Sequence[int]) -> bool:
    return len(shape) == len(dims) and all(
        -1 in (a, b) or a == b for a, b in zip(shape, dims, strict=True)
    )


class Served:
    """The model NAME of a repository, loaded."""

    def __init__(self, repository: Path, name: str) -> None:
        folder = repository / name
        self.config = parsed((folder / "config.pbtxt").read_text(encoding="utf-8"))
        assert self.config.name == name and self.config.platform == "onnxruntime_onnx"
        file = folder / "1" / "model.onnx"
        self.session = onnxruntime.InferenceSession(
            str(file / "model.onnx" if file.is_dir() else file),
            self._options(),
            providers=["CPUExecutionProvider"],
        )
        self.labels = {
            o.name: (folder / o.label_filename).read_text(encoding="utf-8").splitlines()
            for o in self.config.output
            if o.label_filename
        }
        self._check()

    def _options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        given = self.config.parameters
        if "enable_mem_pattern" in given:
            options.enable_mem_pattern = given["enable_mem_pattern"].string_value != "0"
        return options

    @property
    def batched(self) -> bool:
        return bool(self.config.max_batch_size > 0)

    def _dims(self, declared: Any) -> list[int]:
        """The shape that the file has, as it is declared; -1 is any size."""
        own = list(declared.reshape.shape if declared.HasField("reshape") else declared.dims)
        return [-1, *own] if self.batched else own

    def _check(self) -> None:
        assert not (self.batched and self.session.get_overridable_initializers())
        for declared, values, exact in (
            (self.config.input, self.session.get_inputs(), False),
            (self.config.output, self.session.get_outputs(), True),
        ):
            known = {value.name: value for value in values}
            assert [one.name for one in declared] == list(known)
            for one in declared:
                value = known[one.name]
                shape = [size if isinstance(size, int) else -1 for size in value.shape]
                assert list(one.dims), f"{one.name}: dims must not be empty"
                dims = self._dims(one)
                assert shape == dims if exact else fits(shape, dims), (one.name, shape, dims)
                assert not self.batched or shape[0] == -1, one.name
                assert type_of(one)[0] == value.type
        for size in self.config.dynamic_batching.preferred_batch_size:
            assert 1 <= size <= self.config.max_batch_size

    def infer(self, requests: Sequence[Mapping[str, NDArray[Any]]]) -> list[Arrays]:
        """The outputs of every request, which are run together where the config allows it."""
        if not self.batched:
            return [self._run(request) for request in requests]
        counts = [len(next(iter(request.values()))) for request in requests]
        assert sum(counts) <= self.config.max_batch_size
        if len(requests) > 1:
            assert self.config.HasField("dynamic_batching")
        joined = {
            one.name: np.concatenate([request[one.name] for request in requests])
            for one in self.config.input
        }
        outputs = self._run(joined)
        cuts = np.cumsum(counts)[:-1]
        parts = {name: np.split(values, cuts) for name, values in outputs.items()}
        return [{name: parts[name][k] for name in parts} for k in range(len(requests))]

    def _run(self, request: Mapping[str, NDArray[Any]]) -> Arrays:
        feeds = {}
        for one in self.config.input:
            given = request[one.name]
            assert given.dtype == type_of(one)[1]
            assert fits(given.shape, self._sent(one)), (one.name, given.shape, self._sent(one))
            feeds[one.name] = given.reshape(self._reshaped(one, given))
        assert feeds.keys() == request.keys()
        found = {}
        names = [one.name for one in self.config.output]
        for one, values in zip(self.config.output, self.session.run(names, feeds), strict=True):
            assert values.dtype == type_of(one)[1]
            assert fits(values.shape, self._dims(one)), (one.name, values.shape)
            sent = values
            if one.HasField("reshape"):
                sent = values.reshape(*values.shape[:1] if self.batched else (), *one.dims)
            found[one.name] = sent
        return found

    def _sent(self, declared: Any) -> list[int]:
        dims = list(declared.dims)
        return [-1, *dims] if self.batched else dims

    def _reshaped(self, declared: Any, given: NDArray[Any]) -> tuple[int, ...]:
        if not declared.HasField("reshape"):
            return given.shape
        own = tuple(declared.reshape.shape)
        return (len(given), *own) if self.batched else own


def type_of(declared: Any) -> tuple[str, Any]:
    """ONNX Runtime's and numpy's type of what is declared."""
    descriptor = declared.DESCRIPTOR.fields_by_name["data_type"].enum_type
    return TYPES[descriptor.values_by_number[declared.data_type].name]
