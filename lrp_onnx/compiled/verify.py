"""Checks of a compiled model.

It must be valid standard ONNX, predict what the original does, give the same maps alone and in a
batch, and account for all relevance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
from google.protobuf.message import Error as MessageError
from numpy.typing import NDArray

from lrp_onnx.compiled.conservation import Account, accounts_of, constants_of, expose, tensors_of
from lrp_onnx.compiled.opset import OLDEST
from lrp_onnx.compiled.order import drop_unused
from lrp_onnx.contract import Contract, is_added
from lrp_onnx.errors import NATIVE_ERRORS, LrpOnnxError, VerificationError

Outputs = dict[str, NDArray[np.generic]]
SAME_OUTPUT = 1e-5
"""Largest change of an original output, relative to its largest magnitude.

Float32 rounding differs where a runtime fuses other nodes.
"""
SAME_HALF = {"float16": 4e-3, "bfloat16": 3e-2}
"""The same for 16-bit outputs, by element type: four times the unit of rounding."""
ONE_STEP = 0.05
"""The same for quantised models: rounding may move a value by one step of its quantiser."""
HALF_INSIDE = 2e-3
"""The same for float32 outputs of 16-bit models: runtimes differ in where they round."""
SAME_MAP = 1e-4
"""Largest difference between a map computed alone and in a batch, relative to its maximum: kernels
differ with the batch size.
"""

CHECKER_ERRORS = (
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    MessageError,
    *NATIVE_ERRORS,
)
"""What `onnx.checker.check_model` raises: its own errors, protobuf's, and those of its C++ code."""


class Runner(Protocol):
    """Runs a serialized model on named inputs."""

    def __call__(self, model: bytes, feeds: Mapping[str, NDArray[np.generic]]) -> Outputs:
        """Every output of the model: name → values."""


def check_compiled(
    model: onnx.ModelProto, original: onnx.ModelProto, contract: Contract, runner: Runner | None
) -> None:
    """Check that `model` is valid and, if there is a runner, that it predicts what `original` does.

    Raises:
        VerificationError: a check failed, or the runner cannot run `original`.
    """
    faults = _validity(model)
    if faults:
        raise VerificationError(
            "the compiled model is not valid; please report this with the model:", faults
        )
    if runner is None:
        return
    feeds = {contract.input: random_picture(model, contract.input, batch=2)}
    try:
        before = runner(original.SerializeToString(), feeds)
    except LrpOnnxError as error:
        hint = "--no-check writes the compiled file unchecked, for a runtime that can run it"
        raise VerificationError(
            "the original model cannot be run here:", [f"{error}; {hint}"]
        ) from error
    after = runner(model.SerializeToString(), feeds)
    faults = changed_outputs(before, after, tolerance=rounding_of(original))
    faults += non_finite(after)
    if faults:
        raise VerificationError("the compiled model failed its checks:", faults)


def changed_outputs(
    before: Outputs, after: Outputs, *, tolerance: float = SAME_OUTPUT
) -> list[str]:
    """One message for every original output that is missing or changed too much.

    `tolerance` is relative to the output's largest magnitude; 16-bit outputs have at least the
    tolerance of `SAME_HALF`.
    """
    faults = []
    for name, expected in before.items():
        if name not in after:
            faults.append(f"the output '{name}' is missing")
            continue
        scale = float(np.abs(expected).max(initial=1e-30))
        difference = np.abs(after[name].astype(np.float64) - expected.astype(np.float64))
        change = float(difference.max(initial=0.0)) / scale
        allowed = max(tolerance, SAME_HALF.get(str(expected.dtype), 0.0))
        if not change <= allowed:
            faults.append(
                f"the output '{name}' changed by {change:.1e} of its largest value; "
                f"{allowed:.0e} is rounding"
            )
    return faults


def rounding_of(model: onnx.ModelProto) -> float:
    """How much an output of `model` may change, relative to its largest magnitude, when a runtime
    fuses its nodes differently.
    """
    half = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    if any(tensor.data_type in half for tensor in model.graph.initializer):
        return HALF_INSIDE
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return ONE_STEP
    return SAME_OUTPUT


def random_picture(
    model: onnx.ModelProto, name: str, *, batch: int, seed: int = 0
) -> NDArray[np.generic]:
    """A random batch of the size and element type of the input `name`.

    Floats are standard normal; integers are uniform over all values of their type. `batch` is the
    number of pictures if the model's batch is symbolic.
    """
    value = next(v for v in model.graph.input if v.name == name)
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    shape = (sizes[0] or batch, *sizes[1:])
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    rng = np.random.default_rng(seed)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return rng.normal(size=shape).astype(dtype)


