"""The Explainer: compiled or not, targets by index and name, batches, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from conftest import relative
from networks import picture, resnet
from numpy.typing import NDArray
from zoo_files import manifest

from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.errors import ContractError, ImageError, ModelFileError, ProviderError
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.preprocess import parse_preprocessing
from lrp_onnx.runtime.session import cuda_fault, nodes_by_provider, open_session

Save = Callable[[onnx.ModelProto], Path]
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay")


@pytest.fixture
def compiled(saved: Save) -> bytes:
    options = Options(composite="lrp-resnet", outputs=("heatmap", "relevance"), labels=NAMES)
    return compile_model(saved(resnet(size=(32, 32))), options).model.SerializeToString()


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for index in range(5):
        path = tmp_path / f"{index}.png"
        small = rng.integers(0, 256, (6, 9, 3)).astype(np.uint8)
        cv2.imwrite(str(path), cv2.resize(small, (80, 60), interpolation=cv2.INTER_CUBIC))
        paths.append(path)
    return paths


def test_every_field_of_an_explanation(compiled: bytes, photos: list[Path]) -> None:
    explainer = Explainer(compiled, providers="cpu")
    found = list(explainer.explain_images(photos, batch_size=2))
    assert (
        [e.path for e in found] == photos
        and explainer.assumed_preprocessing
        and explainer.provider == "cpu"
    )
    for one in found:
        assert (
            one.heatmap.shape == (32, 32)
            and one.relevance is not None
            and one.relevance.shape == (3, 32, 32)
        )
        assert (
            one.picture.shape == (60, 60, 3)
            and one.start == "logit"
            and one.start_value == one.scores[one.target]
            and one.provider == "cpu"
        )
        assert (
            one.target == one.top5[0][0] == int(one.scores.argmax())
            and one.target_name == NAMES[one.target]
        )
        assert [p for _, _, p in one.top5] == sorted((p for _, _, p in one.top5), reverse=True)
        assert (
            abs(
                np.exp(one.scores - one.scores.max()).max()
                / np.exp(one.scores - one.scores.max()).sum()
                - one.top5[0][2]
            )
            < 1e-5
        )
        assert relative(one.relevance.sum(0), one.heatmap) < 1e-5
        assert set(one.seconds) == {"decode", "run"}


def test_batch_size_does_not_matter(compiled: bytes, photos: list[Path]) -> None:
    explainer = Explainer(compiled, providers="cpu")
    maps = [
        np.stack([e.heatmap for e in explainer.explain_images(photos, batch_size=size)])
        for size in (1, 3, 8)
    ]
    assert relative(maps[0], maps[1]) < 1e-5 and relative(maps[0], maps[2]) < 1e-5


def test_targets_by_index_and_by_name(compiled: bytes, photos: list[Path]) -> None:
    explainer = Explainer(compiled, providers="cpu")
    by_name = next(explainer.explain_images(photos, target="fox"))
    by_index = next(explainer.explain_images(photos, target=5))
    assert by_name.target == 5 and np.array_equal(by_name.heatmap, by_index.heatmap)
    assert by_name.top5[0][0] == by_index.top5[0][0]
    with pytest.raises(ImageError, match="did you mean fox"):
        next(explainer.explain_images(photos, target="foxx"))
    for wrong in (10, -2):
        with pytest.raises(ImageError, match="classes are 0 to 9"):
            next(explainer.explain_images(photos, target=wrong))


def test_a_start_vector(compiled: bytes) -> None:
    explainer = Explainer(compiled, providers="cpu")
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    start = np.eye(10, dtype=np.float32)[[5]]
    assert explainer.explain(x, start=start)["heatmap"].shape == (2, 32, 32)
    with pytest.raises(ImageError, match=r"the start has shape \(3, 10\)"):
        explainer.explain(x, start=np.zeros((3, 10), np.float32))


@pytest.mark.parametrize("shape", [(2, 3, 31, 32), (2, 1, 32, 32), (3, 32, 32)])
def test_a_wrong_batch_is_refused(shape: tuple[int, ...], compiled: bytes) -> None:
    with pytest.raises(ImageError, match="the batch has shape"):
        Explainer(compiled, providers="cpu").explain(np.zeros(shape, np.float32))


def test_an_uncompiled_model_needs_a_compiler(saved: Save, photos: list[Path]) -> None:
    path = saved(resnet(size=(32, 32)))
    with pytest.raises(ContractError, match="lrp-onnx compile"):
        Explainer(path)
    explainer = Explainer(
        path, providers="cpu", compile=lambda p: compile_model(p).model.SerializeToString()
    )
    assert next(explainer.explain_images(photos)).heatmap.shape == (32, 32)


@pytest.mark.parametrize("tail", [None, "Softmax", "LogSoftmax"])
def test_probabilities_and_start_of_every_kind_of_output(
    tail: str | None, saved: Save, photos: list[Path]
) -> None:
    """The same network with and without its tail: the same
    probabilities, and a start value only where it can be known.
    """
    path = saved(resnet(size=(32, 32), tail=tail))
    plain = saved(resnet(size=(32, 32)))
    one, expected = (
        next(
            Explainer(compile_model(p).model.SerializeToString(), providers="cpu").explain_images(
                photos
            )
        )
        for p in (path, plain)
    )
    assert [index for index, _, _ in one.top5] == [index for index, _, _ in expected.top5]
    assert np.allclose([p for _, _, p in one.top5], [p for _, _, p in expected.top5], rtol=1e-5)
    assert (one.start_value is None) == (tail is not None)
    assert relative(one.heatmap, expected.heatmap) < 1e-5
    known = compile_model(path, start="probability").model.SerializeToString()
    again = next(Explainer(known, providers="cpu").explain_images(photos))
    assert again.start == "probability" and again.start_value == again.top5[0][2]


def test_providers_in_the_order_of_preference(compiled: bytes) -> None:
    assert open_session(compiled, providers=["cpu", "cuda"]).provider == "cpu"
    with pytest.raises(ProviderError, match="no provider 'tpu'"):
        open_session(compiled, providers="tpu")


def test_a_fixed_batch_is_padded(saved: Save, photos: list[Path]) -> None:
    model = resnet(size=(32, 32))
    dynamic = compile_model(saved(model)).model.SerializeToString()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 2
    fixed = compile_model(saved(model)).model.SerializeToString()
    maps = [
        np.stack([e.heatmap for e in Explainer(m, providers="cpu").explain_images(photos)])
        for m in (dynamic, fixed)
    ]
    assert relative(*maps) < 1e-5


def test_preprocessing_comes_from_the_argument_then_the_file(saved: Save) -> None:
    stored = parse_preprocessing("zero-one")
    model = compile_model(
        saved(resnet(size=(32, 32))), Options(preprocessing=stored)
    ).model.SerializeToString()
    assert Explainer(model, providers="cpu").preprocessing == stored.for_layout("NCHW")
    assert not Explainer(model, providers="cpu").assumed_preprocessing
    given = parse_preprocessing("tf:layout=NCHW")
    assert Explainer(model, providers="cpu", preprocessing=given).preprocessing == given


@pytest.mark.parametrize("when", ["compiled", "explained"])
def test_a_preprocessing_without_a_layout_takes_the_model_s(
    when: str, photos: list[Path], tmp_path: Path
) -> None:
    (file,) = (file for file in manifest() if file.name == "core.tf2onnx-nhwc")
    path = file.save(tmp_path)
    caffe = parse_preprocessing("caffe")
    choices = {"preprocessing": caffe} if when == "compiled" else {}
    model = compile_model(path, **choices)
    data = model.model.SerializeToString()
    if when == "compiled":
        assert model.contract.preprocessing == parse_preprocessing("caffe:layout=NHWC")
        explainer = Explainer(data, providers="cpu")
    else:
        explainer = Explainer(data, providers="cpu", preprocessing=caffe)
    stated = Explainer(
        data, providers="cpu", preprocessing=parse_preprocessing("caffe:layout=NHWC")
    )
    found, expected = (next(e.explain_images(photos[:1])) for e in (explainer, stated))
    assert np.array_equal(found.heatmap, expected.heatmap)
    wrong = Explainer(data, providers="cpu", preprocessing=parse_preprocessing("caffe:layout=NCHW"))
    with pytest.raises(ImageError, match="layout=NHWC"):
        next(wrong.explain_images(photos[:1]))


def test_wrong_numbers_of_names(compiled: bytes) -> None:
    with pytest.raises(ContractError, match="2 class names and the model has 10 classes"):
        Explainer(compiled, providers="cpu", labels=("a", "b"))


@pytest.mark.skipif(cuda_fault() is None, reason="this machine has CUDA")
def test_cuda_that_is_not_there_is_an_error(compiled: bytes) -> None:
    with pytest.raises(ProviderError, match="CUDA was requested and is not available"):
        Explainer(compiled, providers="cuda")
    assert Explainer(compiled).provider == "cpu"


@pytest.mark.skipif(cuda_fault() is not None, reason=f"no CUDA: {cuda_fault()}")
def test_cuda_gives_the_cpus_map_and_runs_every_node(saved: Save) -> None:
    model = resnet("bottleneck", size=(64, 64), widths=(16, 32))
    compiled = compile_model(saved(model)).model.SerializeToString()
    x = {"x": picture(model)}
    maps = [
        open_session(compiled, providers=p).run(["heatmap"], x)["heatmap"] for p in ("cpu", "cuda")
    ]
    assert relative(*maps) < 1e-3
    assert set(nodes_by_provider(compiled, x, provider="cuda")) == {"CUDAExecutionProvider"}


def test_the_profile_names_every_node(compiled: bytes) -> None:
    x = {"x": np.zeros((1, 3, 32, 32), np.float32)}
    found = nodes_by_provider(compiled, x, provider="cpu")
    assert list(found) == ["CPUExecutionProvider"] and any(
        "Conv" in node for node in found["CPUExecutionProvider"]
    )


def test_what_the_runtime_cannot_load(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelFileError, match="cannot load"):
        open_session(path, providers="cpu")
    with pytest.raises(ModelFileError, match="there is no file"):
        Explainer(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_picture_that_cannot_be_read_is_left_out(
    batch_size: int, compiled: bytes, photos: list[Path], tmp_path: Path
) -> None:
    """The others keep their order and their classes, and a batch of damaged pictures is no run."""
    explainer = Explainer(compiled, providers="cpu")
    damaged = [tmp_path / f"damaged{index}.png" for index in range(4)]
    for path in damaged:
        path.write_bytes(b"no picture")
    given = [damaged[0], photos[0], photos[1], damaged[1], damaged[2], damaged[3], photos[2]]
    targets = [9, 5, 4, 9, 9, 9, 3]
    faults: list[tuple[Path, ImageError]] = []
    found = list(
        explainer.explain_images(
            given,
            batch_size=batch_size,
            target=targets,
            on_fault=lambda path, error: faults.append((path, error)),
        )
    )
    assert [path for path, _ in faults] == damaged
    assert all(str(path) in str(error) for path, error in faults)
    assert [(e.path, e.target) for e in found] == [(photos[0], 5), (photos[1], 4), (photos[2], 3)]
    alone = list(explainer.explain_images(photos[:3], batch_size=batch_size, target=[5, 4, 3]))
    for one, expected in zip(found, alone, strict=True):
        assert relative(one.heatmap, expected.heatmap) < 1e-5
        assert np.array_equal(one.photo, expected.photo)
    with pytest.raises(ImageError, match="damaged0"):
        list(explainer.explain_images(given, batch_size=batch_size, target=targets))


def test_damaged_pictures_in_a_fixed_batch(saved: Save, photos: list[Path], tmp_path: Path) -> None:
    model = resnet(size=(32, 32))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 2
    explainer = Explainer(compile_model(saved(model)).model.SerializeToString(), providers="cpu")
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"")
    faults: list[Path] = []
    found = explainer.explain_images(
        [damaged, damaged, damaged, photos[0]],
        target=[0, 1, 2, 3],
        on_fault=lambda path, _: faults.append(path),
    )
    assert [(e.path, e.target) for e in found] == [(photos[0], 3)] and faults == [damaged] * 3


def test_a_batch_with_damaged_pictures_keeps_its_size(
    saved: Save, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is explained beside a damaged picture has the values that it has beside another one."""
    explainer = Explainer(
        compile_model(saved(resnet(size=(32, 32)))).model.SerializeToString(), providers="cpu"
    )
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"")
    sizes: list[int] = []
    run = explainer.explain

    def counted(batch: NDArray[Any], **others: Any) -> Any:
        sizes.append(len(batch))
        return run(batch, **others)

    monkeypatch.setattr(explainer, "explain", counted)
    given = [photos[0], damaged, photos[1], photos[2], damaged]
    found = explainer.explain_images(given, batch_size=3, on_fault=lambda path, _: None)
    assert [e.path for e in found] == photos[:3] and sizes == [3, 2]
