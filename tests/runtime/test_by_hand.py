"""The run half on files written by hand from the contract
alone, with values computed in NumPy: no compiler involved.

The model is linear, so that everything is known: logits =
W·mean(x) + b, relevance = x ⊙ (start·W)/(H·W).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lrp_onnx.contract import HEATMAP, RELEVANCE, START, TARGET, Contract, Preprocessing
from lrp_onnx.errors import ContractError, ImageError, ModelFileError
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.explanation import kind_of, probabilities_of
from lrp_onnx.runtime.preprocess import parse_preprocessing
from lrp_onnx.runtime.shared import Shared

H, W, CLASSES = 4, 6, 4
WEIGHT = np.random.default_rng(0).normal(size=(CLASSES, 3)).astype(np.float32)
BIAS = np.linspace(-0.5, 0.5, CLASSES, dtype=np.float32)
NAMES = ("ant", "bee", "cat", "dog")
ZERO_ONE = parse_preprocessing("zero-one")


def compiled(
    *,
    batch: int | str = "N",
    nhwc: bool = False,
    half: bool = False,
    outputs: tuple[str, ...] = (HEATMAP, RELEVANCE),
    preprocessing: Preprocessing | None = ZERO_ONE,
) -> bytes:
    """A compiled file as `contract` describes it."""

    def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op, inputs.split(), [output], **attributes)

    constants = {
        "weight": WEIGHT,
        "bias": BIAS,
        "size": np.float32(H * W),
        "plane": np.array([2, 3]),
        "channel": np.array([1]),
        "none": np.array(-1),
        "zero": np.float32(0),
        "depth": np.array(CLASSES),
        "off_on": np.array([0, 1], np.float32),
        TARGET: np.array([-1]),
        START: np.zeros((1, CLASSES), np.float32),
    }
    nodes = [
        node("Cast", "x", "wide", to=TensorProto.FLOAT),
        node("Transpose", "wide", "image", perm=[0, 3, 1, 2] if nhwc else [0, 1, 2, 3]),
        node("ReduceMean", "image plane", "mean", keepdims=0),
        node("Gemm", "mean weight bias", "logits", transB=1),
        node("ArgMax", "logits", "predicted", axis=1, keepdims=0),
        node("Equal", "target none", "unset"),
        node("Where", "unset predicted target", "class"),
        node("OneHot", "class depth off_on", "one_hot"),
        node("ReduceL1", "start channel", "given", keepdims=1),
        node("Greater", "given zero", "is_given"),
        node("Where", "is_given start one_hot", "from"),
        node("MatMul", "from weight", "gradient"),
        node("Unsqueeze", "gradient plane", "spread"),
        node("Mul", "image spread", "product"),
        node("Div", "product size", "share"),
        node("ReduceSum", "share channel", HEATMAP, keepdims=0),
        node("Transpose", "share", RELEVANCE, perm=[0, 2, 3, 1] if nhwc else [0, 1, 2, 3]),
    ]
    picture = (batch, H, W, 3) if nhwc else (batch, 3, H, W)
    shapes = {"logits": (batch, CLASSES), HEATMAP: (batch, H, W), RELEVANCE: picture}
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [
            helper.make_tensor_value_info(
                "x", TensorProto.FLOAT16 if half else TensorProto.FLOAT, picture
            ),
            helper.make_tensor_value_info(TARGET, TensorProto.INT64, ("targets",)),
            helper.make_tensor_value_info(START, TensorProto.FLOAT, ("starts", CLASSES)),
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])
            for name in ("logits", *outputs)
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    contract = Contract(
        input="x",
        outputs={"logits": "logits"},
        explained="logits",
        classes=CLASSES,
        composite="by-hand",
        start_value="one",
        versions={},
        rules={},
        preprocessing=preprocessing,
        labels=NAMES,
    )
    helper.set_model_props(model, contract.to_metadata())
    onnx.checker.check_model(model)
    return model.SerializeToString()


def expected(x: NDArray[Any], start: NDArray[Any]) -> NDArray[Any]:
    """Relevance of (N, 3, H, W) for a start (N, CLASSES)."""
    return x * (start @ WEIGHT)[:, :, None, None] / (H * W)


def close(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """float32 sums of at most 24 terms around 1."""
    return found.shape == wanted.shape and bool(np.allclose(found, wanted, rtol=1e-5, atol=1e-6))


@pytest.fixture
def batch() -> NDArray[np.float32]:
    return np.random.default_rng(1).uniform(size=(5, 3, H, W)).astype(np.float32)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Five random pictures of the model's own size, so that nothing is resized."""
    rng = np.random.default_rng(2)
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 256, (H, W, 3)).astype(np.uint8))
    return paths


