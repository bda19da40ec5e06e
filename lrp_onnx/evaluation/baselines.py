"""Baselines: methods of other authors, and maps that do not depend on the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.subject import Maps, Pictures, Subject, Targets, chunks_of, explain_all
from lrp_onnx.evaluation.tokens import rolled_out
from lrp_onnx.maps.options import check_range, check_whole
from lrp_onnx.maps.resample import resample
from lrp_onnx.runtime.explainer import Explainer

Run = Callable[[Pictures, Targets], Maps]
"""(pictures (N, …), class to explain of each (N,)) → maps (N, H, W) float32."""
Features = Callable[[Pictures, Targets], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""(pictures, targets) → activations and gradients at the last feature map, (N, C, h, w) each."""


class Baseline:
    """A method that is not a composite: a frozen dataclass of its parameters."""

    __slots__ = ()
    blind: ClassVar[bool] = False
    """Whether its maps do not depend on the model: such methods are in every table."""
    black_box: ClassVar[bool] = False
    """Whether it needs nothing of a model but its predictions, so that it explains any model."""
    reads_features: ClassVar[bool] = False
    """Whether it reads the last feature map, which not every model has."""
    reads_attention: ClassVar[bool] = False
    """Whether it reads the attention of a transformer."""
    reads_others: ClassVar[bool] = False
    """Whether its maps depend on the other pictures that are evaluated."""

    def __call__(self, subject: Subject) -> Run:
        """Prepare the method for a model: the function that makes its maps."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Constant(Baseline):
    """A map of zeros."""

    blind: ClassVar[bool] = True

    def __call__(self, subject: Subject) -> Run:
        return lambda x, t: np.zeros((len(x), *subject.grid(x)), np.float32)


@dataclass(frozen=True, slots=True)
class Gaussian(Baseline):
    """A Gaussian in the centre, the same for every picture."""

    blind: ClassVar[bool] = True
    width: float = 0.25
    """Standard deviation, as a share of the picture's shorter side."""

    def __post_init__(self) -> None:
        check_range("width", self.width, above=0, most=1e6)

    def __call__(self, subject: Subject) -> Run:
        def maps(x: Pictures, t: Targets) -> Maps:
            height, width = subject.grid(x)
            rows, columns = np.mgrid[:height, :width]
            squares = (rows - (height - 1) / 2) ** 2 + (columns - (width - 1) / 2) ** 2
            bell = np.exp(-squares / (2 * (self.width * min(height, width)) ** 2))
            return np.repeat(bell.astype(np.float32)[None], len(x), 0)

        return maps


@dataclass(frozen=True, slots=True)
class Random(Baseline):
    """Gaussian noise; equal pictures get equal noise."""

    blind: ClassVar[bool] = True

    def __call__(self, subject: Subject) -> Run:
        def one(picture: Pictures, shape: tuple[int, int]) -> NDArray[np.float64]:
            checksum = int(abs(picture.astype(np.float64).sum()) * 1e3) % 2**31
            return np.random.default_rng([subject.seed, checksum]).normal(size=shape)

        def maps(x: Pictures, t: Targets) -> Maps:
            return np.stack([one(picture, subject.grid(x)) for picture in x]).astype(np.float32)

        return maps


@dataclass(frozen=True, slots=True)
class Edges(Baseline):
    """Magnitude of the Sobel gradient of the grey picture, blurred: an edge detector."""

    blind: ClassVar[bool] = True

    def __call__(self, subject: Subject) -> Run:
        def one(grey: NDArray[np.float32]) -> NDArray[np.float32]:
            across = cv2.Sobel(grey, cv2.CV_32F, 1, 0)
            down = cv2.Sobel(grey, cv2.CV_32F, 0, 1)
            return np.asarray(cv2.GaussianBlur(np.hypot(across, down), (0, 0), 1.0), np.float32)

        def maps(x: Pictures, t: Targets) -> Maps:
            return np.stack([one(grey) for grey in x.mean(subject.channels).astype(np.float32)])

        return maps


