"""Which architectures of timm and torchvision compile, and what their maps are worth.

    python -m tools.zoo.architectures -o DIR                all of them: an hour on two cores
    python -m tools.zoo.architectures xcit gcres -o DIR     those whose names have such a part
    python -m tools.zoo.architectures --again -o DIR        those anew that did not pass before

Every network has seeded weights and is exported by one of torch's two exporters, in turn. It is
compiled under the default and audited: original outputs unchanged, all relevance accounted for.
Compiled under `gradient` it is evaluated in float64, and the map compared with autograd's. Each
runs in a process of its own; its row is one line of DIR/architectures.jsonl, and what stands there
is not run again. The exit status is 1 where fewer than `ENOUGH` pass.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENOUGH = 55
"""Networks that have to pass."""
ALIKE = 0.999
"""Least cosine between the gradient's map and autograd's."""
SECONDS, GIBIBYTES = 600, 14
"""Limits of one network's process."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network of a library: the picture's side, and arguments that make it small."""

    library: str
    name: str
    size: int = 64
    options: Mapping[str, Any] = field(default_factory=dict)


def _timm(*names: str, size: int = 64, **options: Any) -> list[Network]:
    side = options.get("img_size", size)
    return [Network("timm", name, side, options) for name in names]


def _vision(*names: str, size: int = 64, **options: Any) -> list[Network]:
    side = options.get("image_size", size)
    return [Network("torchvision", name, side, options) for name in names]


NETWORKS: tuple[Network, ...] = (
    # convolutions
    *_vision("alexnet", "vgg11_bn", size=224),
    *_vision("squeezenet1_1", "googlenet", "mnasnet0_5"),
    *_vision("shufflenet_v2_x0_5", "mobilenet_v2", "regnet_x_400mf", "densenet121"),
    *_vision("resnext50_32x4d", "efficientnet_b0"),
    *_vision("inception_v3", size=96),
    *_timm("mobilenetv3_small_050", "mobilenetv4_conv_small_050", "repvgg_a0", "ghostnetv2_100"),
    *_timm("eca_nfnet_l0", "hgnetv2_b0", "resnest14d", "cspresnet50", "dla46_c", "dpn48b"),
    *_timm("resnetrs50", "skresnet18", "resnetblur18", "resnetv2_50d_frn", "resnetv2_50d_evos"),
    *_timm("mobileone_s0", "rexnet_100", "starnet_s050", "selecsls42", "xception41"),
    *_timm("ese_vovnet19b_slim_dw", "cs3darknet_s", "hrnet_w18_small", "res2net50_14w_8s"),
    *_timm("gcresnext26ts", "fasternet_t0", "repghostnet_050", "lcnet_050"),
    *_timm("convmixer_768_32", size=56),
    *_timm("convnext_atto", "convnextv2_atto", "inception_next_atto", "rdnet_tiny"),
    *_timm("focalnet_tiny_srf", "mambaout_femto", "poolformerv2_s12", "convformer_s18"),
    # attention
    *_vision("vit_b_32", image_size=64),
    *_vision("swin_t", "swin_v2_t"),
    *_vision("maxvit_t", size=224),
    *_timm("deit_tiny_patch16_224", "vit_small_patch16_18x2_224", img_size=64, depth=4),
    *_timm("beit_base_patch16_224", img_size=64, depth=2),
    *_timm("vit_small_patch14_reg4_dinov2", img_size=56, depth=4),
    *_timm("vit_base_patch16_clip_quickgelu_224", img_size=64, depth=2),
    *_timm("vit_base_patch16_siglip_224", img_size=64, depth=2),
    *_timm("vit_relpos_small_patch16_224", img_size=64, depth=4),
    *_timm("eva02_tiny_patch14_224", img_size=56, depth=4),
    *_timm("vit_small_patch16_dinov3", size=64, depth=4),
    *_timm("vit_small_patch16_rope_mixed_224", img_size=64, depth=4),
    *_timm("cait_xxs24_224", img_size=64, depth=4),
    *_timm("convit_tiny", img_size=64, depth=12),
    *_timm("crossvit_9_240", size=240),
    *_timm("pit_ti_224", img_size=64),
    *_timm("xcit_nano_12_p16_224", img_size=64, depth=4),
    *_timm("volo_d1_224", img_size=64),
    *_timm("tnt_s_patch16_224", img_size=64, depth=4),
    *_timm("nest_tiny", size=224),
    *_timm("coat_lite_tiny", img_size=64),
    *_timm("twins_svt_small", "twins_pcpvt_small", img_size=64),
    *_timm("swin_s3_tiny_224", size=224),
    *_timm("swinv2_cr_tiny_ns_224", size=224),
    *_timm("davit_tiny", "gcvit_xxtiny", size=224),
    *_timm("hiera_tiny_224", size=224),
    *_timm("mvitv2_tiny", size=224),
    *_timm("pvt_v2_b0", "mobilevit_xxs", "mobilevitv2_050", "edgenext_xx_small"),
    *_timm("efficientvit_b0", "efficientvit_m0", "repvit_m0_9", "caformer_s18", "nextvit_small"),
    *_timm(
        "levit_128s",
        "efficientformer_l1",
        "efficientformerv2_s0",
        "tiny_vit_5m_224",
        "coatnet_nano_rw_224",
        size=224,
    ),
    *_timm("visformer_tiny", size=224),
    *_timm("maxvit_nano_rw_256", size=256),
    *_timm("fastvit_sa12", "swiftformer_xs", "shvit_s1"),
    *_timm("resnet50_clip", size=224),
    *_timm("botnet26t_256", "halonet26t", "lambda_resnet26t", size=256),
    # products over tokens
    *_timm("mixer_s16_224", "resmlp_12_224", "gmlp_ti16_224", "gmixer_12_224", img_size=64),
    *_timm("sequencer2d_s", img_size=64),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What was found of one network."""

    name: str
    exporter: str = ""
    passed: bool = False
    faults: tuple[str, ...] = ()
    cosine: float = 0.0
    """Between the gradient's map in float64 and autograd's."""
    start: float = 0.0
    """Relevance at the logits, of the first of two random pictures."""
    arrived: float = 0.0
    """Share of it that arrived where relevance stops; the others are what took the rest."""
    biases: float = 0.0
    """Biases and other constants: tokens, positions."""
    stabilizers: float = 0.0
    unconserved: float = 0.0
    """Rules that do not conserve relevance."""
    seconds: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="parts of the names of networks")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--again", action="store_true", help="run those anew that did not pass")
    parser.add_argument("--keep", action="store_true", help="keep the exported files in the folder")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for module in ("lrp_onnx", "onnxruntime", "tools.zoo.with_torch"):
        importlib.import_module(module)
    rows = _stored(arguments.output)
    for network in NETWORKS:
        wanted = not arguments.names or any(part in network.name for part in arguments.names)
        known = rows.get(network.name)
        if not wanted or (known and (known.passed or not arguments.again)):
            continue
        row = rows[network.name] = _in_a_process(
            network.name, arguments.output, keep=arguments.keep
        )
        with (arguments.output / "architectures.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        print(f"{row.name}: {'passed' if row.passed else row.faults[0]}", file=sys.stderr)
    print(table(rows[network.name] for network in NETWORKS if network.name in rows))
    return int(sum(row.passed for row in rows.values()) < ENOUGH)


def _stored(folder: Path) -> dict[str, Row]:
    """Name → the last row in the folder."""
    path = folder / "architectures.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines]
    return {row["name"]: Row(**row | {"faults": tuple(row["faults"])}) for row in found}


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown, and how many passed."""
    lines = [
        "| network | exporter | cosine with autograd | arrived | biases, constants | stabilizers "
        "| other rules | seconds | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    found = list(rows)
    for row in found:
        shares = (row.arrived, row.biases, row.stabilizers, row.unconserved)
        numbers = [f"{row.cosine:.6f}", *(f"{share:.1%}" for share in shares)]
        cells = [row.name, row.exporter, *(numbers if row.start else [""] * len(numbers))]
        result = "passed" if row.passed else row.faults[0]
        lines.append("| " + " | ".join([*cells, f"{row.seconds:.0f}", result]) + " |")
    passed = sum(row.passed for row in found)
    return "\n".join([*lines, "", f"{passed} of {len(found)} passed."])


def _in_a_process(name: str, folder: Path, *, keep: bool) -> Row:
    """A network's row; what ends its process is the row's fault."""
    begin = time.monotonic()
    fork = multiprocessing.get_context("fork")  # so that the libraries are imported once
    receiver, sender = fork.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as scratch:
        place = folder if keep else Path(scratch)
        process = fork.Process(target=_send, args=(sender, name, place))
        process.start()
        sender.close()
        try:
            if receiver.poll(SECONDS):
                return Row(**receiver.recv())
            fault = f"longer than {SECONDS} seconds"
        except EOFError:
            process.join()
            fault = f"its process ended with {process.exitcode}: too little memory?"
        finally:
            process.kill()
            process.join()
    return Row(name, faults=(fault,), seconds=time.monotonic() - begin)


def _send(sender: Connection, name: str, folder: Path) -> None:
    """Work for a network's row and send it; nothing is printed but the row."""
    resource.setrlimit(resource.RLIMIT_DATA, (GIBIBYTES << 30, GIBIBYTES << 30))
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    sender.send(asdict(row_of(name, folder)))


def row_of(name: str, folder: Path) -> Row:
    """Export, compile, audit and compare one network; what fails is its fault."""
    begin, number = time.monotonic(), [network.name for network in NETWORKS].index(name)
    path, exporter = folder / f"{name}.onnx", ""
    try:
        model = made(NETWORKS[number])
        exporter = _export(model, path, NETWORKS[number].size, dynamo_first=bool(number % 2))
        found = _audited(path) | {"cosine": _cosine(path, model, NETWORKS[number].size)}
        faults = list(found.pop("faults"))
        if not found["cosine"] >= ALIKE:
            faults.append(f"the cosine with autograd's gradient is {found['cosine']:.6f}")
    except Exception as error:
        found, faults = (
            {},
            list(getattr(error, "faults", ())) or [f"{type(error).__name__}: {error}"],
        )
    seconds = time.monotonic() - begin
    row = Row(name, exporter, not faults, tuple(fault[:300] for fault in faults))
    return Row(**asdict(row) | found | {"seconds": seconds})


def made(network: Network) -> Any:
    """The network with seeded weights, in evaluation mode, in float32.

    What starts at zero or one (gates of residual branches, biases, tokens, scales of norms) is
    drawn anew, so that nothing is trivial; batch norms take the statistics of 16 random pictures.
    """
    # Without this, torchvision's import fails where its operators are not built for this torch.
    importlib.import_module("tools.zoo.torch_models")
    import timm
    import torch
    import torchvision

    torch.manual_seed(0)
    if network.library == "timm":
        model = timm.create_model(network.name, **network.options)
    else:
        extra = {"init_weights": True} if network.name in ("googlenet", "inception_v3") else {}
        options = {**network.options, **extra}
        model = torchvision.models.get_model(network.name, weights=None, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in model.named_parameters():
            _enliven(name, values, generator)
        _calibrate(model, torch.randn(16, 3, network.size, network.size, generator=generator))
    return model.eval().requires_grad_(False)


def _enliven(name: str, values: Any, generator: Any) -> None:
    """Draw a parameter anew where it is trivial."""
    import torch

    first = values.flatten()[0]
    noise = torch.randn(values.shape, generator=generator)
    if (values == 1).all():
        values.copy_(1 + 0.15 * noise)
    elif values.ndim >= 2 and float(values.abs().max()) < 1e-3:  # tokens, tables of positions
        values.copy_(0.1 * noise)
    elif (values == first).all() and abs(float(first)) < 0.2:
        bias = "bias" in name.rsplit(".", 1)[-1]
        values.copy_(0.1 * noise if bias else 0.5 + 0.1 * noise)


def _calibrate(model: Any, pictures: Any) -> None:
    """Set every batch norm's statistics to those of `pictures`."""
    import torch

    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    model.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    model(pictures)


def _export(model: Any, path: Path, size: int, *, dynamo_first: bool) -> str:
    """Write the file; the other exporter is asked where one fails. Returns the exporter's name."""
    import torch

    from tools.zoo.with_torch import dynamo, torchscript

    exporters = {"torchscript": torchscript, "dynamo": dynamo}
    names = sorted(exporters, reverse=not dynamo_first)
    example = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    for name in names:
        try:
            exporters[name](lambda: model, path, example=example)
            return name
        except Exception as error:
            last = error
    raise RuntimeError(f"neither exporter writes it: {last}") from last


def _pictures(size: int, count: int) -> Any:
    import numpy as np

    return np.random.default_rng(2).normal(size=(count, 3, size, size)).astype(np.float32)


def _audited(path: Path) -> dict[str, Any]:
    """The faults and the ledger of the file that the default makes of `path`."""
    import onnx

    from lrp_onnx import compile_model
    from lrp_onnx.cli.verify import run_once
    from lrp_onnx.compiled.verify import audit

    original = onnx.load(path)
    size = original.graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    compiled = compile_model(path)

    def runner(model: Any, feeds: Any, *, optimize: bool = True) -> Any:
        return run_once(model, feeds, optimize=optimize)

    found = audit(
        compiled.model, compiled.contract, runner, pictures=_pictures(size, 2), original=original
    )
    faults = [f"{check}: {fault}" for check, said in found.checks for fault in said]
    start = float(found.start[0])
    parts = {
        "biases": sum(float(row.bias[0]) for row in found.rows),
        "stabilizers": sum(float(row.epsilon[0]) for row in found.rows),
        "unconserved": sum(float(row.unexplained[0]) for row in found.rows),
    }
    shares = {name: value / start for name, value in parts.items()}
    return {"faults": faults, "start": start, "arrived": 1 - sum(shares.values())} | shares


def _cosine(path: Path, model: Any, size: int) -> float:
    """Between the map of the gradient file in float64 and autograd's, for the predicted class."""
    import numpy as np
    import torch

    from lrp_onnx import compile_model

    sys.path.insert(0, str(ROOT / "tests"))
    run_float64 = importlib.import_module("float64").run_float64
    compiled = compile_model(path, composite="gradient", outputs=("relevance",))
    x = _pictures(size, 1).astype(np.float64)
    found: Any = run_float64(compiled.model, {compiled.contract.input: x}, ["relevance"])
    picture = torch.from_numpy(x).requires_grad_()
    scores = model.double()(picture)
    scores[0, scores[0].argmax()].backward()
    assert picture.grad is not None
    return _angle(found["relevance"], picture.grad.numpy())


def _angle(one: Any, other: Any) -> float:
    """The cosine between two arrays."""
    import numpy as np

    lengths: Sequence[float] = [float(np.linalg.norm(array)) for array in (one, other)]
    return float((one * other).sum() / (lengths[0] * lengths[1])) if all(lengths) else 0.0


if __name__ == "__main__":
    sys.exit(main())
