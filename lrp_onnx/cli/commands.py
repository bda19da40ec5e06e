"""The command line: parse, call, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import click

from lrp_onnx import __version__
from lrp_onnx.cli.options import (
    ABOUT_THE_MODEL,
    BATCH_SIZE,
    COMPILING,
    INPUT_OPTIONS,
    PATH,
    TRITON_OPTIONS,
    WEB_OPTIONS,
    compile_options,
    compiled_path,
    given_options,
    isolate_option,
    max_memory_option,
    provider_option,
    some_options,
    threads_option,
    to_options,
)
from lrp_onnx.cli.usage import Commands
from lrp_onnx.errors import LrpOnnxError, UnsupportedModelError, shown, shown_message
from lrp_onnx.files.writing import STDOUT


def _to_stderr(text: str) -> None:
    click.echo(shown_message(text), err=True)


post_option = click.option(
    "--post",
    metavar="CHAIN",
    help="Post-processing of the heatmap, as for `lrp-onnx compile`. [default: the composite's "
    "own]",
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lrp-onnx")
def main() -> None:
    """Compile a classifier's ONNX file into one that also explains itself, and explain pictures
    with it.

    `lrp-onnx demo` shows it at work; `lrp-onnx guide` lists what there is to read.
    """


@main.command("compile")
@click.argument("model", type=PATH)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="PATH",
    help="File to write, or - for standard output. [default: MODEL's name, ending in .lrp.onnx]",
)
@click.option(
    "--outputs",
    metavar="NAMES",
    help="Outputs to add, comma-separated: heatmap (relevance of every pixel, post-processed), "
    "heatmap_raw (without), c3 (the region that C3 keeps), relevance (of every channel too), "
    "attention, or the names of inner tensors. [default: heatmap, and c3 where the "
    "post-processing has it]",
)
@click.option(
    "--post",
    metavar="CHAIN",
    help='Post-processing of the output heatmap: steps joined by "+", e.g. "c3", "c1c", "smooth", '
    '"quantize:8" or "c3:component=peak+quantize:8"; or "none". '
    "[default: the composite's own]",
)
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@click.option(
    "--many-targets",
    is_flag=True,
    help="The compiled file explains one picture per run, for any number of classes: they share "
    "the forward pass.",
)
@click.option(
    "--randomize",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Shuffle the weights of the N layers nearest to the logits, as a sanity check: a heatmap "
    "that stays the same does not explain the model. [default: 0]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of --randomize.")
@click.option(
    "--check/--no-check",
    default=True,
    help="Run the compiled file and compare its outputs with MODEL's.  [default: check]",
)
@max_memory_option
@threads_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print a summary of the compiled file as JSON."
)
@isolate_option
@compile_options
def compile_(
    model: Path,
    output: Path | None,
    outputs: str,
    post: str | None,
    force: bool,
    check: bool,
    threads: int | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Compile MODEL into an ONNX file that also computes relevance."""
    from lrp_onnx.cli.stdout import check_no_terminal, write_stdout
    from lrp_onnx.cli.verify import runner_on
    from lrp_onnx.compiler import compile_model
    from lrp_onnx.files.models import metadata_of
    from lrp_onnx.files.writing import check_writable, remove_leftovers

    if output == STDOUT and as_json:
        raise click.UsageError("-o - and --json both write to standard output: give one of them")
    options = to_options(outputs, post=post, **values)
    metadata_of(model)  # a model that cannot be read is told before a file that is in the way
    target = compiled_path(model, output)
    if target == STDOUT:
        check_no_terminal("a model")
    else:
        check_writable(target, force=force)
        remove_leftovers(target)
    compiled = compile_model(model, options, runner=runner_on("cpu", threads) if check else None)
    if target == STDOUT:
        write_stdout([compiled.model.SerializeToString()])
    else:
        compiled.save(target, force=force)
    if as_json:
        click.echo(json.dumps({"output": str(target), **compiled.summary()}))
    else:
        where = "standard output" if target == STDOUT else target
        line = (
            f"{where}: {compiled.contract.composite}, {len(compiled.plan.blocks)} residual "
            f"blocks, outputs {', '.join(compiled.outputs)}"
            + (f", post-processing {compiled.contract.post}" if options.chain.steps else "")
        )
        click.echo(shown(line), err=target == STDOUT)
        for note in compiled.plan.notes:
            _to_stderr(f"note: {note}")


