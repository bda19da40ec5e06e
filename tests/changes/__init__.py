"""Changes of a model at random, one function each: ``change(model, rng)`` changes it in place.

They break one thing that ONNX promises, or leave a valid model of a form that no exporter writes.
"""

from changes.drawing import Change, Random, pick
from changes.file import FILE
from changes.nodes import NODES
from changes.tensors import TENSORS

__all__ = ["FILE", "NODES", "TENSORS", "Change", "Random", "pick"]
