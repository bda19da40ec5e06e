"""What others use, and what knows nothing of the model:
each makes maps of pictures from an ONNX file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx.compiler import compile_model
from lrp_onnx.evaluation.subject import Maps, Pictures, Subject, Targets, in_parts, parts_of
from lrp_onnx.maps.resample import resample
from lrp_onnx.runtime.explainer import Explainer

Run = Callable[[Pictures, Targets], Maps]
"""Pictures and the class to explain of each → maps."""


class Baseline:
    """A method that is no composite: a frozen dataclass of its parameters, called on a model."""

    __slots__ = ()

    reads_features: ClassVar[bool] = False
    """Whether it needs a feature map that everything passes through."""
    knows_the_model: ClassVar[bool] = True
    """Whether the map depends on the model at all; the others are rows of every table."""

    def __call__(self, subject: Subject) -> Run:
        """What makes maps of pictures."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Constant(Baseline):
    """The same everywhere."""

    knows_the_model: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> Run:
        return lambda x, t: np.zeros((len(x), *subject.grid(x)), np.float32)


@dataclass(frozen=True, slots=True)
class Gaussian(Baseline):
    """A bell in the middle, of a standard deviation of `width` of the shorter side."""

    width: float = 0.25

    knows_the_model: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> Run:
        def maps(x: Pictures, t: Targets) -> Maps:
            height, columns = subject.grid(x)
            rows, cols = np.mgrid[:height, :columns]
            squares = (rows - (height - 1) / 2) ** 2 + (cols - (columns - 1) / 2) ** 2
            bell = np.exp(-squares / (2 * (self.width * min(height, columns)) ** 2)).astype(
                np.float32
            )
            return np.repeat(bell[None], len(x), 0)

        return maps


@dataclass(frozen=True, slots=True)
class Random(Baseline):
    """Noise, the same for the same picture."""

    knows_the_model: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> Run:
        def maps(x: Pictures, t: Targets) -> Maps:
            seeds = [
                [subject.seed, int(abs(one.astype(np.float64).sum()) * 1e3) % 2**31] for one in x
            ]
            return np.stack(
                [np.random.default_rng(seed).normal(size=subject.grid(x)) for seed in seeds]
            ).astype(np.float32)

        return maps


@dataclass(frozen=True, slots=True)
class Edges(Baseline):
    """Sobel's gradient of the grey picture, blurred a
    little: what any edge detector would point at.
    """

    knows_the_model: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> Run:
        def one(grey: NDArray[np.float32]) -> NDArray[np.float32]:
            across, down = (cv2.Sobel(grey, cv2.CV_32F, dx, dy) for dx, dy in ((1, 0), (0, 1)))
            return np.asarray(cv2.GaussianBlur(np.hypot(across, down), (0, 0), 1.0), np.float32)

        return lambda x, t: np.stack(
            [one(grey) for grey in x.mean(subject.channels).astype(np.float32)]
        )


@dataclass(frozen=True, slots=True)
class IntegratedGradients(Baseline):
    """``(x − x₀) ⊙ ∫ ∇f(x₀ + α(x − x₀)) dα`` summed over channels,
    x₀ = 0, by Gauss-Legendre (Sundararajan et al. 2017).
    """

    steps: int = 32

    def __call__(self, subject: Subject) -> Run:
        places, weights = np.polynomial.legendre.leggauss(self.steps)

        def maps(x: Pictures, t: Targets) -> Maps:
            found = []
            for picture, target in zip(x, t, strict=True):
                shades = np.stack([picture * np.float32((a + 1) / 2) for a in places])
                slopes = subject.gradients(shades, np.full(len(shades), target))
                mean = np.tensordot(weights / 2, slopes.astype(np.float64), 1)
                found.append((picture * mean).sum(subject.channels - 1))
            return np.stack(found).astype(np.float32)

        return maps


@dataclass(frozen=True, slots=True)
class SmoothGrad(Baseline):
    """|mean gradient| summed over channels, the mean under Gaussian
    noise of `noise` times the picture's range (Smilkov et al. 2017).
    """

    samples: int = 24
    noise: float = 0.15

    def __call__(self, subject: Subject) -> Run:
        def maps(x: Pictures, t: Targets) -> Maps:
            found = []
            for picture, target in zip(x, t, strict=True):
                # The same noise for every picture, whatever runs beside it.
                rng = np.random.default_rng(subject.seed)
                spread = self.noise * float(picture.max() - picture.min())
                noisy = picture + rng.normal(0, spread, (self.samples, *picture.shape)).astype(
                    np.float32
                )
                slopes = subject.gradients(noisy, np.full(len(noisy), target))
                found.append(np.abs(slopes.mean(0)).sum(subject.channels - 1))
            return np.stack(found)

        return maps


