"""Evaluation of methods on photos: the loop, its results and how they are shown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from networks import resnet

from lrp_onnx.cli.commands import main
from lrp_onnx.errors import ImageError, OutputError, RuleError
from lrp_onnx.evaluation.evaluate import Request, evaluate
from lrp_onnx.evaluation.methods import find_method
from lrp_onnx.evaluation.metrics.curves import PROTOCOLS, masks, read
from lrp_onnx.evaluation.photos import find_masks, read_boxes
from lrp_onnx.evaluation.scoring import Scorer, fill
from lrp_onnx.evaluation.subject import Subject
from lrp_onnx.evaluation.summary import as_csv, as_json, markdown, mean_curves, summary
from lrp_onnx.files.writing import append_line
from lrp_onnx.report.curves import draw_curves
from lrp_onnx.runtime.preprocess import preprocess

Save = Callable[[onnx.ModelProto], Path]


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(10):
        small = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        cv2.imwrite(
            str(folder / f"{index}.png"), cv2.resize(small, (40, 40), interpolation=cv2.INTER_CUBIC)
        )
    return sorted(folder.glob("*.png"))


@pytest.fixture
def request_(saved: Save, photos: list[Path]) -> Request:
    return Request(
        model=saved(resnet(size=(32, 32), widths=(8, 16))),
        photos=photos,
        methods=("lrp-resnet", "lrp-resnet+quantize:2", "grad-cam", "constant"),
        metrics=(*PROTOCOLS, "pointing", "mass", "rank", "sparseness"),
        labels={photo.name: index % 10 for index, photo in enumerate(photos)},
        masks={photo.name: (5, 5, 24, 30) for photo in photos},
        steps=6,
        provider="cpu",
    )


def test_every_value_by_the_long_way(request_: Request) -> None:
    """One photo's numbers with a picture at a time, nothing shared and nothing batched."""
    rows = {row["method"]: row for row in evaluate(request_) if row["image"] == "4.png"}
    subject = Subject(request_.model, provider="cpu")
    spec = subject.explainer.preprocessing
    photo = cv2.cvtColor(cv2.imread(str(request_.photos[4])), cv2.COLOR_BGR2RGB)
    tensor = preprocess(photo, spec, 32, 32).tensor[None]
    target = int(subject.probabilities(tensor)[0].argmax())
    black = preprocess(np.zeros_like(photo), spec, 32, 32).tensor[None]
    mean, deviation = tensor.mean((2, 3), keepdims=True), tensor.std((2, 3), keepdims=True)
    noise = np.random.default_rng(0).normal(size=tensor.shape) * deviation + mean
    fills = {"black": black, "mean": 0 * black, "noise": noise.astype(np.float32)}
    fills["blur"] = fill("blur", tensor, subject)
    for name, row in rows.items():
        relevance = find_method(name, subject).maps(tensor, np.array([target]))[0]
        assert row["target"] == target and row["label"] == 4
        for protocol in PROTOCOLS.values():
            column = 4 if protocol.follows == "label" else target
            shown, left = masks(relevance, protocol, steps=6)
            curves = []
            for kept, hidden in ((shown, protocol.hidden), (left, protocol.deleted)):
                scores = [
                    subject.probabilities(np.where(mask, tensor, fills[hidden]).astype(np.float32))[
                        0, column
                    ]
                    for mask in kept
                ]
                curves.append(np.array(scores))
            expected = read(relevance, protocol, *curves, steps=6)
            found = row[protocol.name]
            assert found["insertion"] == pytest.approx(expected.insertion_area, abs=2e-4)
            assert found["deletion"] == pytest.approx(expected.deletion_area, abs=2e-4)
            assert found["id"] == pytest.approx(found["insertion"] - found["deletion"])
    assert rows["constant"]["exact"]["id"] < rows["constant"]["keio"]["id"] + 1


