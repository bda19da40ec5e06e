"""Bound runs: the same values as plain ones, the caller's own, and faults in our words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import picture, resnet

from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import ModelFileError
from lrp_onnx.runtime.bound import Bound
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.session import Session, Tuning, open_session

Save = Callable[[onnx.ModelProto], Path]


@pytest.fixture
def session(saved: Save) -> Session:
    return open_session(
        compile_model(saved(resnet(size=(32, 32)))).model.SerializeToString(), providers="cpu"
    )


def test_the_same_values_and_they_stay(session: Session) -> None:
    feeds = [
        {"x": picture(resnet(size=(32, 32)), seed=seed), "target": np.array([seed, 3])}
        for seed in range(4)
    ]
    bound = Bound(session, feeds[0])
    found = [bound.run(f) for f in feeds]
    for one, f in zip(found, feeds, strict=True):
        expected = session.run(None, f)
        assert set(one) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(one[name], value)
    assert set(Bound(session, feeds[0], ["heatmap"]).run(feeds[1])) == {"heatmap"}


def test_other_shapes_types_and_inputs_do_not_fit(session: Session) -> None:
    x = picture(resnet(size=(32, 32)))
    bound = Bound(session, {"x": x})
    assert bound.fits({"x": x + 1})
    for other in ({"x": x[:1]}, {"x": x.astype(np.float64)}, {"x": x, "target": np.array([1])}):
        assert not bound.fits(other)
        with pytest.raises(ValueError, match="runs were bound to"):
            bound.run(other)


def test_faults_in_our_words(session: Session) -> None:
    x = np.zeros((1, 3, 5, 5), np.float32)
    with pytest.raises(ModelFileError, match="ONNX Runtime failed on this model and this input"):
        Bound(session, {"x": x}).run({"x": x})


@pytest.mark.parametrize("tuning", [Tuning(spinning=False), Tuning(arena=False)])
def test_tuning_does_not_change_results(tuning: Tuning, saved: Save) -> None:
    model = compile_model(saved(resnet(size=(32, 32)))).model.SerializeToString()
    x = picture(resnet(size=(32, 32)))
    plain, tuned = (
        Explainer(model, providers="cpu", tuning=t).explain(x) for t in (Tuning(), tuning)
    )
    np.testing.assert_array_equal(plain["heatmap"], tuned["heatmap"])


def test_an_explainer_takes_batches_of_every_size(saved: Save) -> None:
    explainer = Explainer(
        compile_model(saved(resnet(size=(32, 32)))).model.SerializeToString(), providers="cpu"
    )
    x = picture(resnet(size=(32, 32)), batch=5)
    whole = explainer.explain(x)["heatmap"]
    parts = [explainer.explain(x[a:b])["heatmap"] for a, b in ((0, 2), (2, 4), (4, 5))]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5 * np.abs(whole).max())
