"""What others use, and what knows nothing of the model: each makes maps of pictures from an ONNX file alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx.compiler import compile_model
from lrp_onnx.evaluation.subject import Classes, Maps, Pictures, Subject, in_parts, parts_of
from lrp_onnx.maps.resample import resample
from lrp_onnx.runtime.explainer import Explainer

Run = Callable[[Pictures, Classes], Maps]
"""Pictures and the class to explain of each → maps."""
Maker = Callable[..., Run]


def constant(subject: Subject) -> Run:
    """The same everywhere."""
    return lambda x, t: np.zeros((len(x), *subject.grid(x)), np.float32)


def gaussian(subject: Subject, width: float = 0.25) -> Run:
    """A bell in the middle, of a standard deviation of `width` of the shorter side."""

    def maps(x: Pictures, t: Classes) -> Maps:
        height, columns = subject.grid(x)
        rows, cols = np.mgrid[:height, :columns]
        squares = (rows - (height - 1) / 2) ** 2 + (cols - (columns - 1) / 2) ** 2
        bell = np.exp(-squares / (2 * (width * min(height, columns)) ** 2)).astype(np.float32)
        return np.repeat(bell[None], len(x), 0)

    return maps


def random(subject: Subject) -> Run:
    """Noise, the same for the same picture."""

    def maps(x: Pictures, t: Classes) -> Maps:
        seeds = [[subject.seed, int(abs(one.astype(np.float64).sum()) * 1e3) % 2**31] for one in x]
        return np.stack([np.random.default_rng(seed).normal(size=subject.grid(x)) for seed in seeds]).astype(np.float32)

    return maps


def edges(subject: Subject) -> Run:
    """Sobel's gradient of the grey picture, blurred a little: what any edge detector would point at."""

    def one(grey: NDArray[np.float32]) -> NDArray[np.float32]:
        across, down = (cv2.Sobel(grey, cv2.CV_32F, dx, dy) for dx, dy in ((1, 0), (0, 1)))
        return np.asarray(cv2.GaussianBlur(np.hypot(across, down), (0, 0), 1.0), np.float32)

    return lambda x, t: np.stack([one(grey) for grey in x.mean(subject.channels).astype(np.float32)])


def integrated_gradients(subject: Subject, steps: float = 32) -> Run:
    """``(x − x₀) ⊙ ∫ ∇f(x₀ + α(x − x₀)) dα`` summed over channels, x₀ = 0, by Gauss-Legendre (Sundararajan et al.
    2017).
    """
    places, weights = np.polynomial.legendre.leggauss(int(steps))

    def maps(x: Pictures, t: Classes) -> Maps:
        found = []
        for picture, target in zip(x, t, strict=True):
            shades = np.stack([picture * np.float32((a + 1) / 2) for a in places])
            slopes = subject.gradients(shades, np.full(len(shades), target))
            mean = np.tensordot(weights / 2, slopes.astype(np.float64), 1)
            found.append((picture * mean).sum(subject.channels - 1))
        return np.stack(found).astype(np.float32)

    return maps


def smooth_grad(subject: Subject, samples: float = 24, noise: float = 0.15) -> Run:
    """|mean gradient| summed over channels, the mean under Gaussian noise of `noise` times the picture's range (Smilkov
    et al. 2017).
    """

    def maps(x: Pictures, t: Classes) -> Maps:
        found = []
        for picture, target in zip(x, t, strict=True):
            rng = np.random.default_rng(subject.seed)  # the same noise for every picture, whatever runs beside it
            spread = noise * float(picture.max() - picture.min())
            noisy = picture + rng.normal(0, spread, (int(samples), *picture.shape)).astype(np.float32)
            slopes = subject.gradients(noisy, np.full(len(noisy), target))
            found.append(np.abs(slopes.mean(0)).sum(subject.channels - 1))
        return np.stack(found)

    return maps


def occlusion(subject: Subject, side: float = 0.2, stride: float = 0.07) -> Run:
    """What the target's probability loses when a square is replaced by the mean colour; overlapping squares are
    averaged (Zeiler and Fergus 2014). `side` and `stride` are shares of the picture's height.
    """

    def maps(x: Pictures, t: Classes) -> Maps:
        height, width = subject.grid(x)
        size, step = min(max(1, round(side * height)), width), max(1, round(stride * height))
        starts = [(r, c) for r in range(0, height - size + step, step) for c in range(0, width - size + step, step)]
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


def rise(subject: Subject, masks: float = 1000, cells: float = 7, keep: float = 0.5) -> Run:
    """``Σ f(x ⊙ m)·m / (N·p)`` over N random masks: grids of `cells`² with share `keep` of ones, enlarged bilinearly
    and shifted (Petsiuk et al. 2018, which takes 8,000 for ResNet-50).
    """

    def maps(x: Pictures, t: Classes) -> Maps:
        shades = rise_masks(subject.grid(x), int(masks), int(cells), keep, subject.seed)
        found = []
        for picture, target in zip(x, t, strict=True):
            scores = [subject.probabilities(subject.masked(picture, part))[:, target] for part in parts_of(shades)]
            found.append(np.tensordot(np.concatenate(scores), shades, 1) / (len(shades) * keep))
        return np.stack(found).astype(np.float32)

    return maps


