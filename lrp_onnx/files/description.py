"""What a model's metadata, and the files beside it, say about its pictures and classes.

Read are: our own keys, the metadata of Ultralytics' exports, ONNX's ``Image.*`` keys, and beside
the model Hugging Face's ``preprocessor_config.json`` and ``config.json``, timm's ``pretrained_cfg``
in the latter, and text files of class names. Damaged files are remarks, never errors: what they
would have said is then unknown.
"""

from __future__ import annotations

import ast
import errno
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrp_onnx.contract import Preprocessing, read_description
from lrp_onnx.files.hugging_face import cut_of, of_preprocessor, of_timm, pair, possible

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
NAME_FILES = (
    "{stem}.labels.txt",
    "{stem}.classes.txt",
    "{stem}.txt",
    "labels.txt",
    "classes.txt",
    "class_names.txt",
    "imagenet_classes.txt",
    "synset.txt",
    "synset_words.txt",
)
"""Text files of class names beside a model, one name a line; ``{stem}`` is the model's name."""
MOST_BYTES = 20_000_000
"""Larger files beside a model are not read."""
_WORD_NET_ID = 9
"""Characters of an ImageNet identifier such as n01440764, which some lists have before the name."""
_PIXELS = {"Rgb8": "RGB", "Bgr8": "BGR", "Rgba8": "RGB", "Bgra8": "BGR", "Gray8": "GRAY"}
_RANGES = {
    "NominalRange_0_255": (0.0, 1.0, 1.0),
    "Normalized_0_1": (0.0, 1.0, 255.0),
    "Normalized_1_1": (1.0, 1.0, 127.5),
}
"""``Image.NominalPixelRange`` → mean, std and divisor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """How pictures become a model's input, and what its classes are called."""

    preprocessing: Preprocessing | None = None
    """None where nothing says it."""
    preprocessing_from: str = ""
    """What says it, e.g. ``preprocessor_config.json beside the model``."""
    labels: tuple[str, ...] = ()
    """Class names in the order of the logits; empty where nothing says them."""
    labels_from: str = ""
    input_size: tuple[int, int] | None = None
    """Height and width that the model was made for, where something says so."""
    remarks: tuple[str, ...] = ()
    """What was found and could not be used, in words."""

    @property
    def sources(self) -> dict[str, str]:
        """``preprocessing`` and ``labels`` → what says them, where they are known."""
        named = {"preprocessing": self.preprocessing, "labels": self.labels}
        where = {"preprocessing": self.preprocessing_from, "labels": self.labels_from}
        return {name: where[name] for name, value in named.items() if value}


def describe_model(
    metadata: Mapping[str, str],
    path: Path | None,
    *,
    classes: int | None = None,
    channels: int | None = None,
) -> Description:
    """What is said about a model, the first source that says it winning.

    Args:
        metadata: its metadata properties.
        path: its file; None where there is none, and nothing beside it is read.
        classes: how many classes it has: lists of other lengths are left out, with a remark. None
            takes any.

    Raises:
        ContractError: our own metadata is damaged.
    """
    remarks: list[str] = []
    return _first(_every(metadata, path, remarks.append), classes, channels, remarks)


def names_said(metadata: Mapping[str, str], path: Path) -> list[str]:
    """The class names of every list that could be a model's, one list after the other.

    Raises:
        ContractError: our own metadata is damaged.
    """
    return [name for one in _every(metadata, path, lambda _: None) for name in one.labels]


def _every(
    metadata: Mapping[str, str], path: Path | None, remark: Callable[[str], None]
) -> list[Description]:
    """What every source says, in the order in which they count."""
    return [*_in_metadata(metadata, remark), *(_beside(path, remark) if path else ())]


def _first(
    said: Sequence[Description], classes: int | None, channels: int | None, remarks: list[str]
) -> Description:
    found = Description()
    for one in said:
        if found.preprocessing is None and one.preprocessing is not None:
            spec = _for_channels(one.preprocessing, channels)
            if spec is None:
                remarks.append(
                    f"{one.preprocessing_from} is for {one.preprocessing.channels} pictures, the "
                    f"model for those of {channels} channel(s): not used"
                )
            else:
                found = replace(
                    found, preprocessing=spec, preprocessing_from=one.preprocessing_from
                )
        if not found.labels and one.labels:
            if classes in (None, len(one.labels)):
                found = replace(found, labels=one.labels, labels_from=one.labels_from)
            else:
                remarks.append(
                    f"{one.labels_from} has {len(one.labels)} class names, the model {classes} "
                    "classes: not used"
                )
        if found.input_size is None:
            found = replace(found, input_size=one.input_size)
    return replace(found, remarks=tuple(remarks))


def _for_channels(spec: Preprocessing, channels: int | None) -> Preprocessing | None:
    """The preprocessing for pictures of so many channels; None where it is for others."""
    if channels is None or (channels == 1) == (spec.channels == "GRAY"):
        return spec
    if len(spec.mean) == len(spec.std) == 1:
        return replace(spec, channels="GRAY" if channels == 1 else "RGB")
    return None


def _in_metadata(
    metadata: Mapping[str, str], remark: Callable[[str], None]
) -> Iterator[Description]:
    preprocessing, labels = read_description(metadata)
    here = "the model's metadata"
    yield Description(
        preprocessing=preprocessing,
        preprocessing_from=here,
        labels=labels,
        labels_from=here,
    )
    yield _ultralytics(metadata, remark)
    yield _image_keys(metadata)


