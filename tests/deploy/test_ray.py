"""Explaining on a real Ray cluster of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from lrp_onnx.cli.commands import main
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.contract import C3_REGION, HEATMAP, HEATMAP_RAW
from lrp_onnx.deploy.parts import done_in, parts_of
from lrp_onnx.deploy.ray import Pool, _Actor, _Job, _told, explain, explain_into
from lrp_onnx.deploy.rows import Row, map_of
from lrp_onnx.errors import ContractError, ImageError, LrpOnnxError
from lrp_onnx.runtime.explainer import Explainer

REASON = "the extra ray is not installed: pip install 'lrp-onnx[ray]'"
ray = pytest.importorskip("ray", reason=REASON)
pytest.importorskip("ray.data", reason=REASON)
pq = pytest.importorskip("pyarrow.parquet", reason=REASON)
pa = pytest.importorskip("pyarrow", reason=REASON)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
"""Ray warns of its own habits, and leaves files of its processes open."""

ROOT = Path(__file__).parents[2]
MODEL, SAMPLES = ROOT / "models" / "shapes-resnet.onnx", ROOT / "models" / "samples"
STORE = 80_000_000
"""Bytes of a node's object store."""
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""A dead node is seen after a few seconds."""


@dataclass(frozen=True)
class TwoNodes:
    """A cluster whose second node can be killed."""

    cluster: Any
    second: Any

    def wait_for_work(self) -> None:
        """Wait until an actor runs on the second node."""
        until = time.monotonic() + 60
        state = ray._private.state
        while state.available_resources_per_node()[self.second.node_id].get("CPU", 0) > 0:
            assert time.monotonic() < until, "the second node has no work"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill the second node and its actors, without a warning to them."""
        self.cluster.remove_node(self.second, allow_graceful=False)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    node = {"num_cpus": 1, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"_system_config": HEALTH})
    try:
        second = cluster.add_node(**node)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.FATAL)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield TwoNodes(cluster, second)
    finally:
        ray.shutdown()
        cluster.shutdown()
        gc.collect()  # the files that Ray left open, while their warnings are expected


@pytest.fixture(scope="module")
def compiled() -> bytes:
    options = Options(outputs=(HEATMAP, C3_REGION, HEATMAP_RAW))
    return compile_model(MODEL, options).model.SerializeToString()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of several sizes, and two files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    samples = [cv2.imread(str(path)) for path in sorted(SAMPLES.glob("*.png"))]
    for number in range(22):
        sample = samples[number % len(samples)]
        size = (90 + 7 * number, 120 - 2 * number)
        cv2.imwrite(str(folder / f"{number:02}.png"), cv2.resize(sample, size))
    (folder / "07.png").write_bytes(b"no picture")
    (folder / "13.png").write_bytes((folder / "12.png").read_bytes()[:200])
    return folder


def rows_in(folder: Path) -> list[Row]:
    """All rows, in any order."""
    rows: list[Row] = [row for part in parts_of(folder) for row in pq.read_table(part).to_pylist()]
    return rows


def assert_equal_to_explain(rows: list[Row], compiled: bytes, photos: Path) -> None:
    """As many rows as pictures, each with what `explain` says of it."""
    paths = sorted(photos.iterdir())
    faults: dict[Path, ImageError] = {}
    explainer = Explainer(compiled, providers="cpu", threads=1)
    found = list(explainer.explain_images(paths, on_fault=faults.__setitem__))
    by_path = {row["path"]: row for row in rows}
    assert len(by_path) == len(rows) == len(paths) and len(faults) == 2
    for one in found:
        row = by_path[str(one.path)]
        assert row["error"] is None
        assert [best["index"] for best in row["top5"]] == [index for index, _, _ in one.top5]
        probabilities = [best["probability"] for best in row["top5"]]
        np.testing.assert_allclose(probabilities, [p for _, _, p in one.top5], atol=1e-6)
        most = np.abs(one.heatmap).max()
        np.testing.assert_allclose(map_of(row["map"]), one.heatmap, rtol=0, atol=1e-5 * most)
        assert one.sums is not None
        assert row["sums"]["all"] == pytest.approx(one.sums["all"], rel=1e-4)
    for path, fault in faults.items():
        assert by_path[str(path)]["error"] == str(fault)
        assert by_path[str(path)]["map"] is None


