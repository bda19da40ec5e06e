"""Fuzz whatever reads texts and headers.

    python -m tools.fuzz.texts --seconds 600 -o DIR

The first byte of an input says which reader gets the rest: rules, chains, preprocessing, methods,
selections, targets, sizes, metadata, the files beside a model, tables of labels, pictures.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tools.fuzz.campaign import supervise, work

READERS = 28
"""How many readers there are."""
Reader = Callable[[bytes], object]
SEEDS = (
    "epsilon(epsilon=1e-3)", "alpha-beta:alpha=2,beta=1", "z-box(low=-4, high=5)",
    "average+c3:component=peak", "c3(size=14, outside=rank)+quantize:16", "smooth+normalize",
    "imagenet:resize=stretch,mean=0.5/0.5/0.5", "gradient:times_input=true", "occlusion(size=32)",
    ":, 4:, max", ":, 120, :", "scores[:, :, mean 3:7, 1]", "cxcywh:output0[:, :4, :]", "480x640",
    "16x112x112", "-3", "n01440764 tench", "image,label\na.jpg,3\n", "image,x0,y0,x1,y1\na,1,2,3,4",
    '{"id2label": {"0": "a", "1": "b"}, "pretrained_cfg": {"mean": [0.5], "input_size": [3, 9]}}',
    '{"do_resize": true, "size": {"shortest_edge": 224}, "image_mean": [0.5, 0.5, 0.5], '
    '"image_std": [1, 1, 1], "crop_pct": 0.9, "resample": 3, "rescale_factor": 0.0039}',
    '{"mean": [0.5], "std": [0.5], "divisor": 255, "channels": "RGB", "resize": "crop"}',
    "{0: 'a', 1: 'b'}", "[224, 224]", '["a", "b"]',
)  # fmt: skip


def main() -> int:
    if "--worker" in sys.argv:
        fuzz(Path(sys.argv[2]), sys.argv[3:])
    words = [part for text in SEEDS for part in text.replace("(", " ").replace(",", " ").split()]
    pictures = (Path(__file__).parents[2] / "models" / "samples").glob("*.png")
    seeds = [bytes([which]) + text.encode() for text in SEEDS for which in range(READERS)]
    seeds += [
        bytes([which]) + path.read_bytes()
        for path in pictures
        for which in range(READERS - 3, READERS)
    ]
    return supervise("tools.fuzz.texts", __doc__ or "", seeds, words=words)


def fuzz(folder: Path, arguments: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["lrp_onnx"]):
        readers = readers_of(Path(tempfile.mkdtemp()))
        assert len(readers) == READERS, len(readers)
        from lrp_onnx.errors import LrpOnnxError

    warnings.simplefilter("ignore")

    def target(data: bytes) -> None:
        if data:
            try:
                readers[data[0] % len(readers)](data[1:])
            except LrpOnnxError:
                return

    work(target, folder, arguments, None)


def readers_of(folder: Path) -> list[Reader]:
    """Every reader, of bytes."""
    return [*map(of_text, (*of_options(), *of_metadata())), *of_files(folder), *of_pictures()]


def of_text(read: Callable[[str], object]) -> Reader:
    return lambda data: read(data.decode("utf-8", "surrogateescape"))


def or_value_error(read: Callable[[str], object]) -> Callable[[str], object]:
    """A reader that may raise ValueError, as its docstring says."""

    def quiet(text: str) -> object:
        try:
            return read(text)
        except ValueError:
            return None

    return quiet


def there_and_back(
    read: Callable[[str], Any], write: Callable[[Any], str]
) -> Callable[[str], object]:
    """A reader whose results can be written: what is written is read as the same."""

    def both(text: str) -> None:
        written = write(read(text))
        assert write(read(written)) == written, written

    return both


def of_options() -> list[Callable[[str], object]]:
    """What users write."""
    from lrp_onnx.compiler import Options
    from lrp_onnx.evaluation.methods import check_method
    from lrp_onnx.maps.chain import parse_chain
    from lrp_onnx.notation import read_size, read_sizes
    from lrp_onnx.relevance.composites.presets import find_composite
    from lrp_onnx.relevance.rules.table import parse_rule, rule_text
    from lrp_onnx.runtime.classes import Classes, class_of
    from lrp_onnx.runtime.preprocess import parse_preprocessing, written
    from lrp_onnx.selection import Selection, selected

    def selection(text: str) -> None:
        for shape in ((None, 10), (None, 84, 8400), (None, 5, 6, 7), (1, None, 3)):
            or_value_error(partial(of_shape, shape=shape))(text)

    def of_shape(text: str, *, shape: tuple[int | None, ...]) -> None:
        found = str(Selection.of(text, shape))
        again = or_value_error(Selection.read)(found)
        assert str(again) == found, found

    return [
        there_and_back(parse_rule, rule_text),
        there_and_back(parse_chain, str),
        there_and_back(parse_preprocessing, written),
        check_method,
        find_composite,
        selection,
        selected,
        or_value_error(Selection.read),
        lambda text: Classes.of(3, ("ant", "bee", "cat")).indices(class_of(text), None),
        or_value_error(read_size),
        or_value_error(read_sizes),
        lambda text: Options(rules={text: "epsilon", "*": text}),
        lambda text: Options(explain=text, boxes=text, post=text),
        lambda text: Options(resolution=text, composite=text),
    ]


def of_metadata() -> list[Callable[[str], object]]:
    """What stands in a model's file."""
    from lrp_onnx.contract import Contract, read_description
    from lrp_onnx.files.description import describe_model

    def contract(text: str) -> None:
        keys, _, value = text.partition("\n")
        Contract.from_metadata({f"lrp_onnx.{key}": value for key in keys.split(" ")[:40]})

    return [
        lambda text: read_description({"lrp_onnx.preprocessing": text}),
        lambda text: read_description({"lrp_onnx.labels": text}),
        lambda text: describe_model({"names": text}, None, classes=2, channels=3),
        lambda text: describe_model({"imgsz": text}, None, classes=2, channels=3),
        contract,
    ]


def of_files(folder: Path) -> list[Reader]:
    """Files beside a model, and tables beside pictures."""
    from lrp_onnx.evaluation.photos import read_boxes
    from lrp_onnx.files.description import describe_model
    from lrp_onnx.runtime.images import read_classes, read_labels

    def in_file(name: str, read: Callable[[Path], object]) -> Reader:
        place = folder / name.partition(".")[0]
        place.mkdir()

        def write(data: bytes) -> object:
            (place / name).write_bytes(data)
            return read(place / name)

        return write

    def beside(path: Path) -> object:
        return describe_model({}, path.parent / "model.onnx", classes=2, channels=3)

    return [
        in_file("config.json", beside),
        in_file("preprocessor_config.json", beside),
        in_file("class_names.txt", beside),
        in_file("labels.csv", read_labels),
        in_file("boxes.csv", read_boxes),
        in_file("classes.txt", read_classes),
    ]


def of_pictures() -> list[Reader]:
    """Pictures, and what is only said to be one."""
    from lrp_onnx.files.first_bytes import looks_like
    from lrp_onnx.files.pictures import picture_fault
    from lrp_onnx.runtime.images import decoded_image

    return [looks_like, picture_fault, lambda data: decoded_image(data, "picture")]


if __name__ == "__main__":
    sys.exit(main())