@main.command()
@click.argument("model", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--all", "every", is_flag=True, help="One line per step instead of one per rule.")
@max_memory_option
@isolate_option
@compile_options
def plan(model: Path, as_json: bool, every: bool, **values: Any) -> None:
    """Print the structure of MODEL and its layers' rules.

    Nothing is compiled or written.
    """
    from lrp_onnx.compiler import plan_model
    from lrp_onnx.plan.text import plan_json
    from lrp_onnx.relevance.composites.assign import applied_rules

    try:
        _, recognised, assigned = plan_model(model, to_options(**values))
    except UnsupportedModelError as error:
        if not every:
            raise
        raise LrpOnnxError(error.whole) from error
    texts = applied_rules(recognised, assigned)
    reasons = {name: entry.why for name, entry in assigned.items()}
    if as_json:
        rules = {name: {"rule": texts[name], "why": why} for name, why in reasons.items()}
        click.echo(json.dumps({"plan": plan_json(recognised), "rules": rules}))
    else:
        from lrp_onnx.cli.tables import plan_table, rule_table, show

        show((plan_table if every else rule_table)(recognised, texts, reasons))


@main.command()
@click.argument("model", type=PATH)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="DIR",
    default="explained",
    show_default=True,
    help="Folder for the results. One that has some of these results already gets the others.",
)
@click.option("--recursive", is_flag=True, help="Search the subfolders of folders too.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="CLASS",
    help="Class to explain, by index or name, e.g. 3 or heart. Repeatable: several classes share "
    "the forward pass. [default: the predicted class]",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="K",
    help="Explain the K most probable classes of every picture.",
)
@click.option(
    "--mask",
    type=PATH,
    metavar="FILE|DIR",
    help="Pixels of a segmentation's output (N, C, H, W) whose class is explained: a picture of "
    "which what is not black counts, or a .npy file of weights, over the whole photo; or a folder "
    "with a file of every picture's name.",
)
@click.option(
    "--similar-to",
    type=PATH,
    metavar="FILE",
    help="Explain what makes the output, an embedding, similar to that of this picture, or to the "
    "vector in a .npy file.",
)
@click.option(
    "--method",
    metavar="NAME",
    help="Method instead of a composite, written as for `lrp-onnx evaluate`: grad-cam, "
    "recipro-cam, … or occlusion and rise(500), which explain models that cannot be compiled too.",
)
@click.option(
    "--outputs",
    metavar="NAMES",
    help='Outputs to compute. "heatmap,relevance" also stores the relevance of every channel '
    "in the .npz. [default: heatmap, and c3 where the post-processing has it]",
)
@click.option(
    "--post",
    metavar="CHAIN",
    help='Post-processing of the heatmaps: steps joined by "+", e.g. "c3", "c1c", "smooth", '
    '"quantize:8" or "c3:component=peak+quantize:8"; or "none". '
    "[default: the compiled file's; smooth for the default composite, c3 for C3-LRP, else none]",
)
@provider_option
@click.option(
    "--batch",
    type=BATCH_SIZE,
    default="8",
    show_default=True,
    help='Pictures per run, or "auto" for as many as --memory allows.',
)
@click.option(
    "--memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB",
    help="Memory of the whole process, in GB, for --batch auto. [default: what it uses now plus "
    "half of the free memory]",
)
@max_memory_option
@threads_option
@click.option(
    "--labels",
    type=PATH,
    metavar="FILE",
    help="CSV file with the columns file,label (a class index): the accuracy is printed. "
    "[default: labels.csv beside the pictures]",
)
@click.option(
    "--strict", is_flag=True, help="Stop at the first picture that cannot be read, not at the end."
)
@click.option(
    "--force",
    is_flag=True,
    help="Start over: replace results of other settings, and other files that are in the way.",
)
@click.option(
    "--report",
    type=click.Choice(["small", "full", "none"]),
    default="small",
    show_default=True,
    help="report.html, one page of all pictures to look at and to send: with small photos, with "
    "photos of up to 1600 pixels a side, or none.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per explanation.")
