"""The options of every command that may compile, and the compilation that they describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lrp_onnx.contract import INPUTS
from lrp_onnx.files.writing import STDOUT
from lrp_onnx.notation import is_size, read_sizes

if TYPE_CHECKING:
    from lrp_onnx.compiler import Options


class FilePath(click.Path):
    """A path. ``-`` alone is `STDOUT`: the file of that name is ``./-``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, absolute where it would equal `STDOUT` and is written otherwise."""
        path = super().convert(value, param, ctx)
        return Path.cwd() / STDOUT if path == STDOUT and value not in ("-", STDOUT) else path


PATH = FilePath(path_type=Path)


class Batch(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions alone
    """A number of pictures, or ``auto`` (None)."""

    name = "batch"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """The number of pictures, or None for ``auto``."""
        if value in ("auto", None):
            return None
        number = int(value) if str(value).isdecimal() else 0
        if number < 1:
            self.fail(
                f"{value!r} is not a number of pictures: write 1 or more, or auto", param, ctx
            )
        return number


BATCH_SIZE = Batch()
INPUT_OPTIONS = ("output_name", "input_size", "preprocess")
"""Parameters about the model's input and output, for commands whose methods state the rest."""

ABOUT_THE_MODEL = ("output_name", "input_size", "classes")
"""Parameters that say what a model is, but for how pictures become its input."""

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

provider_option: Decorator = click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    help="Processor to run on. [default: cuda if it is available, else cpu]",
)
threads_option: Decorator = click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads. [default: all cores]"
)
OPTIONS: Mapping[str, Decorator] = {
    "composite": click.option(
        "--composite",
        metavar="NAME",
        help="Named set of rules; `lrp-onnx composites` lists them. [default: residual-c3; "
        "transformer-c3 of transformers]",
    ),
    "start": click.option(
        "--start",
        type=click.Choice(["logit", "probability", "one", "contrastive"]),
        help="Value of the target that relevance starts from. [default: the composite's]",
    ),
    "bias": click.option(
        "--bias",
        type=click.Choice(["keep", "drop"]),
        help="Keep biases in the rules' denominators, or drop them. [default: as each rule has it]",
    ),
    "rules": click.option(
        "--rule",
        "rules",
        multiple=True,
        metavar="NODE=RULE",
        help="Rule for the nodes whose names match a pattern, or for a kind of step, e.g. "
        '"*conv1*=flat", "fc=epsilon(epsilon=0.25)" or "@join=z-plus-join". Repeatable.',
    ),
    "rules_file": click.option(
        "--rules",
        "rules_file",
        type=PATH,
        metavar="FILE",
        help="TOML or YAML file with composite, start, bias and rules. Other options override it.",
    ),
    "output_name": click.option(
        "--output-name",
        metavar="NAME",
        help="Graph output to explain, for a model with several, or some of its elements: the mean "
        "over pixels, e.g. 'out[:, :, 12, 30:40]', one box of a detector, e.g. "
        "'scores[:, 120, :]', or the box of the largest score, e.g. 'scores[:, max, :]'.",
    ),
    "boxes": click.option(
        "--boxes",
        metavar="[FORMAT:]NAME",
        help="Output that holds the boxes of a detector, to mark the one that is explained, e.g. "
        "'cxcywh:output0[:, :4, :]'; FORMAT is cxcywh, xyxy or xywh. [default format: cxcywh]",
    ),
    "input_size": click.option(
        "--input-size",
        metavar="SIZE",
        help="Height and width of the input, e.g. 224 or 480x640, where MODEL leaves them open; "
        "5000 of signals, 16x112x112 of volumes.",
    ),
    "resolution": click.option(
        "--resolution",
        metavar="full|1/N|SIZE|NAME",
        help="Where relevance stops: at the picture's pixels (full), at the last feature map of "
        "the size nearest to a fraction of the picture (1/8), at the first of this size (28, "
        "30x40), or at the one of this name. Coarser maps take less time. "
        "[default: the composite's own]",
    ),
    "optimize_for": click.option(
        "--optimize-for",
        type=click.Choice(["cpu", "cuda", "tensorrt", "web", "openvino", "portable"]),
        default="cpu",
        show_default=True,
        help="Runtime or processor that the compiled file is optimized for.",
    ),
    "inputs": click.option(
        "--inputs",
        type=click.Choice(INPUTS),
        help="How the compiled file is told the class to explain: target and start as optional "
        "inputs, which only ONNX Runtime's own interfaces read; as required ones; or none, for the "
        "predicted class. [default: optional for cpu and cuda, else target]",
    ),
    "static": click.option(
        "--static",
        is_flag=True,
        help="Fix the batch to one picture and store every weight that follows from others, for "
        "runtimes without symbolic sizes (OpenCV 4, MNN). Files grow.",
    ),
    "opset": click.option(
        "--opset",
        type=click.IntRange(13, 20),
        help="Opset of the compiled file: older runtimes load lower ones. [default: the lowest "
        "that MODEL's opset and the operators allow]",
    ),
    "preprocess": click.option(
        "--preprocess",
        metavar="SPEC",
        help='How pictures become input: a preset, with or without changes, e.g. "imagenet" or '
        '"imagenet:resize=stretch". [default: as MODEL says, else imagenet]',
    ),
    "classes": click.option(
        "--classes",
        metavar="FILE|NAMES",
        help="Class names in the order of the logits: a text file, one per line, or the names with "
        "commas between, e.g. no,yes. [default: as MODEL or a file beside it says]",
    ),
}
"""Parameter → option."""
max_memory_option = click.option(
    "--max-memory",
    type=click.FloatRange(min=0, min_open=True),
    callback=lambda ctx, parameter, value: None if value is None else value * 1e9,
    metavar="GB",
    help="Memory, in GB, that the model's weights in other files, and a run of its graph, may "
    "take; nothing that takes more is read or run. [default: half of the machine's]",
)
isolate_option: Decorator = click.option(
    "--isolate/--no-isolate",
    default=None,
    help="Read the model in a process of its own, so that a crash of the libraries that do is an "
    "error in words. [default: isolate, where the system has fork]",
)
COMPILING = tuple(OPTIONS)
"""Parameters of a command that compiles."""
WEB_OPTIONS = tuple(name for name in OPTIONS if name not in ("optimize_for", "inputs", "static"))
"""Parameters of the command that compiles for browsers."""
TRITON_OPTIONS = tuple(name for name in OPTIONS if name not in ("inputs", "optimize_for"))
"""Parameters of the command that compiles for servers."""