@dataclass(frozen=True, slots=True)
class IntegratedGradients(Baseline):
    """``(x − x₀) ⊙ ∫ ∇f(x₀ + α(x − x₀)) dα`` summed over channels, x₀ = 0, by Gauss-Legendre
    (Sundararajan et al. 2017).
    """

    steps: int = 32
    """Number of points of the quadrature."""

    def __post_init__(self) -> None:
        check_whole("steps", self.steps, least=1)

    def __call__(self, subject: Subject) -> Run:
        points, weights = np.polynomial.legendre.leggauss(self.steps)  # from -1 to 1

        def maps(x: Pictures, t: Targets) -> Maps:
            relevance = []
            for picture, target in zip(x, t, strict=True):
                scaled = np.stack([picture * np.float32((a + 1) / 2) for a in points])
                gradients = subject.gradients(scaled, np.full(len(scaled), target))
                mean = np.tensordot(weights / 2, gradients.astype(np.float64), 1)
                relevance.append((picture * mean).sum(subject.channels - 1))
            return np.stack(relevance).astype(np.float32)

        return maps


@dataclass(frozen=True, slots=True)
class ExpectedGradients(Baseline):
    """The mean of ``(x − x′) ⊙ ∇f(x′ + α(x − x′))`` summed over channels, over other pictures x′
    and α evenly drawn from 0 to 1 (Erion et al. 2021).

    Other pictures are those that are evaluated, evenly spread; the one that is explained may be
    among them, where its share is zero.
    """

    reads_attention: ClassVar[bool] = False
    """Whether it reads the attention of a transformer."""
    reads_others: ClassVar[bool] = True
    samples: int = 32
    """Number of pairs (x′, α), the same for every picture."""

    def __post_init__(self) -> None:
        check_whole("samples", self.samples, least=1)

    def __call__(self, subject: Subject) -> Run:
        others = subject.references(self.samples)
        if len(others) < 2:
            raise RuleError("expected-gradients needs other pictures: `evaluate` several photos")
        rng = np.random.default_rng(subject.seed)
        # One α in each of as many equal parts: the sum converges faster than with free ones.
        alphas = (rng.permutation(self.samples) + rng.random(self.samples)) / self.samples
        chosen = others[np.arange(self.samples) % len(others)]
        weights = alphas.astype(np.float32).reshape(-1, *[1] * (others.ndim - 1))

        def maps(x: Pictures, t: Targets) -> Maps:
            relevance = []
            for picture, target in zip(x, t, strict=True):
                ways = picture - chosen
                gradients = subject.gradients(chosen + weights * ways, np.full(len(ways), target))
                mean = (ways.astype(np.float64) * gradients).mean(0)
                relevance.append(mean.sum(subject.channels - 1))
            return np.stack(relevance).astype(np.float32)

        return maps


@dataclass(frozen=True, slots=True)
class SmoothGrad(Baseline):
    """|mean gradient| summed over channels, the mean under Gaussian noise (Smilkov et al. 2017)."""

    samples: int = 24
    """Number of noisy pictures."""
    noise: float = 0.15
    """Standard deviation of the noise, as a share of the picture's range."""

    def __post_init__(self) -> None:
        check_whole("samples", self.samples, least=1)

    def __call__(self, subject: Subject) -> Run:
        def maps(x: Pictures, t: Targets) -> Maps:
            relevance = []
            for picture, target in zip(x, t, strict=True):
                # Every picture gets the same noise, in any batch.
                rng = np.random.default_rng(subject.seed)
                spread = self.noise * float(picture.max() - picture.min())
                noise = rng.normal(0, spread, (self.samples, *picture.shape))
                noisy = picture + noise.astype(np.float32)
                gradients = subject.gradients(noisy, np.full(len(noisy), target))
                relevance.append(np.abs(gradients.mean(0)).sum(subject.channels - 1))
            return np.stack(relevance)

        return maps


