"""A model under study: its forward pass, its gradients, its feature maps, its compiled forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx.utils
from numpy.typing import NDArray

from lrp_onnx.compiled.verify import forward_part
from lrp_onnx.compiler import Options, compile_model, plan_model
from lrp_onnx.errors import RuleError
from lrp_onnx.plan.plan import Plan
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.explanation import kind_of, probabilities_of
from lrp_onnx.runtime.preprocess import input_size
from lrp_onnx.runtime.session import Session, element_type, open_session

Pictures = NDArray[np.float32]
"""(N, C, H, W) or (N, H, W, C), as the model takes them."""
Maps = NDArray[np.float32]
"""(N, H, W)"""
Targets = NDArray[np.int64]
"""(N,): the class to explain of each picture."""
CHUNK = 32
"""Pictures a run: more do not run faster on a CPU, and need more memory."""


@dataclass(eq=False)
class Subject:
    """A model that methods are applied to: its forward pass, feature maps and compiled forms."""

    path: Path
    provider: str | None = None
    threads: int | None = None
    seed: int = 0
    choices: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of `compiler.Options`."""

    @cached_property
    def explainer(self) -> Explainer:
        """The gradient with respect to every input element."""
        return self.compiled(composite="gradient", outputs=("heatmap", "relevance"))

    @cached_property
    def forward(self) -> Session:
        """The model alone."""
        return self._opened(self._alone)

    @cached_property
    def _alone(self) -> onnx.ModelProto:
        compiled = compile_model(self.path, composite="gradient", **self.choices)
        return forward_part(compiled.model, compiled.contract)

    def _opened(self, model: onnx.ModelProto) -> Session:
        return open_session(model.SerializeToString(), providers=self.provider, threads=self.threads)

    @cached_property
    def plan(self) -> Plan:
        """What was recognised in it."""
        return plan_model(self.path, Options(**self.choices))[1]

    @cached_property
    def feature(self) -> str:
        """The last feature map of more than one pixel that everything passes through."""
        maps = [name for name, size in self.plan.waists.items() if min(size) > 1]
        if not maps:
            raise RuleError(f"{self.path} has no feature map that CAM methods could read")
        return maps[-1]

    def compiled(self, **choices: Any) -> Explainer:
        """The model compiled so, ready to run."""
        model = compile_model(self.path, **{**self.choices, **choices}).model
        return Explainer(model.SerializeToString(), providers=self.provider, threads=self.threads)

    def probabilities(self, pictures: NDArray[Any]) -> NDArray[np.float64]:
        """(N, …) → (N, classes)."""
        kind, name = self._scores
        element, _ = self.forward.input_of(self._input)
        x = pictures.astype(element_type(element), copy=False)
        scores = [self.forward.run([name], {self._input: part})[name] for part in chunks_of(x)]
        return probabilities_of(kind, np.concatenate(scores))

    def features(self, pictures: Pictures) -> NDArray[np.float32]:
        """The last feature map, (N, C, h, w)."""
        return np.concatenate(
            [self._trunk.run([self.feature], {self._input: part})[self.feature] for part in chunks_of(pictures)]
        )

    def of_features(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities of the last feature map, (N, C, h, w) → (N, classes)."""
        kind, name = self._scores
        scores = [self._head.run([name], {self.feature: part})[name] for part in chunks_of(features)]
        return probabilities_of(kind, np.concatenate(scores))

    @cached_property
    def _trunk(self) -> Session:
        return self._part([self._input], [self.feature])

    @cached_property
    def _head(self) -> Session:
        return self._part([self.feature], [self._scores[1]])

    def _part(self, inputs: list[str], outputs: list[str]) -> Session:
        """The model between some of its tensors."""
        return self._opened(onnx.utils.Extractor(self._alone).extract_model(inputs, outputs))

    @property
    def _input(self) -> str:
        return self.explainer.contract.input

    @property
    def _scores(self) -> tuple[str, str]:
        """(kind, name) of the output that tells the classes' scores."""
        kind, name = kind_of(self.explainer.contract.outputs)
        if kind == "other":
            raise RuleError(f"{self.path} gives neither logits nor probabilities: nothing can be followed")
        return kind, name

    def gradients(self, pictures: Pictures, targets: Targets) -> NDArray[np.float32]:
        """The target's logit's gradient with respect to every input element, shaped as the
        pictures.
        """
        return explain_all(self.explainer, "relevance", pictures, targets)

    @cached_property
    def size(self) -> tuple[int, int]:
        """(H, W) of the pictures that the model takes."""
        _, shape = self.explainer.session.input_of(self.explainer.contract.input)
        return input_size(shape, self.explainer.preprocessing)

    @property
    def channels(self) -> int:
        """Which axis of pictures the channels are."""
        return 3 if self.explainer.contract.layout == "NHWC" else 1

    def grid(self, pictures: Pictures) -> tuple[int, int]:
        """(H, W)"""
        return (pictures.shape[1], pictures.shape[2]) if self.channels == 3 else (pictures.shape[2], pictures.shape[3])

    def masked(self, picture: Pictures, masks: NDArray[Any], fill: Pictures | float = 0.0) -> Pictures:
        """One picture under masks (M, H, W), 1 where it stays: (M, …); `fill` is what it becomes
        elsewhere.
        """
        weights = np.expand_dims(masks.astype(np.float32), self.channels)
        return (fill + weights * (picture - fill)).astype(np.float32)


def chunks_of(x: NDArray[Any]) -> list[NDArray[Any]]:
    """`x` in parts of `CHUNK` rows."""
    return [x[first : first + CHUNK] for first in range(0, len(x), CHUNK)]


def explain_all(explainer: Explainer, output: str, pictures: Pictures, targets: Targets) -> NDArray[np.float32]:
    """One output for all pictures, a part at a time."""
    pairs = zip(chunks_of(pictures), chunks_of(targets), strict=True)
    return np.concatenate([explainer.explain(x, target=t)[output] for x, t in pairs])