@isolate_option
@compile_options
def explain(model: Path, images: tuple[str, ...], **values: Any) -> None:
    """Explain pictures with MODEL, compiled or not.

    IMAGE is a file, a folder or a quoted glob such as "photos/*.jpg". Pictures that cannot be read
    are named, and the exit status is 1. Results are written one by one: where a run was stopped,
    the same command goes on.
    """
    from lrp_onnx.cli.explain import ExplainCommand, explain_files
    from lrp_onnx.cli.progress import echo

    if values["targets"] and values["top"]:
        raise click.UsageError("--target and --top cannot be combined: give one of them")
    for name in ("composite", "start", "bias", "rules", "rules_file", "resolution", "outputs"):
        if values["method"] is not None and values[name]:
            option = "rule" if name == "rules" else name.removesuffix("_file")
            raise click.UsageError(f"--method and --{option} cannot be combined: give one of them")
    for one, other in (
        ("mask", "similar_to"),
        ("mask", "method"),
        ("similar_to", "method"),
        ("similar_to", "targets"),
        ("similar_to", "top"),
    ):
        if values[one] and values[other]:
            names = [f"--{name.rstrip('s').replace('_', '-')}" for name in (one, other)]
            raise click.UsageError(f"{' and '.join(names)} cannot be combined: give one of them")
    if values["memory"] is not None:
        values["memory"] *= 1e9
    settled = given_options(COMPILING, but=("preprocess", "classes"))
    options = to_options(
        **{name: values.pop(name) for name in (*COMPILING, "outputs")},
        max_memory=values["max_memory"],
    )
    command = ExplainCommand(
        model=model, images=images, options=options, without_effect=settled, **values
    )
    with closing(explain_files(command, report=partial(echo, err=True))) as lines:
        for line in lines:
            echo(line)


@main.command()
@click.argument("model", type=PATH)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="Composite or baseline to score, e.g. grad-cam, rise(masks=500), c3-lrp+c3:outside=rank "
    "or epsilon-plus(start=contrastive, @join=ratio). Repeatable. Constant, random, Gaussian and "
    "edge maps are always scored too. [default: six methods]",
)
@click.option(
    "--metrics",
    default="exact,keio",
    show_default=True,
    metavar="NAMES",
    help="Metrics, comma-separated. Insertion and deletion: exact, keio, rise, srg, srg-blur, "
    "srg-noise. With boxes or masks: pointing, mass, rank, attention. Others: sparseness, "
    "class-sensitivity, random-logit, max-sensitivity, adcc, randomisation, mosaic, lattice.",
)
@click.option(
    "--labels",
    type=PATH,
    metavar="FILE",
    help="CSV file with the columns file,label (a class index) and, for boxes, x0,y0,x1,y1 "
    "in pixels. [default: labels.csv beside the pictures]",
)
@click.option(
    "--masks",
    type=PATH,
    metavar="DIR",
    help="Folder with a mask of the object in every picture: PNG files of the same names.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    default=50,
    show_default=True,
    help="Steps of an insertion or deletion curve.",
)
@click.option(
    "--patch",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Side in pixels of the squares that are inserted or deleted.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed of ties, random masks, noise and confidence intervals.",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="DIR",
    help="Folder for results, tables and curves. A later run continues an unfinished one.",
)
@provider_option
@threads_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print means and confidence intervals as JSON."
)
@click.option("--all", "every", is_flag=True, help="Print one table with whole intervals.")
@isolate_option
@some_options(*INPUT_OPTIONS)
def evaluate(
    model: Path, images: tuple[str, ...], as_json: bool, every: bool, **values: Any
) -> None:
    """Score explanation methods on pictures.

    The metrics measure how well heatmaps show what MODEL's predictions depend on. IMAGE is a file,
    a folder or a quoted glob.
    """
    from lrp_onnx.cli.evaluate import evaluate_files

    options = to_options(**{name: values.pop(name) for name in INPUT_OPTIONS})
    table, means = evaluate_files(
        model, images, options=options, report=_to_stderr, every=every, **values
    )
    if as_json:
        click.echo(json.dumps(means))
    else:
        from lrp_onnx.cli.tables import show

        show(table)