@dataclass(frozen=True, slots=True)
class Occlusion(Baseline):
    """The loss of the target's probability when a square is replaced by the mean colour.

    Where squares overlap, the mean of their losses (Zeiler and Fergus 2014).
    """

    black_box: ClassVar[bool] = True
    side: float = 0.2
    """Side of the squares, as a share of the picture's height."""
    stride: float = 0.07
    """Distance from a square to the next, as a share of the picture's height."""

    def __post_init__(self) -> None:
        check_range("side", self.side, above=0, most=1)
        check_range("stride", self.stride, above=0, most=1)

    def __call__(self, subject: Subject) -> Run:
        def maps(x: Pictures, t: Targets) -> Maps:
            keep = self._masks(subject.grid(x))
            hidden = 1 - keep
            relevance = []
            for picture, target in zip(x, t, strict=True):
                full = subject.probabilities(picture[None])[0, target]
                losses = full - subject.probabilities(subject.masked(picture, keep))[:, target]
                relevance.append(np.tensordot(losses, hidden, 1) / np.maximum(hidden.sum(0), 1))
            return np.stack(relevance).astype(np.float32)

        return maps

    def _masks(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        """(squares, H, W): 0 in the square, 1 elsewhere."""
        height, width = shape
        size = min(max(1, round(self.side * height)), width)
        step = max(1, round(self.stride * height))
        rows, columns = (range(0, length - size + step, step) for length in shape)
        corners = [(row, column) for row in rows for column in columns]
        keep = np.ones((len(corners), height, width), np.float32)
        for mask, (row, column) in zip(keep, corners, strict=True):
            mask[row : row + size, column : column + size] = 0
        return keep


@dataclass(frozen=True, slots=True)
class Rise(Baseline):
    """``Σ f(x ⊙ m)·m / (N·p)`` over N random masks m (Petsiuk et al. 2018).

    A mask is a small grid of zeros and ones, p the share of ones, enlarged bilinearly and shifted.
    """

    black_box: ClassVar[bool] = True
    masks: int = 1000
    """Number of masks N; the paper has 8,000 for ResNet-50."""
    cells: int = 7
    """Side of the grids in cells."""
    keep: float = 0.5
    """Share p of ones in the grids."""

    def __post_init__(self) -> None:
        check_whole("masks", self.masks, least=1)
        check_whole("cells", self.cells, least=1)
        check_range("keep", self.keep, above=0, most=1)

    def __call__(self, subject: Subject) -> Run:
        def maps(x: Pictures, t: Targets) -> Maps:
            masks = rise_masks(subject.grid(x), self.masks, self.cells, self.keep, subject.seed)
            relevance = []
            for picture, target in zip(x, t, strict=True):
                scores = [
                    subject.probabilities(subject.masked(picture, chunk))[:, target]
                    for chunk in chunks_of(masks)
                ]
                total = np.tensordot(np.concatenate(scores), masks, 1)
                relevance.append(total / (len(masks) * self.keep))
            return np.stack(relevance).astype(np.float32)

        return maps


def rise_masks(
    shape: tuple[int, int], count: int, cells: int, keep: float, seed: int
) -> NDArray[np.float32]:
    """(count, H, W) float32: masks with values from 0 to 1, for pictures of `shape` (H, W)."""
    rng = np.random.default_rng(seed)
    cell = [-(-size // cells) for size in shape]
    masks = np.empty((count, *shape), np.float32)
    for mask in masks:
        grid = (rng.random((cells, cells)) < keep).astype(np.float32)
        size = ((cells + 1) * cell[1], (cells + 1) * cell[0])
        large = cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR)
        row, column = int(rng.integers(0, cell[0])), int(rng.integers(0, cell[1]))
        mask[:] = large[row : row + shape[0], column : column + shape[1]]
    return masks


def _features(subject: Subject) -> Features:
    """A function that gives activations and gradients at the last feature map."""
    compiled = compile_model(
        subject.path, composite="gradient", outputs=(subject.feature,), **subject.choices
    )
    if subject.feature not in {value.name for value in compiled.model.graph.output}:
        compiled.model.graph.output.append(onnx.ValueInfoProto(name=subject.feature))
    explainer = Explainer(
        compiled.model.SerializeToString(), providers=subject.provider, threads=subject.threads
    )

    def both(x: Pictures, t: Targets) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        chunks = zip(chunks_of(x), chunks_of(t), strict=True)
        runs = [explainer.explain(pictures, target=targets) for pictures, targets in chunks]
        names = (subject.feature, f"relevance/{subject.feature}")
        activations, gradients = (np.concatenate([run[name] for run in runs]) for name in names)
        return subject.feature_map.of(activations), subject.feature_map.of(gradients)

    return both


def _enlarged(maps: NDArray[np.float32], shape: tuple[int, int]) -> Maps:
    """(N, h, w) → (N, H, W), `shape` being (H, W)."""
    return np.stack([resample(one, shape, method="bilinear") for one in maps])


class WeightedFeatures(Baseline):
    """``Σₖ wₖAₖ`` at the last feature map, without its negative part where `positive` is set."""

    __slots__ = ()
    reads_features: ClassVar[bool] = True
    positive: ClassVar[bool] = True

    def weights(self, a: NDArray[np.float32], g: NDArray[np.float32]) -> NDArray[Any]:
        """w of activations and gradients (N, C, h, w): one of the same shape, or (N, C, 1, 1)."""
        raise NotImplementedError

    def __call__(self, subject: Subject) -> Run:
        features = _features(subject)

        def maps(x: Pictures, t: Targets) -> Maps:
            activations, gradients = features(x, t)
            weighted = (self.weights(activations, gradients) * activations).sum(1)
            shown = np.maximum(weighted, 0) if self.positive else weighted
            return _enlarged(shown.astype(np.float32), subject.grid(x))

        return maps


@dataclass(frozen=True, slots=True)
class GradCam(WeightedFeatures):
    """``max(Σₖ αₖAₖ, 0)`` with αₖ the mean gradient of channel k, at the last feature map
    (Selvaraju et al. 2017).
    """

    def weights(self, a: NDArray[np.float32], g: NDArray[np.float32]) -> NDArray[Any]:
        return np.asarray(g.mean((2, 3), keepdims=True))


@dataclass(frozen=True, slots=True)
class GradCamPlusPlus(WeightedFeatures):
    """``max(Σₖ wₖAₖ, 0)`` with wₖ = Σᵢ αₖᵢ max(gₖᵢ, 0), αₖᵢ = gₖᵢ² / (2gₖᵢ² + gₖᵢ³ Σⱼ Aₖⱼ), g the
    gradient at the last feature map (Chattopadhyay et al. 2018, whose score is the logit's
    exponential: its derivatives are powers of g, up to a factor).
    """

    def weights(self, a: NDArray[np.float32], g: NDArray[np.float32]) -> NDArray[Any]:
        whole = a.astype(np.float64).sum((2, 3), keepdims=True)
        slope = g.astype(np.float64)
        below = 2 * slope**2 + slope**3 * whole
        alphas = slope**2 / np.where(below == 0, 1.0, below)
        return np.asarray((alphas * np.maximum(slope, 0)).sum((2, 3), keepdims=True))


@dataclass(frozen=True, slots=True)
class LayerCam(WeightedFeatures):
    """``max(Σₖ max(∂f/∂Aₖ, 0) · Aₖ, 0)`` at the last feature map (Jiang et al. 2021)."""

    def weights(self, a: NDArray[np.float32], g: NDArray[np.float32]) -> NDArray[Any]:
        return np.maximum(g, 0)


@dataclass(frozen=True, slots=True)
class Cam(WeightedFeatures):
    """``Σₖ ∂f/∂Aₖ · Aₖ`` at the last feature map.

    This is CAM where a dense layer follows a global average (Zhou et al. 2016), and generalises it
    to other heads.
    """

    positive: ClassVar[bool] = False

    def weights(self, a: NDArray[np.float32], g: NDArray[np.float32]) -> NDArray[Any]:
        return g


@dataclass(frozen=True, slots=True)
class ScoreCam(Baseline):
    """``max(Σₖ wₖAₖ, 0)``, w the softmax of the target's log-probabilities (Wang et al. 2020).

    Each is that of the picture masked by the k-th channel. The paper takes logits.
    """

    reads_features: ClassVar[bool] = True
    channels: int = 64
    """How many channels are used: those with the largest activation."""

    def __post_init__(self) -> None:
        check_whole("channels", self.channels, least=1)

    def __call__(self, subject: Subject) -> Run:
        features = _features(subject)

        def one(
            picture: Pictures,
            target: np.int64,
            activations: NDArray[np.float32],
            size: tuple[int, int],
        ) -> NDArray[np.float32]:
            strongest = np.argsort(-activations.max((1, 2)))[: self.channels]
            large = _enlarged(activations[strongest], size)
            low, high = large.min((1, 2), keepdims=True), large.max((1, 2), keepdims=True)
            scaled = (large - low) / np.maximum(high - low, 1e-8)
            probabilities = subject.probabilities(subject.masked(picture, scaled))[:, target]
            logs = np.log(probabilities + 1e-12)
            weights = np.exp(logs - logs.max())
            return np.maximum(np.tensordot(weights / weights.sum(), large, 1), 0)

        def maps(x: Pictures, t: Targets) -> Maps:
            activations, _ = features(x, t)
            size = subject.grid(x)
            rows = zip(x, t, activations, strict=True)
            return np.stack([one(*row, size) for row in rows]).astype(np.float32)

        return maps


@dataclass(frozen=True, slots=True)
class ReciproCam(Baseline):
    """The target's probability when only a small window of the last feature map is kept, as a map
    over the windows' places (Byun and Lee 2022). No gradients are needed.

    The window's weights are ((1, 2, 1), (2, 4, 2), (1, 2, 1)) / 16.
    """

    reads_features: ClassVar[bool] = True

    def __call__(self, subject: Subject) -> Run:
        window = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])

        def maps(x: Pictures, t: Targets) -> Maps:
            relevance = []
            for activations, target in zip(subject.features(x), t, strict=True):
                rows, columns = activations.shape[1:]
                padded = np.zeros((rows, columns, rows + 2, columns + 2), np.float32)
                for row, column in np.ndindex(rows, columns):
                    padded[row, column, row : row + 3, column : column + 3] = window
                windows = padded[:, :, None, 1:-1, 1:-1].reshape(-1, 1, rows, columns)
                scores = subject.of_features(activations * windows)[:, target]
                relevance.append(scores.reshape(rows, columns).astype(np.float32))
            return _enlarged(np.stack(relevance), subject.grid(x))

        return maps