def actor(folder: Path, compiled: bytes, *, into: Path | None = None) -> _Actor:
    """One that no cluster runs."""
    (folder / "model.onnx").write_bytes(compiled)
    return _Actor(
        _Job(
            model=folder / "model.onnx",
            preprocessing=None,
            labels=(),
            target=None,
            keep="float32",
            provider="cpu",
            threads=1,
            batch=8,
            into=into,
        )
    )


def test_a_block_without_pictures_is_told(compiled: bytes, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="has the columns image: it needs 'bytes'"):
        actor(tmp_path, compiled)(pa.table({"image": [1, 2]}))


def test_a_task_that_is_repeated_writes_its_rows_once(
    compiled: bytes, photos: Path, tmp_path: Path
) -> None:
    """Without a cluster: an actor of another process makes the same file of the same block."""
    (tmp_path / "out").mkdir()
    block = pa.table({"path": [str(path) for path in sorted(photos.iterdir())]})
    keys = [actor(tmp_path, compiled, into=tmp_path / "out")(block).to_pylist() for _ in range(2)]
    assert keys[0] == keys[1]
    assert len(parts_of(tmp_path / "out")) == 1
    assert_equal_to_explain(rows_in(tmp_path / "out"), compiled, photos)


def test_a_map_that_is_not_finite_is_a_fault_of_its_picture_alone(
    compiled: bytes, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import lrp_onnx.deploy.ray as of_ray

    paths = [str(path) for path in sorted(photos.iterdir())[:3]]
    dark = of_ray.decoded_image(Path(paths[1]).read_bytes(), "")
    run = Explainer.explain_images

    def overflowing(self: Explainer, sources: Any, **options: Any) -> Any:
        if any(np.array_equal(source, dark) for source in sources):
            raise ImageError("<array> cannot be explained: the model's values are not finite")
        return run(self, sources, **options)

    monkeypatch.setattr(Explainer, "explain_images", overflowing)
    rows = actor(tmp_path, compiled)(pa.table({"path": paths})).to_pylist()
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert rows[1]["error"].startswith(f"{paths[1]} cannot be explained")


def test_what_cannot_work_is_told_before_there_is_a_cluster(compiled: bytes) -> None:
    with pytest.raises(ImageError, match="did you mean heart"):
        explain_into(Path(), [], compiled, target="hart")
    with pytest.raises(ContractError, match="not a compiled file"):
        explain_into(Path(), [], MODEL)
    many = compile_model(MODEL, Options(many_targets=True)).model.SerializeToString()
    with pytest.raises(ContractError, match="compile it without --many-targets"):
        explain_into(Path(), [], many)
    with pytest.raises(ValueError, match="keep is one of"):
        explain_into(Path(), [], compiled, keep="float64")
    with pytest.raises(ValueError, match="batch is 0"):
        Pool(batch=0)


@pytest.mark.parametrize(
    ("there", "pool", "alone", "beside_readers"),
    [
        ({"CPU": 8.0}, Pool(), 8, Pool(actors=7)),
        ({"CPU": 8.0}, Pool(cpus=2), 4, Pool(cpus=2, actors=3)),
        ({"CPU": 8.0}, Pool(actors=3), 3, Pool(actors=3)),
        ({"CPU": 8.0, "GPU": 2.0}, Pool(gpus=0.5), 4, Pool(gpus=0.5, actors=4)),
        ({"CPU": 1.0}, Pool(), 1, Pool(cpus=0, actors=1)),
        ({"CPU": 4.0}, Pool(gpus=1), 1, Pool(gpus=1, actors=1)),
    ],
)
def test_the_room_of_a_cluster(
    there: dict[str, float],
    pool: Pool,
    alone: int,
    beside_readers: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A CPU is left for tasks that read: without one, they and the actors wait for each other."""
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    assert pool.size() == alone
    assert pool.beside_readers() == beside_readers


def bulk(folder: Path, *more: str, photos: Path) -> Result:
    """What the command does, with the cluster that there is."""
    arguments = ["bulk", str(MODEL), str(photos), "-o", str(folder), "--block", "8", *more]
    return CliRunner().invoke(main, arguments)


@pytest.mark.usefixtures("two_nodes")
def test_a_run_goes_on_with_what_is_missing(photos: Path, tmp_path: Path, compiled: bytes) -> None:
    own, out = tmp_path / "photos", tmp_path / "out"
    own.mkdir()
    names = sorted(path.name for path in photos.iterdir())
    for name in names[:10]:
        (own / name).write_bytes((photos / name).read_bytes())
    first = bulk(out, photos=own)
    assert first.exit_code == 1
    assert "9 explained, 1 could not be read: 07.png" in first.stderr
    assert "9 explained, 1 failed" in first.stdout
    before = {part: part.stat().st_mtime_ns for part in parts_of(out / "parts")}
    for name in names:
        (own / name).write_bytes((photos / name).read_bytes())
    (own / "09.png").write_bytes((photos / "01.png").read_bytes())
    second = bulk(out, "--json", photos=own)
    assert '"explained": 20, "failed": 2, "earlier": 9' in second.stdout
    untouched = [part for part in before if part.exists()]
    assert untouched and all(part.stat().st_mtime_ns == before[part] for part in untouched)
    assert_equal_to_explain(rows_in(out / "parts"), compiled, own)
    assert len(pq.read_table(out / "parts")) == 22, "other readers take the folder"
    third = bulk(out, photos=own)
    assert "20 explained (22 by earlier runs), 2 failed" in third.stdout
    other = bulk(out, "--target", "heart", photos=own)
    assert other.exit_code == 1 and "target: not given there, heart here" in other.stderr


@pytest.mark.usefixtures("two_nodes")
def test_a_dataset_of_bytes(compiled: bytes, photos: Path) -> None:
    """As it is read of a store in the cloud."""
    dataset = ray.data.read_binary_files(str(photos), include_paths=True)
    rows = explain(dataset, compiled, pool=Pool(block=8)).take_all()
    assert_equal_to_explain(rows, compiled, photos)


@pytest.mark.usefixtures("two_nodes")
def test_a_fault_in_an_actor_is_told(compiled: bytes, photos: Path, tmp_path: Path) -> None:
    rows = explain_into(tmp_path / "gone", [str(photos / "00.png")], compiled)
    with pytest.raises(LrpOnnxError, match=r"^the folder \S+gone does not exist: create it"):
        list(rows)


def test_a_node_is_killed_in_the_middle(
    two_nodes: TwoNodes, compiled: bytes, photos: Path, tmp_path: Path
) -> None:
    """Nothing is lost and nothing is there twice."""
    pictures = [str(path) for path in sorted(photos.iterdir())]
    for number in range(8):
        for path in pictures[:22]:
            pictures.append(f"{tmp_path}/{number}-{Path(path).name}")
            Path(pictures[-1]).write_bytes(Path(path).read_bytes())
    out = tmp_path / "out"
    out.mkdir()
    keys = []
    for key in explain_into(out, pictures, compiled, pool=Pool(block=8, actors=2)):
        keys.append(key)
        if len(keys) == 16:
            two_nodes.wait_for_work()
            two_nodes.kill()
    assert len(keys) == len(pictures), "the node's loss ended the run"
    stored = Counter(row.path for row in done_in(out))
    assert stored == Counter(pictures)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    own = [row for row in rows_in(out) if Path(row["path"]).parent == photos]
    assert_equal_to_explain(own, compiled, photos)


def test_no_cluster_answers(
    compiled: bytes, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise ConnectionError("Could not find a running Ray instance")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    rows = explain_into(tmp_path, [str(photos / "00.png")], compiled, address="nowhere:6379")
    with pytest.raises(LrpOnnxError, match="no Ray cluster answers at nowhere:6379"):
        next(iter(rows))


def test_an_error_of_ours_is_told_not_its_cause() -> None:
    text = (
        "ray::MapBatches()\nOSError: [Errno 28] No space left on device\n\nThe above exception was "
        "the direct cause of the following exception:\n\n"
        "lrp_onnx.errors.OutputError: a/part.parquet cannot be written: No space left on device"
    )
    told = str(_told(RuntimeError(text)))
    assert told == "a/part.parquet cannot be written: No space left on device"
    assert str(_told(RuntimeError("x\nOSError: no\n"))) == "an actor failed: OSError: no"


def test_a_batch_with_damaged_pictures_has_its_size(
    compiled: bytes, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes: list[int] = []
    run = Explainer.explain_images

    def counted(self: Explainer, sources: Any, **options: Any) -> Any:
        sizes.append(len(sources))
        return run(self, sources, **options)

    monkeypatch.setattr(Explainer, "explain_images", counted)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"")
    first, second = sorted(photos.iterdir())[:2]
    paths = [str(path) for path in (first, damaged, second)]
    rows = actor(tmp_path, compiled)(pa.table({"path": paths})).to_pylist()
    assert [row["path"] for row in rows] == paths and sizes == [3]
    assert [row["error"] is None for row in rows] == [True, False, True]