@main.command()
@click.argument("model", type=PATH)
@click.argument("image")
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    metavar="FILE",
    help="Picture to write: its name ends in .png, .jpg or .webp.",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="Method to show, written as for `lrp-onnx evaluate`. Repeatable. [default: nine methods]",
)
@click.option(
    "--target",
    metavar="CLASS",
    help="Class to explain, by index or name, e.g. 3 or heart. [default: the predicted class]",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="K",
    help="Show the K most probable classes, one below the other.",
)
@click.option(
    "--columns", type=click.IntRange(min=1), default=5, show_default=True, help="Heatmaps per row."
)
@click.option(
    "--overlay/--heatmap",
    "overlaid",
    default=False,
    help="Draw relevance over the picture, or alone.  [default: heatmap]",
)
@provider_option
@threads_option
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print classes and methods as JSON.")
@isolate_option
@some_options(*INPUT_OPTIONS, "classes")
def compare(model: Path, image: str, output: Path, as_json: bool, **values: Any) -> None:
    """Show the heatmaps of several methods side by side.

    All of them explain the same class of the same IMAGE. MODEL is compiled or not.
    """
    from lrp_onnx.cli.compare import compare_file, sentence

    if values["target"] and values["top"]:
        raise click.UsageError("--target and --top cannot be combined: give one of them")
    options = to_options(**{name: values.pop(name) for name in (*INPUT_OPTIONS, "classes")})
    made = compare_file(model, image, output, options=options, **values)
    click.echo(json.dumps(made) if as_json else shown(sentence(made)))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def composites(as_json: bool) -> None:
    """List the composites, which are named sets of rules."""
    from lrp_onnx.relevance.composites.presets import COMPOSITES
    from lrp_onnx.relevance.rules.table import rule_text

    if as_json:
        click.echo(
            json.dumps(
                {
                    name: {
                        "title": c.title,
                        "source": c.source,
                        "start": c.start,
                        "post": c.post,
                        "rules": [[which, rule_text(rule)] for which, rule in c.entries],
                    }
                    for name, c in COMPOSITES.items()
                }
            )
        )
    else:
        from lrp_onnx.cli.tables import composite_table, show

        show(composite_table(COMPOSITES))


@main.command()
@click.argument("compiled", type=PATH)
@click.option(
    "--original",
    type=PATH,
    metavar="MODEL",
    help="Model that COMPILED was made from. [default: the forward part of COMPILED]",
)
@click.option(
    "--image",
    "images",
    type=PATH,
    multiple=True,
    help="Picture to verify with. Repeatable. [default: two pictures of random noise]",
)
@provider_option
@threads_option
@click.option("--json", "as_json", is_flag=True, help="Print the results of the checks as JSON.")
@click.option("--all", "every", is_flag=True, help="Print every layer's account of relevance too.")
@max_memory_option
@isolate_option
def verify(
    compiled: Path,
    original: Path | None,
    images: tuple[Path, ...],
    provider: str | None,
    threads: int | None,
    as_json: bool,
    every: bool,
    max_memory: float | None,
) -> None:
    """Check a compiled file.

    The checks: the model's own outputs are unchanged, bit for bit with the runtime's optimisations
    off; a batch gives the same values as single pictures; no value is NaN or infinite; and every
    rule that conserves relevance does so. A note says how far the optimisations move the outputs,
    where this is more than rounding.
    """
    from lrp_onnx.cli.verify import verify_file

    audit = verify_file(
        compiled,
        original=original,
        images=images,
        provider=provider,
        threads=threads,
        max_memory=max_memory,
    )
    if as_json:
        click.echo(json.dumps(audit.to_json()))
    else:
        from lrp_onnx.cli.tables import account_table, check_lines, relevance_lines, show

        show(*check_lines(audit.checks, audit.notes), *relevance_lines(audit.rows, audit.start))
        if every:
            show(account_table(audit.rows, audit.start))
    if not audit.passed:
        click.get_current_context().exit(1)


