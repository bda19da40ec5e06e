"""Whether a compiled file does what its contract states: texts when it is loaded, outputs in every
run.
"""

from __future__ import annotations

import numpy as np

from lrp_onnx.contract import C3_REGION, HEATMAP, HEATMAP_RAW, RELEVANCE, Contract
from lrp_onnx.errors import ContractError, LrpOnnxError
from lrp_onnx.maps.chain import parse_chain
from lrp_onnx.runtime.boxes import Boxes
from lrp_onnx.runtime.explanation import kind_of
from lrp_onnx.runtime.session import Arrays


def check_texts(contract: Contract) -> None:
    """Check the texts of a contract that are read when pictures are explained.

    Raises:
        ContractError: one of them cannot be read.
    """
    try:
        parse_chain(contract.post)
        if contract.boxes:
            Boxes.of(contract.boxes, contract.outputs)
    except LrpOnnxError as error:
        raise ContractError(
            f"the compiled file's metadata is damaged: {error}; compile it again"
        ) from error


def check_outputs(outputs: Arrays, contract: Contract, *, pictures: int, targets: int) -> None:
    """Check the outputs of a run of so many pictures and targets, as the contract has them.

    Raises:
        ContractError: an output has another rank, number of rows or element type.
    """
    maps = targets if contract.many_targets else pictures
    axes = len(contract.layout)
    expected = {HEATMAP: axes - 1, HEATMAP_RAW: axes - 1, C3_REGION: 3, RELEVANCE: axes}
    faults = [
        f"'{name}' has shape {outputs[name].shape} and type {outputs[name].dtype}, not {count} "
        f"axes and {maps} rows of numbers"
        for name, count in expected.items()
        if name in outputs and not _fits(outputs[name], count, maps)
    ]
    name = kind_of(contract.outputs)[1]
    if name in outputs:
        values = outputs[name]
        if values.dtype.kind not in "fiuV" or values.ndim < 1 or len(values) != pictures:
            faults.append(
                f"'{name}' has shape {values.shape} and type {values.dtype} for {pictures} pictures"
            )
    if faults:
        raise ContractError(
            f"the compiled file's outputs are not what it states: {'; '.join(faults)}; compile it "
            "again"
        )


def _fits(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]], axes: int, rows: int) -> bool:
    return bool(
        values.ndim == axes and len(values) == rows and values.size and values.dtype.kind == "f"
    )