def test_results_are_gone_on_with(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(
        request_,
        results=tmp_path / "out" / "results.jsonl",
        metrics=("exact",),
        methods=("constant",),
    )
    whole = evaluate(request)
    assert len(whole) == 10
    assert request.results is not None
    lines = request.results.read_text().splitlines()
    request.results.write_text("\n".join(lines[:5]) + "\n" + lines[5][: len(lines[5]) // 2])
    again = evaluate(request)
    assert sorted(again, key=lambda r: r["image"]) == sorted(whole, key=lambda r: r["image"])
    monkeypatch.setattr(
        "lrp_onnx.evaluation.evaluate.make_maps", lambda *a: pytest.fail("nothing was left to do")
    )
    assert len(evaluate(request)) == 10
    with pytest.raises(RuleError, match="of other settings"):
        evaluate(replace(request, steps=7))


def test_maps_of_a_stopped_run_are_not_made_again(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the values that are computed with them; another request's maps are not taken."""
    request = replace(
        request_, results=tmp_path / "r.jsonl", metrics=("exact", "lattice", "mosaic", "adcc")
    )
    folder = tmp_path / "r.jsonl.maps"
    expected = evaluate(replace(request, results=None))

    def stop(self: Scorer) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "scores", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(request)
    assert len(list(folder.iterdir())) == len(request.methods)
    damaged = next(folder.iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-200])
    made: list[str] = []
    assert evaluate(request, say=made.append) == expected
    assert sum("maps computed" in text for text in made) == 1, "the damaged one"
    assert not folder.exists()

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "scores", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(replace(request, results=tmp_path / "s.jsonl", metrics=("exact", "mosaic")))
    (tmp_path / "s.jsonl").unlink()
    made.clear()
    evaluate(replace(request, results=tmp_path / "s.jsonl"), say=made.append)
    assert sum("maps computed" in text for text in made) == len(request.methods)


def test_a_slow_method_goes_on_inside_its_maps(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part by part: what was made is not made again, of this method and these pictures alone."""
    monkeypatch.setattr("lrp_onnx.evaluation.kept.SLOW", 0.0)
    kept = replace(request_, results=tmp_path / "r.jsonl").kept
    x = np.random.default_rng(0).normal(size=(20, 3, 4, 4)).astype(np.float32)
    t = np.arange(20) % 3
    made: list[int] = []

    def run(pictures: Any, targets: Any) -> Any:
        made.append(len(pictures))
        if len(made) == 3:
            raise KeyboardInterrupt
        return (pictures.sum(1) * (targets + 1)[:, None, None]).astype(np.float32)

    with pytest.raises(KeyboardInterrupt):
        kept.in_parts("slow", run)(x, t)
    found = kept.in_parts("slow", run)(x, t)
    assert made == [8, 8, 4, 4]
    np.testing.assert_array_equal(found, run(x, t))
    made.clear()
    kept.in_parts("slow", run)(x, t)
    assert made == []
    kept.in_parts("other", run)(x[:8], t[:8])
    kept.in_parts("slow", run)(x[:8], t[:8] + 1)
    assert made == [8, 8]
    (damaged, *_) = (tmp_path / "r.jsonl.maps").glob("*.npy")
    damaged.write_bytes(b"x")
    np.testing.assert_array_equal(
        kept.in_parts("slow", lambda p, c: run(p, c))(x[16:], t[16:]), found[16:]
    )


def test_kept_maps_are_of_one_request_and_its_photos(request_: Request, tmp_path: Path) -> None:
    request = replace(request_, results=tmp_path / "r.jsonl", methods=("edges",))
    maps, values = np.ones((1, 4, 5), np.float32), [{"mosaic": 0.5}]
    request.kept.save("edges", ["0.png"], maps, values)
    found = request.kept.load("edges", ["0.png"], ["mosaic"])
    assert found is not None and found[1] == values
    np.testing.assert_array_equal(found[0], maps)
    assert request.kept.load("edges", ["0.png"], ["adcc"]) is None
    assert request.kept.load("edges", ["1.png"], []) is None
    assert replace(request, seed=1).kept.load("edges", ["0.png"], []) is None
    assert replace(request, photos=request.photos[1:]).kept.load("edges", ["0.png"], []) is None
    request.photos[3].write_bytes(request.photos[4].read_bytes())
    assert request.kept.load("edges", ["0.png"], []) is None


def test_expected_gradients_are_not_gone_on_with_beside_other_photos(
    request_: Request, tmp_path: Path
) -> None:
    request = replace(
        request_,
        results=tmp_path / "r.jsonl",
        metrics=("sparseness",),
        methods=("expected-gradients(samples=2)",),
        photos=request_.photos[:3],
    )
    assert len(evaluate(request)) == 3
    with pytest.raises(RuleError, match="of other settings"):
        evaluate(replace(request, photos=request_.photos[:2]))
    with pytest.raises(RuleError, match="needs other pictures"):
        evaluate(replace(request, photos=request_.photos[:1], results=None))


def test_only_what_was_asked_for_is_gone_on_with(request_: Request, tmp_path: Path) -> None:
    """Other metrics, photos, methods, labels, masks, models:
    nothing old is taken for new, nothing counts twice.
    """
    request = replace(
        request_,
        photos=request_.photos[:3],
        results=tmp_path / "r.jsonl",
        metrics=("keio",),
        methods=("edges", "constant"),
    )
    first = evaluate(request)
    both = evaluate(replace(request, metrics=("keio", "rank")))
    assert all("rank" in row for row in both) and len(both) == 6
    again = evaluate(request)
    assert len(again) == 6 and [row["keio"] for row in again] == [row["keio"] for row in first]
    assert {row["method"] for row in evaluate(replace(request, methods=("edges",)))} == {"edges"}
    assert {row["image"] for row in evaluate(replace(request, photos=request_.photos[3:5]))} == {
        "3.png",
        "4.png",
    }
    other = {name: (label + 1) % 10 for name, label in request.labels.items()}
    relabelled = {
        (row["image"], row["method"]): row for row in evaluate(replace(request, labels=other))
    }
    assert all(
        relabelled[row["image"], row["method"]]["keio"] != row["keio"]
        for row in first
        if row["method"] == "edges"
    )
    moved = evaluate(
        replace(
            request, metrics=("rank",), masks={photo.name: (0, 0, 3, 3) for photo in request.photos}
        )
    )
    assert all(row["rank"] < 0.5 for row in moved)
    changed = tmp_path / "other" / request.model.name
    changed.parent.mkdir()
    onnx.save(resnet(size=(32, 32), widths=(8, 16), seed=5), changed)
    with pytest.raises(RuleError, match="of other settings"):
        evaluate(replace(request, model=changed))


def test_photos_and_labels_that_cannot_be(request_: Request, tmp_path: Path) -> None:
    twin = tmp_path / "twin" / "0.png"
    twin.parent.mkdir()
    twin.write_bytes(request_.photos[0].read_bytes())
    with pytest.raises(RuleError, match=r"several photos are called 0\.png"):
        evaluate(replace(request_, photos=[*request_.photos, twin]))
    with pytest.raises(
        RuleError, match=r"labels are 0 to 9 .*; 2 are not \(0\.png: -1, 1\.png: 10\)"
    ):
        evaluate(replace(request_, labels={"0.png": -1, "1.png": 10, "2.png": 3}))


def test_a_method_that_does_not_fit_is_said_before_any_work(saved: Save, request_: Request) -> None:
    from networks import Network

    net = Network(0)
    flat = net.node("Flatten", "x")
    logits = net.node("MatMul", flat, net.constant("w", np.ones((3 * 32 * 32, 10), np.float32)))
    model = saved(net.model(logits, ["N", 3, 32, 32], classes=10))
    with pytest.raises(RuleError, match="no feature map"):
        evaluate(replace(request_, model=model, methods=("constant", "grad-cam"), results=None))


def test_pictures_that_several_methods_need_are_scored_once(request_: Request) -> None:
    subject = Subject(request_.model, provider="cpu")
    seen: list[int] = []
    subject.probabilities = lambda x: seen.append(len(x)) or np.zeros((len(x), 10))  # type: ignore[method-assign]
    x = np.zeros((1, 3, 32, 32), np.float32)
    scorer = Scorer(subject, x, {"black": x, "mean": x})
    keep = np.zeros((3, 32, 32), bool)
    keep[1, :4], keep[2] = True, True
    assert scorer.ask("black", keep) == [0, 1, 2] and scorer.ask("black", keep[1:]) == [1, 2]
    assert scorer.ask("mean", keep) == [3, 4, 2]
    scorer.scores()
    assert sum(seen) == 5


def test_boxes_masks_and_what_does_not_fit(
    request_: Request, photos: list[Path], tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,label,x0,y0,x1,y1\n0.png,3,1,2,10,11\n")
    assert read_boxes(table) == {"0.png": [(1, 2, 10, 11)]}
    table.write_text(
        "file,label,x0,y0,x1,y1\n0.png,3,1,2,10,11\n0.png,3,20,20,30,30\n1.png,2,,,,\n"
    )
    assert read_boxes(table) == {"0.png": [(1, 2, 10, 11), (20, 20, 30, 30)]}
    table.write_text("file,label,x0,y0,x1,y1\n0.png,3,1,left,10,11\n")
    with pytest.raises(ImageError, match=r"the box of 0\.png is not four numbers"):
        read_boxes(table)
    table.write_text("file,label\n0.png,3\n")
    assert read_boxes(table) == {}
    folder = tmp_path / "masks"
    folder.mkdir()
    mask = np.zeros((40, 40), np.uint8)
    mask[5:31, 5:25] = 255
    cv2.imwrite(str(folder / "0.png"), mask)
    found = find_masks(folder, photos)
    assert list(found) == ["0.png"]
    small = replace(request_, photos=photos[:1], methods=("gaussian",), metrics=("mass", "rank"))
    by_mask, by_box = (
        evaluate(replace(small, masks=masks)) for masks in (found, {"0.png": (5, 5, 24, 30)})
    )
    assert (
        all(by_mask[0][key] == by_box[0][key] for key in ("mass", "rank"))
        and 0 < by_mask[0]["mass"] < 1
    )
    cv2.imwrite(str(folder / "0.png"), mask // 255)
    assert evaluate(replace(small, masks=found)) == by_mask  # masks of 0 and 1, too
    whole, outside = (
        evaluate(replace(small, masks={"0.png": box}))[0]
        for box in ((0, 5, 24, 30), (-7, 5, 24, 30))
    )
    assert whole["mass"] == outside["mass"]
    two = evaluate(replace(small, masks={"0.png": [(5, 5, 24, 15), (5, 16, 24, 30)]}))
    assert two[0]["mass"] == by_box[0]["mass"]
    unseen = evaluate(
        replace(small, masks={"0.png": (60, 60, 70, 70)}, results=tmp_path / "unseen.jsonl")
    )
    assert "mass" not in unseen[0] and not unseen[0]["seen"]
    assert (
        evaluate(
            replace(small, masks={"0.png": (60, 60, 70, 70)}, results=tmp_path / "unseen.jsonl")
        )
        == unseen
    )
    cv2.imwrite(str(folder / "0.png"), mask[:10])
    with pytest.raises(ImageError, match=r"the mask .* has \(10, 40\) pixels"):
        evaluate(replace(small, masks=found))
    with pytest.raises(RuleError, match="there is no metric 'goodness': there are keio"):
        evaluate(replace(request_, metrics=("goodness",)))


def test_tables(request_: Request) -> None:
    rows = evaluate(replace(request_, metrics=("exact", "rank")))
    found = summary(rows)
    ids = [row["exact"]["id"] for row in rows if row["method"] == "grad-cam"]
    assert found["grad-cam"]["exact", "id"].value == pytest.approx(np.mean(ids))
    text = markdown(rows)
    assert (
        text.splitlines()[0] == "| method | photos | exact ID | rank |"
        and len(text.splitlines()) == 6
    )
    assert "exact insertion" in markdown(rows, every=True)
    assert as_json(rows)["constant"]["rank"]["photos"] == 10
    lines = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert len(lines) == 40 and float(lines[0]["exact ID"]) == rows[0]["exact"]["id"]
    curves = mean_curves(rows, "exact")
    assert curves["constant"].shape == (2, 7)
    picture = draw_curves(curves, "exact")
    assert (
        picture.dtype == np.uint8
        and picture.shape[2] == 3
        and len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    )


def test_metrics_that_make_maps_anew_and_attention(request_: Request) -> None:
    metrics = (
        "class-sensitivity",
        "random-logit",
        "max-sensitivity",
        "adcc",
        "randomisation",
        "attention",
    )
    rows = evaluate(
        replace(
            request_, photos=request_.photos[:3], metrics=metrics, methods=("lrp-resnet", "edges")
        )
    )
    assert len(rows) == 6
    for row in rows:
        assert set(metrics) - {"attention"} <= set(row)
        assert sum(row[kind] for kind in ("good", "insufficient", "over", "wrong")) == 1
    means = summary(rows)
    assert means["edges"]["randomisation", None].value == pytest.approx(1)
    assert means["lrp-resnet"]["randomisation", None].value < 0.98


def test_photos_without_a_mask_are_gone_on_with(request_: Request, tmp_path: Path) -> None:
    some = {name: box for name, box in request_.masks.items() if name < "3"}
    request = replace(
        request_,
        masks=some,
        results=tmp_path / "r.jsonl",
        metrics=("rank", "attention"),
        methods=("edges",),
    )
    rows = evaluate(request)
    assert [("rank" in row, "good" in row) for row in rows] == [
        (row["image"] < "3",) * 2 for row in rows
    ]
    assert len(evaluate(request)) == 10
    assert len(evaluate(replace(request, masks=request_.masks))) == 10
    assert all("rank" in row for row in evaluate(replace(request, masks=request_.masks)))


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_on_the_command_line(request_: Request, photos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = [
        "--method",
        "lrp-resnet",
        "--method",
        "grad-cam",
        "--steps",
        5,
        "-o",
        out,
        "--preprocess",
        "imagenet",
    ]
    code, said, _ = call("evaluate", request_.model, photos[0].parent, *options)
    assert code == 0
    for name in ("lrp-resnet", "grad-cam", "constant", "random", "gaussian", "edges"):
        assert name in said
    assert {p.name for p in out.iterdir()} == {
        "results.jsonl",
        "table.md",
        "table.csv",
        "exact.png",
        "keio.png",
    }
    assert cv2.imread(str(out / "exact.png")) is not None
    code, said, _ = call("evaluate", request_.model, photos[0].parent, *options, "--json")
    assert code == 0 and json.loads(said)["constant"]["keio ID"]["photos"] == 10
    code, _, said = call("evaluate", request_.model, photos[0].parent, "--method", "grad-kam")
    assert code == 1 and "did you mean grad-cam" in said


def test_compare(request_: Request, photos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    code, said, _ = call(
        "compare", request_.model, photos[0], "-o", out, "--preprocess", "imagenet", "--target", 3
    )
    assert code == 0 and "class 3, " in said and "9 methods" in said
    grid = cv2.imread(str(out))
    assert grid.shape[1] == 5 * 224 + 4 * 7 + 2 * 16 and 2 * 224 < grid.shape[0] < 2 * 360
    assert (grid[:16] == 255).all() and (grid[:, :16] == 255).all()
    tiles = [grid[26:216, 231 * i + 26 : 231 * i + 216] for i in range(5)]
    assert all((one != other).any() for i, one in enumerate(tiles) for other in tiles[:i])
    code, _, said = call("compare", request_.model, photos[0], "-o", out)
    assert code == 1 and "exists" in said
    chosen = [
        "--method",
        "grad-cam",
        "--method",
        "lrp-resnet+c3",
        "--overlay",
        "--force",
        "--columns",
        2,
    ]
    assert call("compare", request_.model, photos[0], "-o", out, *chosen)[0] == 0
    jpeg = tmp_path / "grid.jpg"
    assert call("compare", request_.model, photos[0], "-o", jpeg, *chosen)[0] == 0
    assert jpeg.read_bytes().startswith(b"\xff\xd8\xff")
    code, _, said = call("compare", request_.model, photos[0], "-o", tmp_path / "grid.gif")
    assert code == 1 and "grid.gif: a picture's name ends in .png, .jpg, .jpeg, .webp" in said
    assert cv2.imread(str(out)).shape[1] == 2 * 224 + 7 + 2 * 16
    code, _, said = call(
        "compare", request_.model, photos[0], "-o", out, "--method", "grad-kam", "--force"
    )
    assert code == 1 and "did you mean grad-cam" in said
    code, _, said = call("compare", request_.model, photos[0], "-o", out, "--target", 10, "--force")
    assert code == 1 and "there is no class 10" in said


def test_results_that_cannot_be_written_or_read(request_: Request, tmp_path: Path) -> None:
    small = replace(
        request_, photos=request_.photos[:1], methods=("edges",), metrics=("sparseness",)
    )
    blocked = tmp_path / "file"
    blocked.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"the folder .*file cannot be created"):
        evaluate(replace(small, results=blocked / "results.jsonl"))
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    with pytest.raises(RuleError, match=r"folder\.jsonl cannot be continued"):
        evaluate(replace(small, results=folder))
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text("{\n")
    with pytest.raises(RuleError, match=r"damaged\.jsonl cannot be continued"):
        evaluate(replace(small, results=damaged))
    for nothing in (b"", bytes(300)):  # after a power cut
        empty = tmp_path / "empty.jsonl"
        empty.write_bytes(nothing)
        assert len(evaluate(replace(small, results=empty))) == 1
        assert len(empty.read_text().splitlines()) == 2
    with pytest.raises(OutputError, match=r"folder\.jsonl is a folder"):
        append_line(folder, "{}")
    assert blocked.read_bytes() == b"mine"


def test_a_table_of_boxes_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"there is no file .*no\.csv"):
        read_boxes(tmp_path / "no.csv")
    (tmp_path / "other.csv").write_text("name,x0,y0,x1,y1\na,1,2,3,4\n")
    assert read_boxes(tmp_path / "other.csv") == {}
