"""Checks of a compiled model.

It must be valid standard ONNX, predict what the original does, give the same maps alone and in a
batch, and account for all relevance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Error as MessageError
from numpy.typing import NDArray

from lrp_onnx.compiled.conservation import (
    Account,
    absorbed,
    accounts_of,
    casts_of,
    constants_of,
    expose,
    growth,
    tensors_of,
)
from lrp_onnx.compiled.opset import OLDEST
from lrp_onnx.compiled.runner import Outputs, Runner, fixed_batch
from lrp_onnx.compiled.unchanged import Movement, compare, forward_part, half_rounding
from lrp_onnx.contract import C3_REGION, HEATMAP, Contract, is_added
from lrp_onnx.errors import NATIVE_ERRORS, LrpOnnxError, ModelFileError, VerificationError
from lrp_onnx.files.budget import Footprint
from lrp_onnx.files.compiled import check_structure
from lrp_onnx.maps.chain import parse_chain

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


def check_compiled(
    model: onnx.ModelProto,
    original: onnx.ModelProto,
    contract: Contract,
    runner: Runner | None,
    *,
    max_memory: float | None = None,
) -> tuple[str, ...]:
    """Check that `model` is valid and, if there is a runner, that it predicts what `original` does.

    Args:
        model: the compiled model.
        original: the normalised model that it was made from.
        contract: the metadata of `model`.
        runner: runs a model; None for the checks that run nothing.
        max_memory: bytes that a run may take; None for half of the machine's.

    Returns:
        Notes for users: how far the runtime's optimisations move the outputs, where this is more
        than rounding.

    Raises:
        VerificationError: a check failed, or the runner cannot run one of the models.
        ModelFileError: the original is not valid itself, or the compiled model has loops without
            end, or takes too much memory to run.
    """
    faults = _validity(model)
    if faults and (own := _validity(original)):
        raise ModelFileError(f"the model is not valid ONNX: {own[0].strip()}; export it again")
    if faults:
        raise VerificationError(
            "the compiled model is not valid; please report this with the model:", faults
        )
    if runner is None:
        return ()
    check_structure(model, "the compiled model")
    pictures = random_picture(model, contract.input, batch=2)
    footprint = Footprint.of(model, "the compiled model", max_memory)
    footprint.check(sizes={contract.input: pictures.shape})
    try:
        optimised = runner(model.SerializeToString(), {contract.input: pictures})
        # One picture is enough to compare bits, and runs without optimisations are slow.
        free = fixed_batch(model, contract.input) is None
        first = slice(1) if free else slice(None)
        found = compare(
            model,
            original,
            contract,
            runner,
            pictures=pictures[first],
            optimised={
                name: values[first]
                for name, values in optimised.items()
                if name in contract.outputs
            },
            measure=False,
        )
    except LrpOnnxError as error:
        hint = "--no-check writes the compiled file unchecked, for a runtime that can run it"
        raise VerificationError(
            "the original or the compiled model cannot be run here:", [f"{error}; {hint}"]
        ) from error
    faults = [*found.faults, *non_finite(optimised)]
    if own := non_finite({name: optimised[name] for name in contract.outputs if name in optimised}):
        raise VerificationError(
            "the model's own output is not finite for a random picture, so that nothing of it can "
            "be explained:",
            [f"{fault}: its values overflow in their type" for fault in own],
        )
    if faults:
        raise VerificationError("the compiled model failed its checks:", faults)
    return found.notes


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
        if batch_run[name].shape != single.shape:
            faults.append(
                f"the output '{name}' of a batch of {len(pictures)} has shape "
                f"{batch_run[name].shape}, of single runs {single.shape}"
            )
            continue
        with np.errstate(invalid="ignore"):  # infinity minus infinity is NaN
            change = np.abs(batch_run[name].astype(np.float64) - single)
            scale = np.abs(single).reshape(len(single), -1).max(1) + 1e-30
            worst = float((change.reshape(len(single), -1).max(1) / scale).max())
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
    notes: tuple[str, ...] = ()
    """What the runtime's optimisations move in the outputs, where this is more than rounding, and
    where relevance grows without bound.
    """
    movements: tuple[Movement, ...] = ()
    """How far the runtime's optimisations move every original output."""

    @property
    def passed(self) -> bool:
        """Whether no check found a fault."""
        return not any(faults for _, faults in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The result as JSON-ready data, numbers per sample."""
        return {
            "passed": self.passed,
            "checks": [{"check": name, "faults": list(faults)} for name, faults in self.checks],
            "notes": list(self.notes),
            "movements": [asdict(movement) for movement in self.movements],
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
    after = runner(data, feeds)
    compared = compare(
        model,
        original or forward_part(model, contract),
        contract,
        runner,
        pictures=pictures,
        optimised=after,
        measure=True,
    )
    names = tensors_of(contract)
    inner = runner(expose(model, names, casts_of(contract)).SerializeToString(), feeds)
    values = inner | constants_of(model, contract, names) | feeds
    rows = accounts_of(contract, values, rounding=half_rounding(model))
    start = rows[0].received
    decided = {C3_REGION}
    if any(step.decides for step in parse_chain(contract.post).steps):
        decided.add(HEATMAP)
    added = [name for name in after if is_added(name)]
    # A pixel at a threshold falls where rounding lets it. What was compared with it is checked.
    maps = [name for name in added if name not in decided]
    before = [] if len(maps) == len(added) else sorted(_computed(model, contract.ledger[-1]))
    checks: list[tuple[str, Sequence[str]]] = [
        ("valid standard ONNX", _validity(model)),
        ("original outputs unchanged", compared.faults),
        ("no NaN, no infinity, in any output or inner tensor", non_finite(after | inner)),
        (
            "every layer's relevance accounted for",
            [fault for row in rows if (fault := row.fault(start))],
        ),
    ]
    if len(pictures) > 1 and fixed_batch(model, contract.input) is None:
        checks.append(
            (
                f"a batch of {len(pictures)} equals {len(pictures)} single runs",
                batch_faults(
                    expose(model, frozenset(before)).SerializeToString(),
                    contract,
                    runner,
                    pictures,
                    [*maps, *before],
                ),
            )
        )
    return Audit(
        tuple((name, tuple(faults)) for name, faults in checks),
        tuple(rows),
        start,
        (*compared.notes, *filter(None, [growth(rows, start), absorbed(rows)])),
        compared.movements,
    )


def _computed(model: onnx.ModelProto, entry: Mapping[str, Any]) -> set[str]:
    """The tensors in which a step of the ledger passed relevance on, as far as nodes of the
    compiler compute them.
    """
    passed = {name for names in entry["passed"] for name in names if is_added(name)}
    return passed & {name for node in model.graph.node for name in node.output}


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
