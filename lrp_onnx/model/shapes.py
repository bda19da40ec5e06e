"""Names and shapes of tensors, as plain Python."""

from __future__ import annotations

import onnx_ir as ir

from lrp_onnx.plan.kinds import Shape

__all__ = ["Shape", "name_of", "shape_of"]


def shape_of(value: ir.Value) -> Shape | None:
    """Sizes of a tensor, with None for a symbolic size; None if the rank is not known."""
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def name_of(value: ir.Value) -> str:
    """A tensor's name; every tensor of a normalised graph has one."""
    assert value.name is not None
    return value.name