@dataclass(frozen=True, slots=True)
class Occlusion(Baseline):
    """What the target's probability loses when a square is replaced by
    the mean colour; overlapping squares are averaged (Zeiler and Fergus
    2014). `side` and `stride` are shares of the picture's height.
    """

    side: float = 0.2
    stride: float = 0.07

    def __call__(self, subject: Subject) -> Run:
        def maps(x: Pictures, t: Targets) -> Maps:
            height, width = subject.grid(x)
            size, step = (
                min(max(1, round(self.side * height)), width),
                max(1, round(self.stride * height)),
            )
            starts = [
                (r, c)
                for r in range(0, height - size + step, step)
                for c in range(0, width - size + step, step)
            ]
            keep = np.ones((len(starts), height, width), np.float32)
            for mask, (row, column) in zip(keep, starts, strict=True):
                mask[row : row + size, column : column + size] = 0
            hidden = 1 - keep
            found = []
            for picture, target in zip(x, t, strict=True):
                whole = subject.probabilities(picture[None])[0, target]
                lost = whole - subject.probabilities(subject.masked(picture, keep))[:, target]
                found.append(np.tensordot(lost, hidden, 1) / np.maximum(hidden.sum(0), 1))
            return np.stack(found).astype(np.float32)

        return maps


@dataclass(frozen=True, slots=True)
class Rise(Baseline):
    """``Σ f(x ⊙ m)·m / (N·p)`` over N random masks: grids of `cells`² with share `keep` of ones,
    enlarged bilinearly and shifted (Petsiuk et al. 2018, which takes 8,000 for ResNet-50).
    """

    masks: int = 1000
    cells: int = 7
    keep: float = 0.5

    def __call__(self, subject: Subject) -> Run:
        def maps(x: Pictures, t: Targets) -> Maps:
            shades = rise_masks(subject.grid(x), self.masks, self.cells, self.keep, subject.seed)
            found = []
            for picture, target in zip(x, t, strict=True):
                scores = [
                    subject.probabilities(subject.masked(picture, part))[:, target]
                    for part in parts_of(shades)
                ]
                found.append(
                    np.tensordot(np.concatenate(scores), shades, 1) / (len(shades) * self.keep)
                )
            return np.stack(found).astype(np.float32)

        return maps


