"""The command line: parse, call, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lrp_onnx import __version__
from lrp_onnx.cli.options import BATCH, COMPILING, MODEL, SEEING, compile_options, some_options, to_options
from lrp_onnx.errors import LrpOnnxError


class Commands(click.Group):
    """Prints our errors as one paragraph and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except LrpOnnxError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)


def _to_stderr(text: str) -> None:
    click.echo(text, err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lrp-onnx")
def main() -> None:
    """Compile a classifier's ONNX file into one that also explains itself, and explain pictures
    with it.
    """


@main.command("compile")
@click.argument("model", type=MODEL)
@click.option("-o", "--output", type=MODEL, metavar="PATH", help="Where to write. [default: MODEL with .lrp.onnx]")
@click.option(
    "--outputs",
    default="heatmap",
    show_default=True,
    metavar="NAMES",
    help="heatmap, relevance, attention, or names of inner tensors, comma-separated.",
)
@click.option("--force", is_flag=True, help="Overwrite the output.")
@click.option(
    "--many-targets", is_flag=True, help="One picture a run and any number of targets, which share its forward pass."
)
@click.option(
    "--randomize",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Shuffle the weights of the N layers nearest to the logits: a map that stays the same explains nothing.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of --randomize.")
@click.option("--check/--no-check", default=True, help="Run the result once against the original.  [default: check]")
@click.option("--json", "as_json", is_flag=True, help="Print what was decided as JSON.")
@compile_options
def compile_(
    model: Path, output: Path | None, outputs: str, force: bool, check: bool, as_json: bool, **values: Any
) -> None:
    """Compile MODEL into an ONNX file that also computes relevance."""
    from lrp_onnx.cli.verify import run_once
    from lrp_onnx.compiler import compile_model
    from lrp_onnx.files.writing import check_writable

    target = output or model.with_name(f"{model.stem}.lrp.onnx")
    options = to_options(outputs, **values)
    if model.exists():
        check_writable(target, force=force)
    compiled = compile_model(model, options, runner=run_once if check else None)
    compiled.save(target, force=force)
    if as_json:
        click.echo(json.dumps({"output": str(target), **compiled.summary()}))
    else:
        click.echo(
            f"{target}: {compiled.contract.composite}, {len(compiled.plan.blocks)} residual blocks, "
            f"outputs {', '.join(compiled.outputs)}"
        )
        for note in compiled.plan.notes:
            click.echo(f"note: {note}", err=True)


@main.command()
@click.argument("model", type=MODEL)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@compile_options
def plan(model: Path, as_json: bool, **values: Any) -> None:
    """Print what is recognised in MODEL, and every layer's rule, without compiling."""
    from lrp_onnx.compiler import plan_model
    from lrp_onnx.plan.text import plan_json
    from lrp_onnx.relevance.composites.assign import applied_rules

    _, recognized, rules = plan_model(model, to_options(**values))
    if as_json:
        texts = applied_rules(recognized, rules)
        assigned = {name: {"rule": texts[name], "why": rule.why} for name, rule in rules.items()}
        click.echo(json.dumps({"plan": plan_json(recognized), "rules": assigned}))
    else:
        from lrp_onnx.cli.tables import plan_table, show

        show(plan_table(recognized, rules))


@main.command()
@click.argument("model", type=MODEL)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", type=MODEL, required=True, metavar="DIR", help="Folder for the results; it is created.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="CLASS",
    help="Class to explain, by index or name. Repeatable: several share the forward pass. [default: the predicted one]",
)
@click.option(
    "--top", type=click.IntRange(min=1), metavar="K", help="Explain the K most probable classes of every picture."
)
@click.option(
    "--outputs",
    default="heatmap",
    metavar="NAMES",
    help='"heatmap,relevance" also keeps per-channel relevance in the .npz.',
)
@click.option(
    "--post",
    metavar="CHAIN",
    help='Post-processing: "c3", "c1c", "quantize:8", "smooth", "c3:component=peak", joined by "+", or "none". '
    "[default: smooth for the default composite, c3 for C3-LRP, else none]",
)
@click.option(
    "--provider", type=click.Choice(["cpu", "cuda"]), help="Where to run. [default: CUDA where it is there, else CPU]"
)
@click.option(
    "--batch", type=BATCH, default="8", show_default=True, help='Pictures a run, or "auto" for as many as fit --memory.'
)
@click.option(
    "--memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB",
    help="What --batch auto may use in all. [default: half of what is free]",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: all cores]")
@click.option(
    "--labels",
    type=MODEL,
    metavar="FILE",
    help="CSV with the columns file,label: the accuracy is printed. [default: labels.csv beside the pictures]",
)
@click.option("--force", is_flag=True, help="Overwrite results.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line a picture.")
@compile_options
def explain(model: Path, images: tuple[str, ...], **values: Any) -> None:
    """Explain every IMAGE (files, folders, quoted globs) with MODEL, compiled or not."""
    from lrp_onnx.cli.explain import ExplainCommand, explain_files

    if values["targets"] and values["top"]:
        raise click.UsageError("--target and --top exclude each other")
    values["memory"] = values["memory"] and 1e9 * values["memory"]
    options = to_options(**{name: values.pop(name) for name in (*COMPILING, "outputs")})
    command = ExplainCommand(model=model, images=images, options=options, **values)
    for line in explain_files(command, report=_to_stderr):
        click.echo(line)


@main.command()
@click.argument("model", type=MODEL)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="A composite or a baseline, e.g. grad-cam, rise(masks=500), c3-lrp+c3:outside=rank, "
    "epsilon-plus(start=contrastive, @join=ratio). Repeatable. Constant, random, Gaussian and edge maps are added.",
)
@click.option(
    "--metrics",
    default="exact,keio",
    show_default=True,
    metavar="NAMES",
    help="Comma-separated: exact, keio, rise, srg; with boxes or masks pointing, mass, rank, attention; sparseness, "
    "class-sensitivity, random-logit, max-sensitivity, adcc, randomisation.",
)
@click.option(
    "--labels", type=MODEL, metavar="FILE", help="CSV: file,label and, for boxes, x0,y0,x1,y1. [default: labels.csv]"
)
@click.option("--masks", type=MODEL, metavar="DIR", help="The objects' masks: PNGs of the photos' names.")
@click.option("--steps", type=click.IntRange(min=2), default=50, show_default=True, help="Of every curve.")
@click.option("--patch", type=click.IntRange(min=1), default=1, show_default=True, help="Side of what comes and goes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of ties, masks, noise and intervals.")
@click.option("-o", "--output", type=MODEL, metavar="DIR", help="Results, tables and curves; a later run goes on.")
@click.option(
    "--provider", type=click.Choice(["cpu", "cuda"]), help="Where to run. [default: CUDA where it is there, else CPU]"
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: all cores]")
@click.option("--json", "as_json", is_flag=True, help="Print means and intervals as JSON.")
@some_options(*SEEING)
def evaluate(model: Path, images: tuple[str, ...], as_json: bool, **values: Any) -> None:
    """Score methods on photos: does the map say what MODEL goes by?"""
    from lrp_onnx.cli.evaluate import evaluate_files

    options = to_options(**{name: values.pop(name) for name in SEEING})
    table, means = evaluate_files(model, images, options=options, report=_to_stderr, **values)
    if as_json:
        click.echo(json.dumps(means))
    else:
        from lrp_onnx.cli.tables import show

        show(table)


