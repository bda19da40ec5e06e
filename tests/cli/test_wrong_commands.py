"""Commands that a newcomer types wrongly: each gets one paragraph with what was found, what is
supported and what to do.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from lrp_onnx.cli.commands import main
from lrp_onnx.runtime.session import cuda_fault

CLONE = Path(__file__).parents[2]
NO_CLASS = "there is no class 'hart': did you mean heart, star, gear?"
ON_THE_CPU = pytest.mark.skipif(cuda_fault() is None, reason="this machine has CUDA")

WRONG: dict[str, tuple[int, str]] = {
    # the command itself
    "model.onnx photo.png": (2, "did you mean lrp-onnx explain model.onnx photo.png?"),
    "model.onnx": (2, "did you mean lrp-onnx explain model.onnx PHOTOS?"),
    "explian model.onnx photo.png": (2, "'explian' is no command: did you mean explain or plan?"),
    "run model.onnx photo.png": (2, "'run' is no command: there are bulk, compare, compile,"),
    "help": (2, "lrp-onnx --help lists them"),
    # arguments
    "explain model.onnx": (2, "Missing argument 'IMAGE...'. Write: lrp-onnx explain model.onnx"),
    "explain photo.png model.onnx": (1, "photo.png is a PNG picture, not an ONNX model: the model"),
    "explain photos model.onnx": (1, "photos is a folder, and no .onnx file is in it"),
    "explain . photo.png": (1, "name the .onnx file in it (model.lrp.onnx, model.onnx)"),
    "verify model.lrp.onnx model.onnx": (2, "Write: lrp-onnx verify model.lrp.onnx --original"),
    "compile model.onnx photo.png": (2, "(photo.png). Write: lrp-onnx compile model.onnx -o"),
    "composites c3-lrp": (2, "lrp-onnx plan model.onnx --composite c3-lrp"),
    "compare model.onnx photo.png": (2, "Write: lrp-onnx compare model.onnx photo.jpg -o grid.png"),
    "compare model.onnx photos -o g.png": (1, "photos is 2 pictures, and compare shows one: name"),
    # models
    "explain modle.onnx photo.png": (1, "no file modle.onnx (did you mean model.onnx?)"),
    "explain model.pt photo.png": (1, "export it from PyTorch: torch.onnx.export("),
    "explain model.h5 photo.png": (1, "export it from Keras: model.export("),
    "explain model.tflite photo.png": (1, "tf2onnx.convert --tflite model.tflite"),
    r"compile 'C:\me\model.onnx'": (1, "written with / instead of \\"),
    "compile nowhere/model.onnx": (1, "(there is no folder nowhere)"),
    "verify model.onnx": (1, "run lrp-onnx compile model.onnx first"),
    "verify model.lrp.onnx --original model.lrp.onnx": (1, "name that model, or leave --original"),
    # pictures
    "explain model.onnx phto.png": (1, "phto.png is not a file or a folder (did you mean photo"),
    "explain model.onnx empty": (1, "empty holds no picture; pictures end in .avif,"),
    "explain model.onnx above": (1, "name its subfolders, as in 'above/*/*.jpg', or give"),
    "explain model.onnx '*.jpg'": (1, "*.jpg matches nothing; pictures end in"),
    r"explain model.onnx 'C:\me\photo.png'": (1, "written with / instead of \\"),
    "explain model.onnx model.pt": (1, "model.pt"),
    # options
    "explain model.onnx photo.png --targt heart": (2, "--target"),
    "explain model.onnx photo.png --method gradcam": (1, "did you mean grad-cam"),
    "explain model.onnx photo.png --steps 5": (2, "--steps is an option of evaluate"),
    "explain model.onnx photo.png --composite c3lrp": (1, "did you mean c3-lrp or lrp-z?"),
    "explain model.onnx photo.png --composite grad-cam": (1, "are for compare and evaluate"),
    "explain model.onnx photo.png --preprocess imagnet": (1, "did you mean imagenet or imagenet-"),
    "explain model.onnx photo.png --target hart": (1, NO_CLASS),
    "explain model.onnx photo.png --target 99": (1, "classes are 0 to 9, or -1 for the predicted"),
    "explain model.onnx photo.png --top 99": (1, "--top 99: model.onnx has 10 classes: give no"),
    "explain model.onnx photo.png --top 2 --target heart": (2, "cannot be combined: give one of"),
    "explain model.onnx photo.png --classes nothing.txt": (1, "names with commas between: no,yes"),
    "explain model.onnx photo.png --classes no,yes": (1, "2 class names, but model.onnx has 10"),
    "explain model.onnx photo.png --labels bad.csv": (1, "bad.csv has the columns name, class: a"),
    "explain model.onnx photo.png --labels names.csv": (1, "a label is the index of a class"),
    "explain model.onnx photo.png --labels no.csv": (1, "no file no.csv; a CSV file with the"),
    "explain model.onnx photo.png --input-size 0": (2, "'0' is not a size: write 224, 480x640"),
    "explain model.onnx photo.png --input-size 300": (1, "not 300×300: leave --input-size out"),
    "explain model.onnx photo.png --post c4": (1, "there is no step 'c4'; there are c3, c1c,"),
    "explain model.onnx photo.png --resolution high": (1, "it is full, a fraction of the picture"),
    "explain model.onnx photo.png --rule fc": (2, "write for example fc=epsilon"),
    "explain model.onnx photo.png --rule fc=epsilom": (1, "did you mean epsilon?"),
    "explain model.onnx photo.png --rule @jion=ratio": (1, "did you mean @join?"),
    "explain model.onnx photo.png --rules no.toml": (1, "there is no rules file no.toml"),
    "explain model.onnx photo.png --output-name logit": (1, "its outputs are 'logits' (None, 10)"),
    "explain model.onnx photo.png --outputs heatmpa": (1, "outputs are heatmap, heatmap_raw, c3,"),
    "explain model.onnx photo.png --provider gpu": (2, "is not one of 'cpu', 'cuda'"),
    "explain model.lrp.onnx photo.png --composite c3-lrp": (1, "or compile it anew: lrp-onnx comp"),
    "explain model.lrp.onnx photo.png --top 2": (1, "compile it with --many-targets"),
    "bulk model.onnx": (2, "Missing argument 'SOURCE...'. Write: lrp-onnx bulk model.onnx photos"),
    "bulk model.onnx photos": (2, "Missing option '-o' / '--output'. Write: lrp-onnx bulk"),
    "bulk model.onnx photos -o out --map png": (2, "'png' is not one of 'float32', 'float16',"),
    "evaluate model.onnx photos --metrics rank": (1, "give --masks DIR, or --labels FILE with the"),
    "evaluate model.onnx photos --metrics exakt": (1, "no metric 'exakt': did you mean exact?"),
    "evaluate model.onnx photos --method gradcam": (1, "did you mean grad-cam"),
    "evaluate model.onnx photos --method grad_cam": (1, "names are of small letters, digits and"),
    "evaluate model.onnx photos --method rise,cam": (1, "--method rise --method cam"),
    # results
    "explain model.onnx photo.png -o photo.png": (1, "photo.png is a file: name a folder with"),
    "explain model.onnx photo.png -o out.png": (1, "name a folder with -o/--output, as in -o out"),
    "evaluate model.onnx photos -o out.csv": (1, "name a folder with -o/--output, as in -o out"),
    "compare model.onnx photo.png -o grid.pdf": (1, "name ends in .png, .jpg, .jpeg, .webp"),
    "compile model.onnx": (1, "model.lrp.onnx exists: give another -o/--output, or --force"),
    "compile model.lrp.onnx": (1, "model.lrp.onnx exists: give another -o/--output, or --force"),
    "compile model.onnx -o nowhere/x.onnx": (1, "the folder nowhere does not exist: create it"),
    "compile model.onnx -o photos": (1, "photos is a folder: name a file to write"),
    "export photos --to coco -o x.json": (1, "photos holds no results of lrp-onnx explain: name"),
    "export nowhere --to coco -o x.json": (
        1,
        "nowhere is no folder of results of lrp-onnx explain",
    ),
    "export photos": (2, "Missing option '--to'. Choose from: coco, label-studio,"),
    "export photos --to voc -o x.json": (2, "'voc' is not one of 'coco', 'label-studio',"),
    "export --to coco -o x.json": (2, "Write: lrp-onnx export explained --to coco -o regions.json"),
    "triton model.onnx repository": (2, "Write: lrp-onnx triton model.onnx -o repository"),
    "triton model.onnx -o photo.png": (1, "photo.png is a file: name a folder with -o/--output"),
    "triton model.onnx -o r --name a/b": (1, "'a/b' cannot be a model's name: write letters,"),
    "triton model.onnx -o r --kind tpu": (2, "'tpu' is not one of 'auto', 'cpu', 'gpu'"),
    "triton model.onnx -o r --preferred-batch-size 9": (1, "9 is not within 1 to the largest"),
    "triton model.lrp.onnx -o r --post none": (1, "is compiled already, which settles --post"),
    "triton model.onnx -o r --inputs none": (2, "--inputs is an option of bulk, compile,"),
    "triton model.onnx -o r --classes no,yes": (1, "2 class names, but model.onnx has 10"),
    "guide explain": (1, "did you mean explaining?"),
}
"""Command → (exit status, what the message says)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a newcomer works: a model, its compiled file, photos, and things that are neither."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copy(CLONE / "models" / "shapes-resnet.onnx", folder / "model.onnx")
    for name in ("photos", "empty", "above/below"):
        (folder / name).mkdir(parents=True)
    for name in ("photo.png", "photos/heart.png", "photos/star.png", "above/below/heart.png"):
        shutil.copy(CLONE / "models" / "samples" / "heart.png", folder / name)
    (folder / "model.pt").write_bytes(b"PK\x03\x04 and so on")
    (folder / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n and so on")
    (folder / "model.tflite").write_bytes(b"\x1c\0\0\0TFL3 and so on")
    (folder / "bad.csv").write_text("name,class\nheart.png,2\n")
    (folder / "names.csv").write_text("file,label\nheart.png,heart\n")
    compiled = CliRunner().invoke(
        main, ["compile", str(folder / "model.onnx"), "--no-check"], catch_exceptions=False
    )
    assert compiled.exit_code == 0
    return folder


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_command_is_told_what_to_do(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    result = CliRunner().invoke(main, shlex.split(command))
    assert isinstance(result.exception, SystemExit), result.exception
    status, message = WRONG[command]
    said = re.split("^Error: ", result.stderr, flags=re.MULTILINE)
    assert len(said) == 2, result.stderr
    assert message in said[1] and said[1].count("\n") == 1, said[1]
    assert (result.exit_code, result.stdout) == (status, "")
    assert sorted(folder.rglob("*")) == before


@ON_THE_CPU
def test_a_gpu_where_there_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(main, ["explain", "model.onnx", "photo.png", "--provider", "cuda"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Run on the CPU with --provider cpu" in result.stderr


def test_a_model_that_cannot_be_compiled_is_told_what_explains_it(
    tmp_path: Path, folder: Path
) -> None:
    """And a choice that does not fit is not: another choice helps."""
    model = onnx.load(folder / "model.onnx")
    first = next(node for node in model.graph.node if node.op_type == "Relu")
    first.op_type = "Hardmax"
    onnx.save(model, tmp_path / "hardmax.onnx")
    refused = CliRunner().invoke(main, ["plan", str(tmp_path / "hardmax.onnx")])
    written = ["-o", str(tmp_path / "out.onnx"), "--resolution", "high"]
    unfit = CliRunner().invoke(main, ["compile", str(folder / "model.onnx"), *written])
    assert refused.exit_code == 1 and "--method occlusion" in refused.stderr
    assert unfit.exit_code == 1 and "occlusion" not in unfit.stderr