def rise_masks(
    shape: tuple[int, int], many: int, cells: int, keep: float, seed: int
) -> NDArray[np.float32]:
    """(many, H, W), values 0 to 1."""
    rng = np.random.default_rng(seed)
    cell = [-(-size // cells) for size in shape]
    found = np.empty((many, *shape), np.float32)
    for mask in found:
        grid = (rng.random((cells, cells)) < keep).astype(np.float32)
        large = cv2.resize(
            grid, ((cells + 1) * cell[1], (cells + 1) * cell[0]), interpolation=cv2.INTER_LINEAR
        )
        row, column = (int(rng.integers(0, c)) for c in cell)
        mask[:] = large[row : row + shape[0], column : column + shape[1]]
    return found


def _features(
    subject: Subject,
) -> Callable[[Pictures, Targets], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(activations, gradients) at the last feature map, (N, C, h, w) each."""
    compiled = compile_model(
        subject.path, composite="gradient", outputs=(subject.feature,), **subject.choices
    )
    if subject.feature not in {value.name for value in compiled.model.graph.output}:
        compiled.model.graph.output.append(onnx.ValueInfoProto(name=subject.feature))
    explainer = Explainer(
        compiled.model.SerializeToString(), providers=subject.provider, threads=subject.threads
    )

    def both(x: Pictures, t: Targets) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        runs = [
            explainer.explain(a, target=b) for a, b in zip(parts_of(x), parts_of(t), strict=True)
        ]
        names = (subject.feature, f"relevance/{subject.feature}")
        activations, slopes = (np.concatenate([run[name] for run in runs]) for name in names)
        return activations, slopes

    return both


@dataclass(frozen=True, slots=True)
class GradCam(Baseline):
    """``max(Σₖ αₖAₖ, 0)`` with αₖ the mean gradient of channel
    k, at the last feature map (Selvaraju et al. 2017).
    """

    reads_features: ClassVar[bool] = True

    def __call__(self, subject: Subject) -> Run:
        features = _features(subject)

        def maps(x: Pictures, t: Targets) -> Maps:
            activations, slopes = features(x, t)
            weighted = np.maximum((slopes.mean((2, 3), keepdims=True) * activations).sum(1), 0)
            return np.stack([resample(one, subject.grid(x), method="bilinear") for one in weighted])

        return maps


@dataclass(frozen=True, slots=True)
class Cam(Baseline):
    """``Σₖ ∂f/∂Aₖ · Aₖ`` at the last feature map: CAM where a dense layer follows a global average
    (Zhou et al. 2016), and what generalises it elsewhere.
    """

    reads_features: ClassVar[bool] = True

    def __call__(self, subject: Subject) -> Run:
        features = _features(subject)

        def maps(x: Pictures, t: Targets) -> Maps:
            activations, slopes = features(x, t)
            return np.stack(
                [
                    resample(one, subject.grid(x), method="bilinear")
                    for one in (slopes * activations).sum(1)
                ]
            )

        return maps


@dataclass(frozen=True, slots=True)
class ScoreCam(Baseline):
    """``max(Σₖ wₖAₖ, 0)``, w the softmax of the target's logit's stand-in: what
    showing the picture through the k-th channel gains in probability (Wang et
    al. 2020); only the `channels` with the largest activation are tried.
    """

    channels: int = 64

    reads_features: ClassVar[bool] = True

    def __call__(self, subject: Subject) -> Run:
        features = _features(subject)

        def maps(x: Pictures, t: Targets) -> Maps:
            activations, _ = features(x, t)
            found = []
            for picture, target, channel in zip(x, t, activations, strict=True):
                most = np.argsort(-channel.max((1, 2)))[: self.channels]
                large = np.stack(
                    [resample(one, subject.grid(x), method="bilinear") for one in channel[most]]
                )
                low, high = large.min((1, 2), keepdims=True), large.max((1, 2), keepdims=True)
                scaled = (large - low) / np.maximum(high - low, 1e-8)
                gains = np.log(
                    subject.probabilities(subject.masked(picture, scaled))[:, target] + 1e-12
                )
                weights = np.exp(gains - gains.max())
                found.append(np.maximum(np.tensordot(weights / weights.sum(), large, 1), 0))
            return np.stack(found).astype(np.float32)

        return maps


@dataclass(frozen=True, slots=True)
class ReciproCam(Baseline):
    """The target's probability when the head sees the last feature map
    through one small bell at a time, as a map of the bells' places (Byun and
    Lee 2022): no gradients. A bell is ((1, 2, 1), (2, 4, 2), (1, 2, 1)) / 16.
    """

    reads_features: ClassVar[bool] = True

    def __call__(self, subject: Subject) -> Run:
        bell = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])

        def maps(x: Pictures, t: Targets) -> Maps:
            found = []
            for activations, target in zip(subject.features(x), t, strict=True):
                rows, columns = activations.shape[1:]
                places = np.zeros((rows, columns, rows + 2, columns + 2), np.float32)
                for row, column in np.ndindex(rows, columns):
                    places[row, column, row : row + 3, column : column + 3] = bell
                seen = activations * places[:, :, None, 1:-1, 1:-1].reshape(-1, 1, rows, columns)
                scores = subject.of_features(seen)[:, target].reshape(rows, columns)
                found.append(
                    resample(scores.astype(np.float32), subject.grid(x), method="bilinear")
                )
            return np.stack(found)

        return maps


@dataclass(frozen=True, slots=True)
class Attention(Baseline):
    """The model's own attention map, of an attention branch network (Fukui et al. 2019)."""

    def __call__(self, subject: Subject) -> Run:
        explainer = subject.compiled(composite="gradient", outputs=("attention",))

        def maps(x: Pictures, t: Targets) -> Maps:
            found = in_parts(explainer, "attention", x, t)
            return np.stack([resample(one, subject.grid(x), method="bilinear") for one in found])

        return maps


BASELINES: Mapping[str, Baseline] = {
    "constant": Constant(),
    "random": Random(),
    "gaussian": Gaussian(),
    "edges": Edges(),
    "grad-cam": GradCam(),
    "cam": Cam(),
    "score-cam": ScoreCam(),
    "recipro-cam": ReciproCam(),
    "rise": Rise(),
    "occlusion": Occlusion(),
    "integrated-gradients": IntegratedGradients(),
    "smooth-grad": SmoothGrad(),
    "attention": Attention(),
}
"""Every baseline by its name, with its default parameters."""
SANITY = tuple(name for name, baseline in BASELINES.items() if not baseline.knows_the_model)
"""Methods that know nothing of the model: rows of every table."""