def batch_faults(
    model: bytes,
    contract: Contract,
    runner: Runner,
    pictures: NDArray[np.generic],
    outputs: Sequence[str],
) -> list[str]:
    """One message for every output of `outputs` where a batch of N differs from N single runs."""
    batch_run = runner(model, {contract.input: pictures})
    single_runs = [
        runner(model, {contract.input: pictures[i : i + 1]}) for i in range(len(pictures))
    ]
    faults = []
    for name in outputs:
        single = np.concatenate([run[name] for run in single_runs]).astype(np.float64)
        change = np.abs(batch_run[name].astype(np.float64) - single).reshape(len(single), -1).max(1)
        scale = np.abs(single).reshape(len(single), -1).max(1) + 1e-30
        worst = float((change / scale).max())
        if not worst <= SAME_MAP:
            faults.append(
                f"the output '{name}' of a batch of {len(single)} differs from single runs "
                f"by {worst:.1e} of its maximum"
            )
    return faults


def non_finite(values: Outputs) -> list[str]:
    """One message for every array with NaN or infinity."""
    return [
        f"'{name}' holds NaN or infinity"
        for name, value in values.items()
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all()
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """The result of `audit`: every check with its faults, and the conservation ledger."""

    checks: tuple[tuple[str, tuple[str, ...]], ...]
    """(name of the check, messages of its faults)."""
    rows: tuple[Account, ...]
    """Every layer's account, from the logits down."""
    start: NDArray[np.float64]
    """Relevance at the logits, (N,)."""

    @property
    def passed(self) -> bool:
        """Whether no check found a fault."""
        return not any(faults for _, faults in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The result as JSON-ready data, numbers per sample."""
        return {
            "passed": self.passed,
            "checks": [{"check": name, "faults": list(faults)} for name, faults in self.checks],
            "start": self.start.tolist(),
            "layers": [row.to_json() for row in self.rows],
        }


def audit(
    model: onnx.ModelProto,
    contract: Contract,
    runner: Runner,
    *,
    pictures: NDArray[np.generic],
    original: onnx.ModelProto | None,
) -> Audit:
    """Run every check of a compiled model.

    Args:
        model: the compiled model.
        contract: its metadata.
        runner: runs a model on a batch.
        pictures: (N, …) with N ≥ 1, in the units of the model's input.
        original: the model to compare the outputs with; None for the forward part of `model`.
    """
    data = model.SerializeToString()
    feeds = {contract.input: pictures}
    before = runner((original or forward_part(model, contract)).SerializeToString(), feeds)
    after = runner(data, feeds)
    names = tensors_of(contract)
    inner = runner(expose(model, names).SerializeToString(), feeds)
    rows = accounts_of(contract, inner | constants_of(model, contract, names) | feeds)
    start = rows[0].received
    maps = [name for name in after if name not in contract.outputs]
    checks: list[tuple[str, Sequence[str]]] = [
        ("valid standard ONNX", _validity(model)),
        (
            "original outputs unchanged",
            changed_outputs(before, after, tolerance=rounding_of(model)),
        ),
        ("no NaN, no infinity, in any output or inner tensor", non_finite(after | inner)),
        (
            "every layer's relevance accounted for",
            [fault for row in rows if (fault := row.fault(start))],
        ),
    ]
    if len(pictures) > 1 and _takes_any_batch(model, contract):
        checks.append(
            (
                f"a batch of {len(pictures)} equals {len(pictures)} single runs",
                batch_faults(data, contract, runner, pictures, maps),
            )
        )
    return Audit(tuple((name, tuple(faults)) for name, faults in checks), tuple(rows), start)


def _takes_any_batch(model: onnx.ModelProto, contract: Contract) -> bool:
    """Whether the batch of the picture input is symbolic."""
    value = next(v for v in model.graph.input if v.name == contract.input)
    return not value.type.tensor_type.shape.dim[0].HasField("dim_value")


def forward_part(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """A copy of `model` without the nodes, inputs and outputs that the compiler added."""
    forward = onnx.ModelProto()
    forward.CopyFrom(model)
    kept = [value for value in forward.graph.output if value.name in contract.outputs]
    del forward.graph.output[:]
    forward.graph.output.extend(kept)
    inputs = [value for value in forward.graph.input if not is_added(value.name)]
    del forward.graph.input[:]
    forward.graph.input.extend(inputs)
    return drop_unused(forward)


def _has_bfloat16(model: onnx.ModelProto) -> bool:
    return any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in model.graph.initializer)


def _validity(model: onnx.ModelProto) -> list[str]:
    """One message for every reason why `model` is not valid standard ONNX."""
    domains = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    faults = [f"it uses operators of {domain}" for domain in domains]
    if not OLDEST <= opset <= (22 if _has_bfloat16(model) else 20):
        faults.append(f"it has opset {opset}; compiled files have {OLDEST} to 20")
    if model.ir_version > 10:
        faults.append(f"it has IR version {model.ir_version}; compiled files have 10 at most")
    try:
        onnx.checker.check_model(model, full_check=True)
    except CHECKER_ERRORS as error:
        faults.append(str(error))
    return faults