def pixels(path: Path) -> NDArray[np.float32]:
    return (cv2.imread(str(path))[:, :, ::-1].transpose(2, 0, 1) / 255.0).astype(np.float32)


def test_targets_and_starts(batch: NDArray[np.float32]) -> None:
    explainer = Explainer(compiled(), providers="cpu")
    logits = batch.mean((2, 3)) @ WEIGHT.T + BIAS
    eye = np.eye(CLASSES, dtype=np.float32)
    found = explainer.explain(batch)
    assert close(found["logits"], logits) and close(
        found[RELEVANCE], expected(batch, eye[logits.argmax(1)])
    )
    assert close(found[HEATMAP], found[RELEVANCE].sum(1))
    assert close(explainer.explain(batch, target="cat")[RELEVANCE], expected(batch, eye[[2] * 5]))
    chosen = [3, 0, 1, -1, 2]
    classes = np.where(np.array(chosen) < 0, logits.argmax(1), chosen)
    assert close(explainer.explain(batch, target=chosen)[RELEVANCE], expected(batch, eye[classes]))
    contrast = (eye[0] - eye[3])[None]
    assert close(
        explainer.explain(batch, start=contrast)[RELEVANCE], expected(batch, contrast.repeat(5, 0))
    )
    mixed = np.zeros((5, CLASSES), np.float32)
    mixed[1] = 2 * eye[3]
    assert close(
        explainer.explain(batch, target=0, start=mixed)[RELEVANCE],
        expected(batch, np.where(mixed.any(1, keepdims=True), mixed, eye[[0] * 5])),
    )


@pytest.mark.parametrize(
    "target", [[0, 1], 1.5, [0.0] * 5, [[0] * 5], True, [4, 0, 0, 0, 0], "antt"]
)
def test_wrong_targets(target: Any, batch: NDArray[np.float32]) -> None:
    with pytest.raises(ImageError, match=r"the target is|there is no class"):
        Explainer(compiled(), providers="cpu").explain(batch, target=target)


def test_a_target_for_every_picture(photos: list[Path]) -> None:
    """The indices follow their pictures through batches."""
    explainer = Explainer(compiled(), providers="cpu")
    wanted = [3, 0, 1, 2, 3]
    found = list(explainer.explain_images(photos, batch_size=2, target=wanted))
    assert [one.target for one in found] == wanted and [one.target_name for one in found] == [
        NAMES[i] for i in wanted
    ]
    start = np.eye(CLASSES, dtype=np.float32)[wanted]
    assert close(
        np.stack([one.heatmap for one in found]),
        expected(np.stack([*map(pixels, photos)]), start).sum(1),
    )
    with pytest.raises(ImageError, match="5 indices"):
        next(explainer.explain_images(photos, target=[1, 2]))
    with pytest.raises(ValueError, match="at least 1"):
        next(explainer.explain_images(photos, batch_size=-1))


def test_channels_last(photos: list[Path]) -> None:
    spec = parse_preprocessing("zero-one:layout=NHWC")
    last, usual = (
        next(Explainer(model, providers="cpu").explain_images(photos, target=1))
        for model in (compiled(nhwc=True, preprocessing=spec), compiled())
    )
    assert last.relevance is not None and usual.relevance is not None
    assert close(last.relevance, usual.relevance.transpose(1, 2, 0)) and close(
        last.heatmap, usual.heatmap
    )
    with pytest.raises(ImageError, match="layout=NHWC"):
        next(Explainer(compiled(nhwc=True), providers="cpu").explain_images(photos))