@main.command()
@click.argument("model", type=PATH, required=False)
@click.argument("images", nargs=-1, metavar="[PHOTO]...")
@click.option(
    "--labels",
    type=PATH,
    metavar="FILE",
    help="CSV file with the columns file,label (a class index). [default: labels.csv beside the "
    "photos, else the names of their folders]",
)
@provider_option
@threads_option
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@isolate_option
@some_options(*ABOUT_THE_MODEL)
def doctor(model: Path | None, images: tuple[str, ...], as_json: bool, **values: Any) -> None:
    """Say what is known of MODEL, and which preprocessing fits photos.

    Checks the installation; prints what is known of the model's pictures and classes, and from
    where; tries every preset on PHOTOS, with labels or, which is weak evidence, without; and prints
    the command to use. A PHOTO is a file, a folder with its subfolders, or a quoted glob.
    """
    from lrp_onnx.cli.doctor import examine

    chosen = {name: values.pop(name) for name in ABOUT_THE_MODEL}
    flags = dict(zip(ABOUT_THE_MODEL, ("--output-name", "--input-size", "--classes"), strict=True))
    written = [text for name, it in chosen.items() if it for text in (flags[name], it)]
    options = to_options(**chosen)
    findings = examine(model, images, options=options, written_options=written, **values)
    if as_json:
        click.echo(json.dumps(findings.to_json()))
    else:
        from lrp_onnx.cli.tables import doctor_lines, show

        show(*doctor_lines(findings))
    if findings.faults:
        click.get_current_context().exit(1)


