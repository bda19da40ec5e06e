"""The package in one call: from a model and a picture to an explanation."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx.compiler import Compiled, Options, compile_model
from lrp_onnx.contract import Preprocessing, is_compiled
from lrp_onnx.errors import ImageError, LrpOnnxError, ModelFileError, RuleError
from lrp_onnx.explanation import Explanation
from lrp_onnx.files.models import metadata_of
from lrp_onnx.notation import suggestion
from lrp_onnx.runtime import explainer
from lrp_onnx.runtime.classes import Target
from lrp_onnx.runtime.images import read_classes
from lrp_onnx.runtime.preprocess import PRESETS, parse_preprocessing
from lrp_onnx.runtime.session import DEFAULT_TUNING, Tuning
from lrp_onnx.runtime.sources import PilImage, Source, as_array, is_source
from lrp_onnx.runtime.starts import MaskSource

Model: TypeAlias = str | os.PathLike[str] | bytes | onnx.ModelProto | Compiled
"""A model: a file, a serialized model, a message, or what `compile_model` returns."""


class Explainer(explainer.Explainer):
    """A model, ready to explain pictures: it is compiled once, if it is not compiled yet.

    Example::

        explainer = Explainer("model.onnx", composite="lrp-resnet")
        one = explainer("photo.jpg")
        several = explainer(["a.jpg", "b.jpg"])
        for explanation in explainer.explain_images(find_images(["photos"])):
            explanation.save(f"{explanation.path.stem}.png")

    Args:
        model: a file, compiled or not, a serialized model, a message, or what `compile_model`
            returns.
        options: how a model that is not compiled is compiled.
        preprocessing: how pictures become input, also as text; None for what the file says.
        classes: the class names, or a text file with one per line; None for those in the file.
        provider: ``cpu``, ``cuda``, or several in the order of preference; None for CUDA if it is
            available, else the CPU.
        threads: CPU threads; None for all cores.
        tuning: how the session uses its machine.
        choices: fields of `Options` by name, which override those of `options`.

    Raises:
        LrpOnnxError: the model cannot be read, compiled or run, or an option does not fit.
        TypeError: a choice is no field of `Options`.
    """

    explanation: ClassVar[type[Explanation]] = Explanation

    def __init__(
        self,
        model: Model,
        *,
        options: Options | None = None,
        preprocessing: str | Preprocessing | None = None,
        classes: Sequence[str] | str | os.PathLike[str] | None = None,
        provider: str | Sequence[str] | None = None,
        threads: int | None = None,
        tuning: Tuning = DEFAULT_TUNING,
        **choices: Any,
    ) -> None:
        chosen = _options(options, preprocessing, classes, choices)
        source = _source(model)
        if not is_compiled(metadata_of(source)):
            source = _compiled(source, chosen)
        elif replace(chosen, preprocessing=None, labels=(), max_memory=None) != Options():
            raise RuleError(
                "the model is compiled already, so options of a compilation change nothing: "
                "give the model that it was compiled from"
            )
        super().__init__(
            source,
            providers=provider,
            threads=threads,
            tuning=tuning,
            preprocessing=chosen.preprocessing,
            labels=chosen.labels,
            max_memory=chosen.max_memory,
        )
        self._warned = False
        if self.changed:
            warnings.warn(
                f"{self.changed}: `lrp-onnx verify FILE --original MODEL` compares them",
                stacklevel=2,
            )

    def __call__(
        self,
        image: Source | Iterable[Source],
        *,
        target: Target = None,
        top: int | None = None,
        mask: MaskSource | Sequence[MaskSource] | None = None,
        similar_to: Source | None = None,
        batch_size: int = 8,
    ) -> Any:
        """Explain one picture, several, or a prepared batch; see `explain`."""
        images, single = self._images(image)
        if mask is not None or similar_to is not None:
            return self._part(images, single, target, top, mask, similar_to, batch_size)
        several = _is_list(target) and (single or self.contract.many_targets)
        if top is None and not several:
            found = list(self._run(images, target, batch_size))
            return found[0] if single else found
        if top is not None and (target is not None or not 1 <= top <= self.contract.classes):
            raise ValueError(
                f"top is {top}: it is 1 to {self.contract.classes}, the number of classes, "
                "and stands without target"
            )
        each = [self._several(images[n : n + 1], target, top) for n in range(len(images))]
        return each[0] if single else each

    def _part(
        self,
        images: list[Source] | NDArray[Any],
        single: bool,
        target: Target,
        top: int | None,
        mask: MaskSource | Sequence[MaskSource] | None,
        similar_to: Source | None,
        batch_size: int,
    ) -> Any:
        """The explanations of pictures for the pixels of a mask, or the similarity to a picture."""
        more = top is not None or (_is_list(target) and (single or self.contract.many_targets))
        if more or (mask is not None and similar_to is not None):
            raise ValueError("mask and similar_to stand alone, or mask with one target")
        if similar_to is not None and target is not None:
            raise ValueError("similar_to stands without a target: no class is explained")
        if not isinstance(images, list):
            raise ValueError("mask and similar_to are for pictures, not for a prepared batch")
        found = list(
            self.explain_images(
                images, target=target, mask=mask, similar_to=similar_to, batch_size=batch_size
            )
        )
        return found[0] if single else found

    def _images(self, image: Source | Iterable[Source]) -> tuple[list[Source] | NDArray[Any], bool]:
        """(pictures or a prepared batch, whether it is one picture)."""
        if not is_source(image):
            return list(cast(Iterable[Source], image)), False
        if isinstance(image, PilImage) or not hasattr(image, "__array__"):
            return [cast(Source, image)], True
        values = as_array(image)
        if self.fits(values, any_number=True):
            return values, False
        if not self.takes_pictures:
            return [values], True
        if values.ndim == 4 and values.dtype == np.uint8:
            return list(values), False
        if values.ndim == 4:
            _, shape = self.session.input_of(self.contract.input)
            raise ImageError(
                f"the batch has the shape {values.shape} and the type {values.dtype}: a prepared "
                f"batch has the shape of the model's input, {shape}, and pictures are uint8"
            )
        return [values], True

    def _run(
        self, images: list[Source] | NDArray[Any], target: Target, batch_size: int = 8
    ) -> Iterator[Explanation]:
        if isinstance(images, list):
            return self.explain_images(images, target=target, batch_size=batch_size)
        return self.explain_prepared(images, target=target, batch_size=batch_size)

    def _several(
        self, image: list[Source] | NDArray[Any], targets: Target, top: int | None
    ) -> list[Explanation]:
        """The explanations of one picture for several classes."""
        if self.contract.many_targets:
            return list(self._run(image, [-1 - n for n in range(top)] if top else targets))
        if top is not None:
            (first,) = self._run(image, None)
            targets = np.argsort(-first.scores.astype(np.float64), kind="stable")[:top]
        count = len(cast(Sequence[int], targets))
        repeated = image * count if isinstance(image, list) else np.repeat(image, count, axis=0)
        return list(self._run(repeated, targets))

    def explain_images(
        self,
        images: Sequence[Source],
        *,
        batch_size: int = 8,
        target: Target = None,
        mask: MaskSource | Sequence[MaskSource] | None = None,
        similar_to: Source | None = None,
        on_fault: Callable[[Path, ImageError], None] | None = None,
    ) -> Iterator[Explanation]:
        """As `runtime.explainer.Explainer.explain_images`; where nothing says how pictures become
        the model's input, it warns once.
        """
        if self.assumed_preprocessing and not self._warned:
            self._warned = True
            warnings.warn(
                "the model does not say how pictures become its input, so imagenet is assumed; if "
                "that is wrong, classes and heatmaps are wrong too: give preprocessing=, one of "
                f"{', '.join(PRESETS)}",
                stacklevel=2,
            )
        found = super().explain_images(
            images,
            batch_size=batch_size,
            target=target,
            mask=mask,
            similar_to=similar_to,
            on_fault=on_fault,
        )
        return cast(Iterator[Explanation], found)

    def explain_prepared(
        self, tensors: NDArray[Any], *, batch_size: int = 8, target: Target = None
    ) -> Iterator[Explanation]:
        """As `runtime.explainer.Explainer.explain_prepared`."""
        found = super().explain_prepared(tensors, batch_size=batch_size, target=target)
        return cast(Iterator[Explanation], found)


def explain(
    model: Model,
    image: Source | Iterable[Source],
    *,
    target: Target = None,
    top: int | None = None,
    mask: MaskSource | Sequence[MaskSource] | None = None,
    similar_to: Source | None = None,
    options: Options | None = None,
    preprocessing: str | Preprocessing | None = None,
    classes: Sequence[str] | str | os.PathLike[str] | None = None,
    provider: str | Sequence[str] | None = None,
    threads: int | None = None,
    batch_size: int = 8,
    **choices: Any,
) -> Any:
    """Explain pictures with a model.

    Nothing is kept between calls: a model that is not compiled is compiled every time. For many
    pictures give a list, or make an `Explainer` once and call it.

    Example::

        explanation = lrp_onnx.explain("model.onnx", "photo.jpg")
        explanation.save("why.png")
        first, second = lrp_onnx.explain("model.onnx", "photo.jpg", top=2)

    Args:
        model: a file, compiled or not, a serialized model, a message, or what `compile_model`
            returns.
        image: a picture: a file, the bytes of a picture file, a PIL image, or an array of uint8,
            (H, W, 3) RGB, (H, W) grey or (H, W, 4) RGBA (OpenCV's arrays are BGR:
            ``image[..., ::-1]``). Or a list of pictures, or the model's prepared input with its
            batch axis, in the model's own shape.
        target: a class index or name; None for the predicted class. A list of them means for one
            picture all of these classes, for several pictures one for each.
        top: how many of the most probable classes to explain, instead of `target`.
        mask: the pixels of an output (N, C, H, W) of which a class is explained: a picture of which
            what is not black counts, or a ``.npy`` file or array (h, w) of weights. It covers the
            whole photo. For several pictures one for all, or a list.
        similar_to: a picture, or an array of floats or a ``.npy`` file: explained is what makes the
            output, an embedding, similar to that of this picture, or to that vector.
        options: how a model that is not compiled is compiled.
        preprocessing: how pictures become input, a `Preprocessing` or text such as ``imagenet`` or
            ``imagenet:resize=stretch``; None for what the model says.
        classes: the class names, or a text file with one per line; None for those in the model.
        provider: ``cpu`` or ``cuda``; None for CUDA if it is available, else the CPU.
        threads: CPU threads; None for all cores.
        batch_size: pictures per run.
        choices: fields of `Options` by name: ``composite="lrp-resnet"``, ``post="none"``, ….

    Returns:
        For one picture an `Explanation`, for several or a batch a list; with `top`, or several
        targets for one picture, a list of explanations in place of each.

    Raises:
        LrpOnnxError: a picture cannot be read, the model cannot be read, compiled or run, or an
            option does not fit.
        TypeError: a choice is no field of `Options`.
        ValueError: `top` or `batch_size` is out of range.
    """
    source = _source(model)
    several = top is not None or (_is_list(target) and is_source(image))
    if several and not is_compiled(metadata_of(source)):
        choices = {"many_targets": True, **choices}  # one forward pass serves all classes
    made = Explainer(
        source,
        options=options,
        preprocessing=preprocessing,
        classes=classes,
        provider=provider,
        threads=threads,
        **choices,
    )
    return made(
        image, target=target, top=top, mask=mask, similar_to=similar_to, batch_size=batch_size
    )


def _is_list(target: Target) -> bool:
    """Whether a target is several ones, not one or none."""
    return target is not None and not isinstance(target, str) and np.ndim(target) > 0


def _options(
    options: Options | None,
    preprocessing: str | Preprocessing | None,
    classes: Sequence[str] | str | os.PathLike[str] | None,
    choices: dict[str, Any],
) -> Options:
    """The options of a compilation, with preprocessing and class names in them."""
    known = [field.name for field in fields(Options)]
    for name in choices:
        if name not in known:
            raise TypeError(f"there is no option {name!r}; {suggestion(name, known)}")
    if isinstance(preprocessing, str):
        preprocessing = parse_preprocessing(preprocessing)
    if preprocessing is not None:
        choices = {**choices, "preprocessing": preprocessing}
    if isinstance(classes, str | os.PathLike):
        classes = read_classes(Path(classes))
    if classes is not None:
        choices = {**choices, "labels": tuple(classes)}
    return replace(options or Options(), **choices)


def _source(model: Model) -> Path | bytes:
    """A model as a file or serialized."""
    if isinstance(model, Compiled):
        model = model.model
    if isinstance(model, onnx.ModelProto):
        return _serialized(model)
    return model if isinstance(model, bytes) else Path(model)


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except ValueError as error:  # more than 2 GiB
        raise ModelFileError(
            f"the model cannot be serialized ({error}): save it with external data and give the "
            "path"
        ) from error


def _compiled(source: Path | bytes, options: Options) -> bytes:
    """The compiled model, serialized."""
    if isinstance(source, Path):
        return _serialized(compile_model(source, options).model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(source)
        try:
            return _serialized(compile_model(path, options).model)
        except LrpOnnxError as error:
            error.args = tuple(str(text).replace(str(path), "the model") for text in error.args)
            raise