@dataclass(frozen=True, slots=True)
class Attention(Baseline):
    """The attention map of an attention branch network (Fukui et al. 2019)."""

    def __call__(self, subject: Subject) -> Run:
        explainer = subject.compiled(composite="gradient", outputs=("attention",))

        def maps(x: Pictures, t: Targets) -> Maps:
            return _enlarged(explain_all(explainer, "attention", x, t), subject.grid(x))

        return maps


@dataclass(frozen=True, slots=True)
class AttentionRollout(Baseline):
    """``Π ½(Aₗ + I)`` over the layers, Aₗ the mean of a layer's heads: how much of each place is in
    the token that the class is read from, or on average in all (Abnar and Zuidema 2020).

    It is the same for every class.
    """

    reads_attention: ClassVar[bool] = True

    def __call__(self, subject: Subject) -> Run:
        layers = subject.attention_layers

        def maps(x: Pictures, t: Targets) -> Maps:
            parts = [rolled_out(subject.attention(part)) for part in chunks_of(x)]
            flow = np.concatenate(parts).astype(np.float32)
            read = flow.mean(1) if layers.read is None else flow[:, layers.read]
            height, width = layers.tokens.layout.size
            places = read[:, layers.tokens.start :][:, : height * width]
            return _enlarged(places.reshape(-1, height, width), subject.grid(x))

        return maps


BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        "constant": Constant(),
        "random": Random(),
        "gaussian": Gaussian(),
        "edges": Edges(),
        "grad-cam": GradCam(),
        "grad-cam-plus-plus": GradCamPlusPlus(),
        "layer-cam": LayerCam(),
        "cam": Cam(),
        "score-cam": ScoreCam(),
        "recipro-cam": ReciproCam(),
        "rise": Rise(),
        "occlusion": Occlusion(),
        "integrated-gradients": IntegratedGradients(),
        "expected-gradients": ExpectedGradients(),
        "smooth-grad": SmoothGrad(),
        "attention": Attention(),
        "attention-rollout": AttentionRollout(),
    }
)
"""Name of a baseline → the baseline with its default parameters."""
SANITY: Sequence[str] = tuple(name for name, baseline in BASELINES.items() if baseline.blind)
"""Baselines that do not depend on the model: they are in every table."""