@main.command()
@click.argument("model", type=MODEL)
@click.argument("image")
@click.option("-o", "--output", type=MODEL, required=True, metavar="PNG", help="Where to write the grid.")
@click.option(
    "--method", "methods", multiple=True, metavar="NAME", help="As for evaluate. Repeatable. [default: nine of them]"
)
@click.option("--target", metavar="CLASS", help="Class to explain, by index or name. [default: the predicted one]")
@click.option("--columns", type=click.IntRange(min=1), default=5, show_default=True, help="Tiles a row.")
@click.option("--overlay/--heatmap", "overlaid", default=False, help="On the picture, or alone.  [default: heatmap]")
@click.option(
    "--provider", type=click.Choice(["cpu", "cuda"]), help="Where to run. [default: CUDA where it is there, else CPU]"
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: all cores]")
@click.option("--force", is_flag=True, help="Overwrite the output.")
@some_options(*SEEING, "classes")
def compare(model: Path, image: str, output: Path, **values: Any) -> None:
    """Show IMAGE under many methods side by side."""
    from lrp_onnx.cli.compare import compare_file

    options = to_options(**{name: values.pop(name) for name in (*SEEING, "classes")})
    click.echo(compare_file(model, image, output, options=options, **values))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def composites(as_json: bool) -> None:
    """List the composites: named sets of rules."""
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
@click.argument("compiled", type=MODEL)
@click.option(
    "--original",
    type=MODEL,
    metavar="MODEL",
    help="The model it was compiled from. [default: the forward part of COMPILED]",
)
@click.option(
    "--image",
    "images",
    type=MODEL,
    multiple=True,
    help="A picture to verify with. Repeatable. [default: two of random noise]",
)
@click.option(
    "--provider", type=click.Choice(["cpu", "cuda"]), help="Where to run. [default: CUDA where it is there, else CPU]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def verify(
    compiled: Path, original: Path | None, images: tuple[Path, ...], provider: str | None, as_json: bool
) -> None:
    """Check a COMPILED file: outputs unchanged, batches consistent, no NaN, all relevance there."""
    from lrp_onnx.cli.verify import verify_file

    audit = verify_file(compiled, original=original, images=images, provider=provider)
    if as_json:
        click.echo(json.dumps(audit.to_json()))
    else:
        from lrp_onnx.cli.tables import account_table, check_lines, show

        show(account_table(audit.rows, audit.start), *check_lines(audit.checks))
    if not audit.passed:
        click.get_current_context().exit(1)
