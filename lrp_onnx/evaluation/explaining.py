"""Any method as an explainer: Grad-CAM, RISE, occlusion and the others, picture by picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx import __version__
from lrp_onnx.contract import C3_REGION, HEATMAP, HEATMAP_RAW, PREDICTED, Contract
from lrp_onnx.evaluation.black_box import subject_for
from lrp_onnx.evaluation.methods import find_method, read_method
from lrp_onnx.maps.chain import Chain
from lrp_onnx.notation import split
from lrp_onnx.runtime.classes import Classes, Target
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.explanation import ranked
from lrp_onnx.runtime.session import Arrays, Session


class MethodExplainer(Explainer):
    """A model, ready to be explained by any method of `evaluation.methods`.

    Args:
        model: an ONNX file. It is compiled where the method needs it, and only run where not.
        method: the method as text, with its post-processing.
        many_targets: whether every picture is explained for all targets.
        provider: ``cpu`` or ``cuda``; None for CUDA if it is available.
        threads: CPU threads; None for all cores.
        choices: fields of `compiler.Options` about the model's input and output.

    Raises:
        RuleError: there is no such method, or it does not fit the model.
        ModelFileError, UnsupportedModelError: the model cannot be read or explained.
        ContractError: the class names do not fit.
    """

    def __init__(
        self,
        model: Path,
        method: str,
        *,
        many_targets: bool = False,
        provider: str | None = None,
        threads: int | None = None,
        choices: Mapping[str, Any],
    ) -> None:
        subject = subject_for(model, [method], provider=provider, threads=threads, choices=choices)
        base = split(method, "+")[0].strip()
        self._subject, self._chain = subject, read_method(method).post
        self._maps = find_method(base, subject).maps
        self.preprocessing = subject.preprocessing
        self.assumed_preprocessing = subject.assumed_preprocessing
        self.sources = dict(subject.sources)
        self.channels = 1 if subject.preprocessing.channels == "GRAY" else 3
        count, self.labels = subject.classes.count, subject.classes.names
        self.classes = Classes(count, self.labels, -count if many_targets else PREDICTED)
        kind, self._output = subject.scores
        self.contract = Contract(
            input=subject.input,
            outputs={self._output: kind},
            explained=self._output,
            classes=count,
            composite=base,
            start_value="",
            versions={"lrp-onnx": __version__},
            rules={},
            post=str(self._chain),
            layout="NHWC" if subject.channels == 3 else "NCHW",
            many_targets=many_targets,
            selection=subject.selection,
            boxes=choices.get("boxes") or "",
        )

    @property
    def session(self) -> Session:
        return self._subject.forward

    @property
    def gives_raw(self) -> bool:
        return True

    def rows(self, batch_size: int) -> int:
        return batch_size

    def batch_within(self, memory: float | None = None) -> int:
        """Methods that run a model hundreds of times have batches of their own."""
        return 1

    def _parts(self, pictures: int, batch_size: int) -> tuple[list[slice], int]:
        size = 1 if self.contract.many_targets else batch_size
        return [slice(first, first + size) for first in range(0, pictures, size)], 0

    def explain(
        self,
        batch: NDArray[Any],
        *,
        target: Target = None,
        start: NDArray[np.float32] | None = None,
    ) -> Arrays:
        many = self.contract.many_targets
        targets = self.classes.indices(target, None if many else len(batch))
        x = np.repeat(batch, len(targets), 0) if many else batch
        values = self._subject.run(batch)
        rows = np.zeros(len(targets), np.intp) if many else np.arange(len(targets))
        every = [self.reading.scores({self._output: values}, row)[1] for row in range(len(values))]
        order = np.stack([ranked(scores) for scores in every])
        chosen = np.where(targets < 0, order[rows, np.maximum(PREDICTED - targets, 0)], targets)
        raw = self._maps(x, chosen)
        outputs = {self._output: values, HEATMAP_RAW: raw, HEATMAP: _post(self._chain, raw)}
        regions = [self._chain.region(relevance) for relevance in raw]
        if all(region is not None for region in regions):
            outputs[C3_REGION] = np.stack([np.asarray(region, np.float32) for region in regions])
        return outputs

    def _start_value(self, *_: Any) -> float | None:
        """Such methods have no relevance at the output to start from."""
        return None


def _post(chain: Chain, maps: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([chain(relevance) for relevance in maps]) if chain.steps else maps