def _ultralytics(metadata: Mapping[str, str], remark: Callable[[str], None]) -> Description:
    """Metadata as Ultralytics writes it: ``task``, ``names``, ``imgsz``, as Python literals.

    Its classifiers take RGB from 0 to 1, the shorter side resized, the centre cut out.
    """
    here = "the model's metadata (Ultralytics)"
    names = _names(_literal(metadata.get("names", "")), f"names in {here}", remark)
    size = _literal(metadata.get("imgsz", ""))
    is_classifier = metadata.get("task") == "classify"
    gray = metadata.get("channels") == "1"
    unit = Preprocessing(
        mean=(0.0,), std=(1.0,), interpolation="area", channels="GRAY" if gray else "RGB"
    )
    return Description(
        preprocessing=unit if is_classifier else None,
        preprocessing_from=here,
        labels=names,
        labels_from=here,
        input_size=pair(size),
    )


def _image_keys(metadata: Mapping[str, str]) -> Description:
    """ONNX's own keys for pictures: ``Image.BitmapPixelFormat`` and ``Image.NominalPixelRange``."""
    channels = _PIXELS.get(metadata.get("Image.BitmapPixelFormat", ""))
    values = _RANGES.get(metadata.get("Image.NominalPixelRange", ""))
    if channels is None or values is None:
        return Description()
    mean, std, divisor = values
    return Description(
        preprocessing=Preprocessing(mean=(mean,), std=(std,), divisor=divisor, channels=channels),
        preprocessing_from="the model's metadata (Image.* keys)",
    )


def _beside(path: Path, remark: Callable[[str], None]) -> Iterator[Description]:
    """What the files in the model's folder say; of a folder ``onnx``, those of its parent too."""
    folders = [path.parent]
    if path.absolute().parent.name == "onnx":
        folders.append(path.absolute().parent.parent)
    for folder in folders:
        preprocessor = _json(folder / PREPROCESSOR, remark)
        config = _json(folder / CONFIG, remark)
        yield _hugging_face(preprocessor, config, folder, remark)
        for pattern in NAME_FILES:
            file = folder / pattern.format(stem=path.stem.removesuffix(".lrp"))
            names = _lines(file, remark)
            if names:
                yield Description(labels=names, labels_from=str(file))


def _hugging_face(
    preprocessor: Mapping[str, Any],
    config: Mapping[str, Any],
    folder: Path,
    remark: Callable[[str], None],
) -> Description:
    timm = config.get("pretrained_cfg", {})
    readers: tuple[tuple[str, Mapping[str, Any], Callable[[Any], Preprocessing]], ...] = (
        (
            PREPROCESSOR,
            preprocessor and {"model_type": config.get("model_type"), **preprocessor},
            of_preprocessor,
        ),
        (f"pretrained_cfg of {CONFIG}", timm if isinstance(timm, dict) else {}, of_timm),
    )
    found = Description()
    for name, values, read in readers:
        if not values or found.preprocessing is not None:
            continue
        try:
            found = Description(
                preprocessing=possible(read(values)),
                preprocessing_from=f"{name} in {folder}",
                input_size=pair(cut_of(values) or values.get("size"))
                or pair(values.get("input_size", ())[-2:]),
            )
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            remark(f"{name} in {folder} cannot be used ({error})")
    names = _names(config.get("id2label"), f"id2label of {folder / CONFIG}", remark)
    names = names or _names(config.get("label_names"), f"label_names of {folder / CONFIG}", remark)
    if names and not all(name.startswith("LABEL_") for name in names):
        found = replace(found, labels=names, labels_from=str(folder / CONFIG))
    return found


def _names(found: Any, where: str, remark: Callable[[str], None]) -> tuple[str, ...]:
    """Class names of a list, or of a mapping from every index, as a number or text; else none, with
    a remark on a mapping of other keys. What is null has no name.
    """
    if isinstance(found, list | tuple):
        return tuple(map(_name, found))
    if not isinstance(found, dict) or not found:
        return ()
    try:
        by_index = {int(index): _name(name) for index, name in found.items()}
    except (TypeError, ValueError, OverflowError):
        by_index = {}
    if sorted(by_index) != list(range(len(found))):
        remark(f"{where} does not name the classes from 0 to {len(found) - 1} one by one: not used")
        return ()
    return tuple(by_index[index] for index in range(len(by_index)))


def _name(value: Any) -> str:
    return "" if value is None else str(value)


def _literal(text: str) -> Any:
    """The Python literal in a text, or None."""
    if len(text) > MOST_BYTES:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _text(path: Path, remark: Callable[[str], None]) -> str:
    """The text of a regular file; "" where there is none, or it cannot be read."""
    try:
        if not path.is_file():
            return ""
        if path.stat().st_size > MOST_BYTES:
            remark(f"{path} is larger than {MOST_BYTES:,} bytes: not read")
            return ""
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return ""  # made of a model's long name: no file is called so
        remark(f"{path} cannot be read ({error})")
        return ""


def _json(path: Path, remark: Callable[[str], None]) -> Mapping[str, Any]:
    text = _text(path, remark)
    try:
        values = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        remark(f"{path} is not JSON ({error})")
        values = {}
    return values if isinstance(values, dict) else {}


def _lines(path: Path, remark: Callable[[str], None]) -> tuple[str, ...]:
    """Class names of a text file, without ImageNet's identifiers before them."""
    lines = [line.strip() for line in _text(path, remark).splitlines()]
    names = [line for line in lines if line]
    if names and all(map(_has_word_net_id, names)):
        names = [name[_WORD_NET_ID:].strip() or name for name in names]
    return tuple(names)


def _has_word_net_id(line: str) -> bool:
    return len(line) >= _WORD_NET_ID and line[0] == "n" and line[1:_WORD_NET_ID].isdecimal()