@pytest.mark.parametrize("nhwc", [False, True])
def test_the_heatmap_is_summed_where_the_file_has_only_relevance(
    nhwc: bool, photos: list[Path]
) -> None:
    spec = parse_preprocessing(f"zero-one:layout={'NHWC' if nhwc else 'NCHW'}")
    only = Explainer(compiled(nhwc=nhwc, outputs=(RELEVANCE,), preprocessing=spec), providers="cpu")
    both = Explainer(compiled(nhwc=nhwc, preprocessing=spec), providers="cpu")
    assert close(
        next(only.explain_images(photos)).heatmap, next(both.explain_images(photos)).heatmap
    )
    neither = Explainer(compiled(nhwc=nhwc, outputs=(), preprocessing=spec), providers="cpu")
    with pytest.raises(ContractError, match="none of heatmap, heatmap_raw and relevance"):
        next(neither.explain_images(photos))


def test_half_precision_input(photos: list[Path]) -> None:
    """The pixels are rounded to 11 bits on the way in, values come back as float32."""
    one, usual = (
        next(Explainer(compiled(half=h), providers="cpu").explain_images(photos))
        for h in (True, False)
    )
    assert one.heatmap.dtype == np.float32 and np.allclose(
        one.heatmap, usual.heatmap, rtol=2**-10, atol=1e-4
    )


def shapes_of_runs(
    explainer: Explainer, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """Batch sizes of the runs; without bound buffers, which
    would have to lie on the provider's device.
    """
    seen: list[int] = []

    def run(shared: Shared, feeds: Any) -> Any:
        seen.append(len(feeds["x"]))
        return shared.session.run(None, feeds)

    with monkeypatch.context() as patched:
        patched.setattr(Shared, "run", run)
        assert [one.path for one in explainer.explain_images(photos, batch_size=2)] == photos
    return seen


def test_batches_keep_their_shape_where_that_matters(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU runs a shorter last batch; CUDA and a fixed batch get it filled up."""
    explainer = Explainer(compiled(), providers="cpu")
    assert shapes_of_runs(explainer, photos, monkeypatch) == [2, 2, 1]
    assert shapes_of_runs(Explainer(compiled(batch=3), providers="cpu"), photos, monkeypatch) == [
        3,
        3,
    ]
    monkeypatch.setattr(Explainer, "provider", "cuda")
    assert shapes_of_runs(explainer, photos, monkeypatch) == [2, 2, 2]
    assert shapes_of_runs(explainer, photos[:1], monkeypatch) == [1]


def test_preprocessing_is_assumed_only_where_nothing_says_it() -> None:
    assert Explainer(compiled(preprocessing=None), providers="cpu").assumed_preprocessing
    assert not Explainer(compiled(), providers="cpu").assumed_preprocessing
    assert not Explainer(
        compiled(preprocessing=None), providers="cpu", preprocessing=ZERO_ONE
    ).assumed_preprocessing


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"hello, this is a text file", "text that begins"),
        (bytes(range(256)), "truncated, damaged"),
        (b"PK\x03\x04rest", "zip"),
    ],
)
def test_what_is_no_model(data: bytes, message: str, tmp_path: Path) -> None:
    """Said before anyone is told to compile it."""
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=message) as caught:
        Explainer(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ModelFileError, match=message):
        Explainer(data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_model(share: float) -> None:
    whole = compiled()
    with pytest.raises(ModelFileError, match="not an ONNX model"):
        Explainer(whole[: int(share * len(whole))])


def test_folders_and_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is a folder"):
        Explainer(tmp_path)
    with pytest.raises(ModelFileError, match="there is no file"):
        Explainer(str(tmp_path / "none.onnx"))


def test_scores_become_probabilities() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [1000.0, 0.0, -1000.0]])
    expected = np.exp(logits[0]) / np.exp(logits[0]).sum()
    found = probabilities_of("logits", logits)
    np.testing.assert_allclose(found, [expected, [1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(probabilities_of("log-probabilities", np.log(found[:1])), found[:1])
    np.testing.assert_array_equal(probabilities_of("probabilities", found), found)
    signed = np.array([[-128, -64, 64]], np.int8)
    np.testing.assert_allclose(probabilities_of("probabilities", signed), [[0, 0.25, 0.75]])
    np.testing.assert_allclose(
        probabilities_of("probabilities", np.array([[0, 51, 204]], np.uint8)), [[0, 0.2, 0.8]]
    )
    np.testing.assert_array_equal(probabilities_of("other", logits), logits)
    assert kind_of({"a": "other", "b": "probabilities", "c": "logits"}) == ("logits", "c")
