"""The model that is evaluated: forward pass, gradients, feature maps and compiled forms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils
from numpy.typing import NDArray

from lrp_onnx.compiled.unchanged import forward_part
from lrp_onnx.compiler import Options, compile_model, plan_model
from lrp_onnx.contract import Preprocessing
from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.tokens import (
    AttentionLayers,
    FeatureMap,
    attention_layers,
    last_feature_map,
)
from lrp_onnx.maps.chain import NONE
from lrp_onnx.plan.plan import Plan
from lrp_onnx.runtime.classes import Classes
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.explanation import (
    WITHOUT_PROBABILITIES,
    kind_of,
    probabilities_of,
    scores_of,
)
from lrp_onnx.runtime.images import Picture, read_image, thinned
from lrp_onnx.runtime.preprocess import Prepared, input_size, preprocess
from lrp_onnx.runtime.session import Session, element_type, open_session

Pictures = NDArray[np.float32]
"""(N, C, H, W) or (N, H, W, C), as the model takes them."""
Maps = NDArray[np.float32]
"""(N, H, W) float32: relevance of every pixel."""
Targets = NDArray[np.int64]
"""(N,) int64: the class to explain of each picture."""
CHUNK = 32
"""Pictures per run: more are not faster on a CPU, and need more memory."""


@dataclass(eq=False)
class Subject:
    """A model that methods are applied to. Its parts are compiled and loaded when first used."""

    path: Path
    provider: str | None = None
    threads: int | None = None
    seed: int = 0
    choices: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of `compiler.Options`."""
    others: Sequence[Path] = ()
    """Pictures that methods may compare with."""

    @cached_property
    def explainer(self) -> Explainer:
        """The model compiled to give the gradient with respect to every input element.

        Raises:
            RuleError: its input is no picture.
        """
        made = self.compiled(composite="gradient", outputs=("heatmap", "relevance"))
        if not made.takes_pictures:
            raise RuleError(
                f"{self.path} takes {made.contract.layout}, and methods are compared and judged on "
                "pictures alone: explain it with a composite (explain --composite)"
            )
        return made

    @cached_property
    def forward(self) -> Session:
        """The model without relevance."""
        return self._opened(self._forward_model)

    @cached_property
    def _forward_model(self) -> onnx.ModelProto:
        compiled = compile_model(self.path, composite="gradient", **self.choices)
        return forward_part(compiled.model, compiled.contract)

    def _opened(self, model: onnx.ModelProto) -> Session:
        return open_session(
            model.SerializeToString(), providers=self.provider, threads=self.threads
        )

    @cached_property
    def plan(self) -> Plan:
        """The structure that was recognised in the model."""
        return plan_model(self.path, Options(**self.choices))[1]

    @property
    def feature(self) -> str:
        """Name of the last feature map."""
        return self.feature_map.name

    @cached_property
    def feature_map(self) -> FeatureMap:
        """The last feature map of more than one pixel that every path passes through.

        Raises:
            RuleError: there is none.
        """
        found = last_feature_map(self.plan)
        if found is None:
            raise RuleError(
                f"{self.path} has no feature map for CAM methods: choose methods that need none"
            )
        return found

    @cached_property
    def attention_layers(self) -> AttentionLayers:
        """The attention of a transformer.

        Raises:
            RuleError: it has none, or one that is not over all tokens.
        """
        found = attention_layers(self.plan)
        if found is None:
            raise RuleError(
                f"{self.path} is no transformer whose every layer attends to all tokens of the "
                "picture: attention-rollout is for those alone"
            )
        return found

    def attention(self, pictures: Pictures) -> Iterator[NDArray[np.float32]]:
        """The weights of every attention layer for pictures (N, …): (N, heads, tokens, tokens)."""
        layers = self.attention_layers
        names = list(layers.names)
        found = self._attending.run(names, {self.input: pictures})
        for name, view in zip(names, layers.views, strict=True):
            values = found[name]
            if view is not None:
                values = values.reshape(view.shape or values.shape).transpose(view.order)
            yield values.reshape(len(pictures), -1, *values.shape[-2:])

    @cached_property
    def _attending(self) -> Session:
        model = onnx.ModelProto.FromString(self._forward_model.SerializeToString())
        there = {value.name for value in model.graph.output}
        missing = [name for name in self.attention_layers.names if name not in there]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in missing)
        return self._opened(model)

    @cached_property
    def deepest_stride(self) -> int:
        """Pixels of the picture's width for each column of the smallest feature map of more than
        one column; 1 where there is none.
        """
        widths = (width for _, width in self.plan.map_sizes.values())
        smallest = min((width for width in widths if width > 1), default=0)
        return max(1, round(self.plan.picture_size[1] / smallest)) if smallest else 1

    def compiled(self, **choices: Any) -> Explainer:
        """The model compiled with `choices`, fields of `compiler.Options`, ready to run.

        Maps are raw: post-processing is applied to them in Python, one computation serving many.
        """
        model = compile_model(self.path, **{**self.choices, "post": NONE, **choices}).model
        return Explainer(
            model.SerializeToString(),
            providers=self.provider,
            threads=self.threads,
            max_memory=self.choices.get("max_memory"),
        )

    def probabilities(self, pictures: NDArray[Any]) -> NDArray[np.float64]:
        """Pictures (N, …) → probabilities (N, classes) float64."""
        kind, _ = self.scores
        return probabilities_of(kind, scores_of(kind, self.run(pictures), self.selection))

    def run(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """Pictures (N, …) → the output of `scores`, as the model gives it."""
        _, name = self.scores
        element, _ = self.forward.input_of(self.input)
        x = pictures.astype(element_type(element), copy=False)
        scores = [self.forward.run([name], {self.input: part})[name] for part in chunks_of(x)]
        return np.concatenate(scores)

    def features(self, pictures: Pictures) -> NDArray[np.float32]:
        """Pictures (N, …) → the last feature map, (N, C, h, w)."""
        name = self.feature
        chunks = chunks_of(pictures)
        maps = [self._trunk.run([name], {self.input: chunk})[name] for chunk in chunks]
        return self.feature_map.of(np.concatenate(maps))

    def of_features(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """The last feature map, (N, C, h, w) → probabilities (N, classes) float64.

        Raises:
            RuleError: the feature map is not all that enters the rest of the model.
        """
        if not self.feature_map.whole:
            raise RuleError(
                f"the last feature map of {self.path} is not all that the layers behind it read "
                "(a class token, a shortcut): recipro-cam cannot keep a part of it alone; grad-cam "
                "and attention-rollout are for such models"
            )
        kind, name = self.scores
        tensors = chunks_of(self.feature_map.tensor(features))
        scores = [self._head.run([name], {self.feature: part})[name] for part in tensors]
        return probabilities_of(kind, scores_of(kind, np.concatenate(scores)))

    @cached_property
    def _trunk(self) -> Session:
        return self._part([self.input], [self.feature])

    @cached_property
    def _head(self) -> Session:
        return self._part([self.feature], [self.scores[1]])

    def _part(self, inputs: list[str], outputs: list[str]) -> Session:
        """The part of the model from `inputs` to `outputs`, names of tensors."""
        return self._opened(
            onnx.utils.Extractor(self._forward_model).extract_model(inputs, outputs)
        )

    @property
    def input(self) -> str:
        """Name of the picture input."""
        return self.explainer.contract.input

    @property
    def scores(self) -> tuple[str, str]:
        """(kind, name) of the output with the classes' scores."""
        kind, name = kind_of(self.explainer.contract.outputs)
        if kind in WITHOUT_PROBABILITIES:
            raise RuleError(
                f"{self.path} has neither logits nor probabilities among its outputs: "
                "its predictions cannot be evaluated"
            )
        return kind, name

    def gradients(self, pictures: Pictures, targets: Targets) -> NDArray[np.float32]:
        """The gradient of the target's logit with respect to the pictures, in their shape."""
        return explain_all(self.explainer, "relevance", pictures, targets)

    @cached_property
    def size(self) -> tuple[int, int]:
        """(H, W) of the pictures that the model takes."""
        _, shape = self.explainer.session.input_of(self.explainer.contract.input)
        return input_size(shape, self.explainer.preprocessing)

    def references(self, count: int) -> Pictures:
        """At most `count` of the other pictures, evenly spread, as the model takes them."""
        paths = thinned(self.others, count)
        prepared = [self.prepare(read_image(path)).tensor for path in paths]
        return np.stack(prepared) if prepared else np.zeros(0, np.float32)

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures become the model's input."""
        return self.explainer.preprocessing

    @property
    def assumed_preprocessing(self) -> bool:
        """Whether nothing says it."""
        return self.explainer.assumed_preprocessing

    @property
    def selection(self) -> str:
        """The part of the output that is explained, as in a contract."""
        return self.explainer.contract.selection

    @property
    def sources(self) -> Mapping[str, str]:
        """``preprocessing`` and ``labels`` → what says them, where they are known."""
        return self.explainer.sources

    @property
    def classes(self) -> Classes:
        """The model's classes."""
        return self.explainer.classes

    def prepare(self, picture: Picture) -> Prepared:
        """A picture (H, W, 3) uint8 as the model takes it."""
        return preprocess(picture, self.preprocessing, *self.size)

    @property
    def channels(self) -> int:
        """The axis of the channels in `Pictures`."""
        return 3 if self.explainer.contract.layout == "NHWC" else 1

    def grid(self, pictures: Pictures) -> tuple[int, int]:
        """(H, W) of pictures."""
        first = 1 if self.channels == 3 else 2
        return pictures.shape[first], pictures.shape[first + 1]

    def masked(
        self, picture: Pictures, masks: NDArray[Any], fill: Pictures | float = 0.0
    ) -> Pictures:
        """One picture under several masks.

        Args:
            picture: (1, …) or without the batch axis.
            masks: (M, H, W), 1 where the picture stays and 0 where it becomes `fill`; values
                between mix both.
            fill: a number, or a picture in the same shape.

        Returns:
            (M, …) float32.
        """
        weights = np.expand_dims(masks.astype(np.float32), self.channels)
        return (fill + weights * (picture - fill)).astype(np.float32)


def chunks_of(x: NDArray[Any]) -> list[NDArray[Any]]:
    """`x` in parts of up to `CHUNK` rows."""
    return [x[first : first + CHUNK] for first in range(0, len(x), CHUNK)]


def explain_all(
    explainer: Explainer, output: str, pictures: Pictures, targets: Targets
) -> NDArray[np.float32]:
    """The output called `output` for all pictures, computed in parts."""
    pairs = zip(chunks_of(pictures), chunks_of(targets), strict=True)
    return np.concatenate([explainer.explain(x, target=t)[output] for x, t in pairs])