def rise_masks(shape: tuple[int, int], many: int, cells: int, keep: float, seed: int) -> NDArray[np.float32]:
    """(many, H, W), values 0 to 1."""
    rng = np.random.default_rng(seed)
    cell = [-(-size // cells) for size in shape]
    found = np.empty((many, *shape), np.float32)
    for mask in found:
        grid = (rng.random((cells, cells)) < keep).astype(np.float32)
        large = cv2.resize(grid, ((cells + 1) * cell[1], (cells + 1) * cell[0]), interpolation=cv2.INTER_LINEAR)
        row, column = (int(rng.integers(0, c)) for c in cell)
        mask[:] = large[row : row + shape[0], column : column + shape[1]]
    return found


def _features(subject: Subject) -> Callable[[Pictures, Classes], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(activations, gradients) at the last feature map, (N, C, h, w) each."""
    compiled = compile_model(subject.path, composite="gradient", outputs=(subject.feature,), **subject.choices)
    if subject.feature not in {value.name for value in compiled.model.graph.output}:
        compiled.model.graph.output.append(onnx.ValueInfoProto(name=subject.feature))
    explainer = Explainer(compiled.model.SerializeToString(), providers=subject.provider, threads=subject.threads)

    def both(x: Pictures, t: Classes) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        runs = [explainer.explain(a, target=b) for a, b in zip(parts_of(x), parts_of(t), strict=True)]
        names = (subject.feature, f"relevance/{subject.feature}")
        activations, slopes = (np.concatenate([run[name] for run in runs]) for name in names)
        return activations, slopes

    return both


def grad_cam(subject: Subject) -> Run:
    """``max(Σₖ αₖAₖ, 0)`` with αₖ the mean gradient of channel k, at the last feature map (Selvaraju et al. 2017)."""
    features = _features(subject)

    def maps(x: Pictures, t: Classes) -> Maps:
        activations, slopes = features(x, t)
        weighted = np.maximum((slopes.mean((2, 3), keepdims=True) * activations).sum(1), 0)
        return np.stack([resample(one, subject.grid(x), method="bilinear") for one in weighted])

    return maps


def cam(subject: Subject) -> Run:
    """``Σₖ ∂f/∂Aₖ · Aₖ`` at the last feature map: CAM where a dense layer follows a global average (Zhou et al. 2016),
    and what generalises it elsewhere.
    """
    features = _features(subject)

    def maps(x: Pictures, t: Classes) -> Maps:
        activations, slopes = features(x, t)
        return np.stack([resample(one, subject.grid(x), method="bilinear") for one in (slopes * activations).sum(1)])

    return maps


def score_cam(subject: Subject, channels: float = 64) -> Run:
    """``max(Σₖ wₖAₖ, 0)``, w the softmax of the target's logit's stand-in: what showing the picture through the k-th
    channel gains in probability (Wang et al. 2020); only the `channels` with the largest activation are tried.
    """
    features = _features(subject)

    def maps(x: Pictures, t: Classes) -> Maps:
        activations, _ = features(x, t)
        found = []
        for picture, target, channel in zip(x, t, activations, strict=True):
            most = np.argsort(-channel.max((1, 2)))[: int(channels)]
            large = np.stack([resample(one, subject.grid(x), method="bilinear") for one in channel[most]])
            low, high = large.min((1, 2), keepdims=True), large.max((1, 2), keepdims=True)
            scaled = (large - low) / np.maximum(high - low, 1e-8)
            gains = np.log(subject.probabilities(subject.masked(picture, scaled))[:, target] + 1e-12)
            weights = np.exp(gains - gains.max())
            found.append(np.maximum(np.tensordot(weights / weights.sum(), large, 1), 0))
        return np.stack(found).astype(np.float32)

    return maps


def recipro_cam(subject: Subject) -> Run:
    """The target's probability when the head sees the last feature map through one small bell at a time, as a map of
    the bells' places (Byun and Lee 2022): no gradients. A bell is ((1, 2, 1), (2, 4, 2), (1, 2, 1)) / 16.
    """
    bell = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])

    def maps(x: Pictures, t: Classes) -> Maps:
        found = []
        for activations, target in zip(subject.features(x), t, strict=True):
            rows, columns = activations.shape[1:]
            places = np.zeros((rows, columns, rows + 2, columns + 2), np.float32)
            for row, column in np.ndindex(rows, columns):
                places[row, column, row : row + 3, column : column + 3] = bell
            seen = activations * places[:, :, None, 1:-1, 1:-1].reshape(-1, 1, rows, columns)
            scores = subject.of_features(seen)[:, target].reshape(rows, columns)
            found.append(resample(scores.astype(np.float32), subject.grid(x), method="bilinear"))
        return np.stack(found)

    return maps


def attention(subject: Subject) -> Run:
    """The model's own attention map, of an attention branch network (Fukui et al. 2019)."""
    explainer = subject.compiled(composite="gradient", outputs=("attention",))

    def maps(x: Pictures, t: Classes) -> Maps:
        found = in_parts(explainer, "attention", x, t)
        return np.stack([resample(one, subject.grid(x), method="bilinear") for one in found])

    return maps


BASELINES: Mapping[str, Maker] = {
    "constant": constant,
    "random": random,
    "gaussian": gaussian,
    "edges": edges,
    "grad-cam": grad_cam,
    "cam": cam,
    "score-cam": score_cam,
    "recipro-cam": recipro_cam,
    "rise": rise,
    "occlusion": occlusion,
    "integrated-gradients": integrated_gradients,
    "smooth-grad": smooth_grad,
    "attention": attention,
}
"""What is not a composite, by name."""
OF_FEATURES: Sequence[str] = ("grad-cam", "cam", "score-cam", "recipro-cam")
"""What reads the last feature map."""
SANITY: Sequence[str] = ("constant", "random", "gaussian", "edges")
"""Methods that know nothing of the model: rows of every table."""