def compile_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds all `OPTIONS` to a command that compiles."""
    return some_options(*COMPILING)(command)


def compiled_path(model: Path, output: Path | None) -> Path:
    """The file that `lrp-onnx compile` writes: `output`, else one beside the model."""
    return output or model.parent / f"{model.stem.removesuffix('.lrp')}.lrp.onnx"


def given_options(names: Sequence[str], *, but: Sequence[str] = ()) -> tuple[str, ...]:
    """The options of `OPTIONS` that the running command was given, as they are written.

    Args:
        names: parameters.
        but: parameters that do not count.
    """
    context = click.get_current_context()
    written = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    return tuple(
        written[name]
        for name in names
        if name not in but and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    )


def some_options(*names: str) -> Decorator:
    """Adds the options `names` of `OPTIONS` to a command, in the order of `OPTIONS`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed([name for name in OPTIONS if name in names]):
            command = OPTIONS[name](command)
        return command

    return decorate


def to_options(outputs: str | None = None, **values: Any) -> Options:
    """Options of a compilation from the command line's values.

    Args:
        outputs: names, comma-separated; None for the default ones.
        values: parameter → value: the parameters of `COMPILING`, and further fields of
            `compiler.Options`. A parameter that a command does not have takes its default. The
            command line overrides the rules file.

    Raises:
        click.BadParameter: a rule is not NODE=RULE, or a size is not a size.
        RuleError, ImageError: a file or the preprocessing cannot be read.
    """
    from lrp_onnx.cli.settings import Settings, read_settings
    from lrp_onnx.compiler import Options
    from lrp_onnx.runtime.preprocess import parse_preprocessing

    line = {name: values.pop(name, None) for name in COMPILING}
    settings = read_settings(line["rules_file"]) if line["rules_file"] else Settings()
    rules = dict(_rule(text) for text in line["rules"] or ())
    for pattern, rule in settings.rules.items():
        rules.setdefault(pattern, rule)
    return Options(
        composite=line["composite"] or settings.composite,
        start=line["start"] or settings.start,
        bias=line["bias"] or settings.bias,
        rules=rules,
        explain=line["output_name"],
        boxes=line["boxes"],
        input_size=_size(line["input_size"]) if line["input_size"] else None,
        resolution=_resolution(line["resolution"]) if line["resolution"] else None,
        optimize_for=line["optimize_for"] or "cpu",
        inputs=line["inputs"],
        static=bool(line["static"]),
        opset=line["opset"],
        outputs=names_in(outputs) if outputs is not None else None,
        preprocessing=parse_preprocessing(line["preprocess"]) if line["preprocess"] else None,
        labels=class_names(line["classes"]) if line["classes"] else (),
        **values,
    )


def class_names(text: str) -> tuple[str, ...]:
    """Class names: of a file, or separated by commas where there is no such file."""
    from lrp_onnx.runtime.images import read_classes

    path = Path(text)
    return names_in(text) if "," in text and not path.exists() else read_classes(path)


def _rule(text: str) -> tuple[str, str]:
    """(node-name pattern or kind of step, rule), of ``NODE=RULE``."""
    pattern, equals, rule = text.partition("=")
    if not equals:
        raise click.BadParameter(
            f"{text!r} is not NODE=RULE: write for example fc=epsilon", param_hint="--rule"
        )
    return pattern, rule


def names_in(text: str) -> tuple[str, ...]:
    """Names that are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _resolution(text: str) -> tuple[int, ...] | str:
    """A size, or the name of a feature map."""
    return _size(text, "--resolution") if is_size(text) else text


def _size(text: str, option: str = "--input-size") -> tuple[int, ...]:
    """``224`` for every axis, or ``480x640`` as (height, width)."""
    try:
        return read_sizes(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None