@main.command()
@click.argument("model", type=PATH)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="DIR",
    default="site",
    show_default=True,
    help="Folder for the site. It is created if it is missing.",
)
@click.option(
    "--samples", type=PATH, metavar="DIR", help="Folder of pictures that the page offers."
)
@click.option(
    "--runtime",
    type=PATH,
    metavar="DIR",
    help="Copy onnxruntime-web from this npm package, node_modules/onnxruntime-web, so that the "
    "site needs no other one. [default: the page loads it from jsDelivr]",
)
@post_option
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print the site's files as JSON.")
@max_memory_option
@isolate_option
@some_options(*WEB_OPTIONS)
def web(
    model: Path,
    output: Path,
    samples: Path | None,
    runtime: Path | None,
    force: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Write a static site: a page that explains photos in the browser.

    MODEL, compiled or not, runs in the page itself, by onnxruntime-web: photos stay on the
    visitor's device.
    """
    from lrp_onnx.cli.web import make_site, site_lines

    settled = given_options((*WEB_OPTIONS, "post"), but=("preprocess", "classes"))
    site, notes = make_site(
        model,
        output,
        options=to_options(**values),
        settled=settled,
        samples=samples,
        runtime=runtime,
        force=force,
    )
    for note in notes:
        _to_stderr(f"note: {note}")
    if as_json:
        click.echo(json.dumps({"output": str(output), "files": dict(site.sizes), "notes": notes}))
    else:
        for line in site_lines(site):
            click.echo(shown(line))


@main.command()
@click.argument("model", type=PATH)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="DIR",
    default="repository",
    show_default=True,
    help="The repository. It is created if it is missing, and may hold other models.",
)
@click.option("--name", help="The model's name. [default: that of its file]")
@click.option(
    "--max-batch-size",
    type=click.IntRange(min=0),
    metavar="N",
    help="Pictures of different requests that the server joins to one batch; 0: every request is "
    "a batch of its own. [default: 8, or 0 where MODEL has a fixed batch]",
)
@click.option(
    "--preferred-batch-size",
    "preferred",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="N",
    help="A batch of this size does not wait for more pictures. Repeatable.",
)
@click.option(
    "--queue-delay",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="MICROSECONDS",
    help="How long a picture waits for others.",
)
@click.option(
    "--kind",
    type=click.Choice(["auto", "cpu", "gpu"]),
    default="auto",
    show_default=True,
    help="Where the server runs the model; auto is a GPU where it has one.",
)
@click.option(
    "--instances",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Copies of the model that run side by side.",
)
@click.option(
    "--optimize-for",
    type=click.Choice(["cpu", "cuda", "tensorrt", "openvino", "portable"]),
    help="Runtime or processor of the server. [default: cpu with --kind cpu, else cuda, which "
    "the CPU runs too]",
)
@click.option(
    "--target/--no-target",
    default=None,
    help="Whether requests say the class to explain, -1 for the predicted one; without, they get "
    "the predicted one. [default: target, or as a compiled MODEL has it]",
)
@click.option(
    "--pixels",
    is_flag=True,
    help="The model takes pixels, uint8 from 0 to 255, and normalises them itself; clients only "
    "resize pictures.",
)
@click.option("--outputs", metavar="NAMES", help="Outputs to add, as for `lrp-onnx compile`.")
@post_option
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
@max_memory_option
@isolate_option
@some_options(*TRITON_OPTIONS)
def triton(
    model: Path,
    output: Path,
    name: str | None,
    max_batch_size: int | None,
    preferred: tuple[int, ...],
    queue_delay: int,
    kind: str,
    instances: int,
    optimize_for: str | None,
    target: bool | None,
    pixels: bool,
    force: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Write a model repository for Triton, KServe and OpenVINO Model Server.

    MODEL, compiled or not, becomes NAME/1/model.onnx in it, which has no optional inputs;
    NAME/config.pbtxt tells Triton its inputs, outputs and batches.
    """
    from lrp_onnx.cli.triton import make_repository, repository_json, repository_lines
    from lrp_onnx.deploy.triton import Serving

    settled = given_options(
        (*TRITON_OPTIONS, "outputs", "post", "optimize_for"),
        but=("preprocess", "classes") if pixels else ("classes",),
    )
    form = optimize_for or ("cpu" if kind == "cpu" else "cuda")
    repository, notes = make_repository(
        model,
        output,
        name=name,
        options=to_options(optimize_for=form, **values),
        serving=Serving(
            max_batch_size=max_batch_size,
            preferred=preferred,
            queue_delay=queue_delay,
            kind=kind,
            instances=instances,
        ),
        target=target,
        pixels=pixels,
        settled=settled,
        force=force,
    )
    for note in notes:
        _to_stderr(f"note: {note}")
    if as_json:
        click.echo(json.dumps(repository_json(repository, notes)))
    else:
        for line in repository_lines(repository):
            click.echo(shown(line))


@main.command()
@click.argument("results", type=PATH)
@click.option(
    "--to",
    type=click.Choice(["coco", "label-studio", "fiftyone"]),
    required=True,
    help="Whose format: COCO's and Label Studio's get the regions that C3 keeps, FiftyOne's the "
    "heatmaps too.",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="FILE",
    required=True,
    help="JSON file to write, or - for standard output.",
)
@click.option(
    "--images",
    metavar="PREFIX",
    help="What the photos' names begin with in the file: an address or a folder. [default: nothing "
    "for coco, /data/local-files/?d= for label-studio, the whole path for fiftyone]",
)
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
def export(results: Path, to: str, output: Path, images: str | None, force: bool) -> None:
    """Write results for programs where people look at data.

    RESULTS is the folder that `lrp-onnx explain` has written. The photos are read where they were.
    """
    from lrp_onnx.cli.export import export_results

    said = export_results(results, to, output, images=images, force=force)
    click.echo(said, err=output == STDOUT)


@main.command()
@click.argument("model", type=PATH)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    metavar="DIR",
    help="Folder for the Parquet files. One that has some of these results already gets the "
    "others.",
)
@click.option("--recursive", is_flag=True, help="Search the subfolders of folders too.")
@click.option(
    "--target",
    metavar="CLASS",
    help="Class to explain, by index or name, e.g. 3 or heart. [default: the predicted class]",
)
@post_option
@click.option(
    "--map",
    "keep",
    type=click.Choice(["float32", "float16", "none"]),
    default="float32",
    show_default=True,
    help="How every heatmap is kept: whole, in half of the bytes, or not at all.",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Ray cluster to work on. [default: this machine's, or a new one on it]",
)
@click.option(
    "--actors",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that explain. [default: as many as the cluster has room for]",
)
@click.option(
    "--cpus",
    type=click.FloatRange(min=0),
    default=1,
    show_default=True,
    help="CPUs, and threads, of every actor.",
)
@click.option(
    "--gpus",
    type=click.FloatRange(min=0),
    default=0,
    show_default=True,
    help="GPUs of every actor, or a share: with 0.5 two actors use one. 0 is the CPU.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Pictures per run.",
)
@click.option(
    "--block",
    type=click.IntRange(min=1),
    metavar="N",
    help="Pictures per Parquet file at most. [default: as many as make 32 MB of maps, at most 128]",
)
@click.option("--force", is_flag=True, help="Start over: replace results of other settings.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@compile_options
def bulk(model: Path, sources: tuple[str, ...], as_json: bool, **values: Any) -> None:
    """Explain thousands of pictures on a Ray cluster, into Parquet files.

    MODEL is compiled or not; SOURCE is a file, a folder or a quoted glob. Rows are written block by
    block: where a run was stopped, the same command goes on. Pictures that cannot be read are rows
    with a reason, and the exit status is 1.
    """
    from lrp_onnx.cli.bulk import BulkCommand, explain_in_bulk

    settled = given_options((*COMPILING, "post"), but=("preprocess", "classes"))
    options = to_options(**{name: values.pop(name) for name in (*COMPILING, "post")})
    counts = explain_in_bulk(
        BulkCommand(
            model=model, sources=sources, options=options, without_effect=settled, **values
        ),
        report=_to_stderr,
    )
    click.echo(json.dumps(counts.to_json()) if as_json else shown(counts.sentence))
    if counts.fault:
        raise LrpOnnxError(shown(counts.fault))


@main.command()
@click.argument("topic", required=False)
@click.option("--raw", is_flag=True, help="Print Markdown as it is, also to a terminal.")
def guide(topic: str | None, raw: bool) -> None:
    """Show a guide, or list all of them.

    Guides say more than the help of the commands: what composites do, how maps are judged, how to
    deploy a compiled file.
    """
    from lrp_onnx.cli.guide import show_guide

    show_guide(topic, raw=raw)


@main.command()
@click.option(
    "-o",
    "--output",
    type=PATH,
    default="demo",
    show_default=True,
    metavar="DIR",
    help="Folder for the results. It is created if it is missing.",
)
@click.option("--force", is_flag=True, help="Overwrite results that exist.")
def demo(output: Path, force: bool) -> None:
    """Explain the pictures that come with the package.

    As `lrp-onnx explain` does with your own: a small model that tells drawn shapes apart, and four
    pictures.
    """
    from lrp_onnx.cli.demo import embedded

    arguments = [*map(str, embedded()), "-o", str(output), *(["--force"] if force else [])]
    explain.main(arguments, prog_name="lrp-onnx demo", standalone_mode=False)
