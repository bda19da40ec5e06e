"""The guide `serving`: what its clients get is what `explain` says, by each library."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import relative
from numpy.typing import NDArray
from pages import blocks_of, run
from triton_server import TYPES, Served, fits, type_of

import lrp_onnx

NEAR = 1e-5
OPENVINO_NEAR = 1e-4
"""OpenVINO sums in other orders; the guide `runtimes` has 1e-6 for this composite."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The folder in which the guide was run, and the names that it defined."""
    folder = tmp_path_factory.mktemp("serving")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return SimpleNamespace(folder=folder, names=run("serving", folder))


def block_with(text: str) -> str:
    """The Python block of the guide that has a text."""
    (found,) = [b.text for b in blocks_of("serving") if b.language == "python" and text in b.text]
    return found


def maps(page: SimpleNamespace) -> NDArray[Any]:
    """What `explain` says of the guide's photo: of the predicted class, and of class 3."""
    model, photo = page.folder / "model.onnx", page.folder / "photo.jpg"
    found = [lrp_onnx.explain(model, photo, target=target) for target in (None, 3)]
    assert found[0].target != 3
    return np.stack([one.heatmap for one in found])


def needs(library: str) -> Any:
    return pytest.mark.skipif(
        importlib.util.find_spec(library) is None,
        reason=f"{library} is missing: pip install -e '.[servers-tests]'",
    )


def test_a_client_gets_what_explain_says(page: SimpleNamespace) -> None:
    assert relative(page.names["found"]["heatmap"], maps(page)) < NEAR
    assert page.names["found"]["heatmap"].shape == (2, 96, 96)


@contextmanager
def grpc_server(repository: Path) -> Iterator[str]:
    """The address of a server of Triton's gRPC protocol, which runs a repository's models as their
    configs declare.
    """
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
            served = Served(repository, request.model_name)
            declared = {one.name: one for one in served.config.input}
            given = {
                one.name: np.frombuffer(data, type_of(declared[one.name])[1]).reshape(one.shape)
                for one, data in zip(request.inputs, request.raw_input_contents, strict=True)
            }
            names = {np.dtype(dtype): name for name, (_, dtype) in TYPES.items()}
            (found,) = served.infer([given])
            reply = service_pb2.ModelInferResponse(model_name=request.model_name)
            for name, values in found.items():
                datatype = names[values.dtype].removeprefix("TYPE_")
                reply.outputs.add(name=name, datatype=datatype, shape=values.shape)
                reply.raw_output_contents.append(values.tobytes())
            return reply

    server = grpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@needs("tritonclient")
def test_tritons_client_gets_what_explain_says(page: SimpleNamespace) -> None:
    names = dict(page.names)
    with grpc_server(page.folder / "repository") as address:
        exec(block_with("tritonclient").replace("localhost:8001", address), names)
        names["client"].close()
    assert relative(names["heatmap"], maps(page)) < NEAR


@needs("openvino")
def test_openvino_computes_what_explain_says(
    page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(page.folder)
    names = dict(page.names)
    exec(block_with("import openvino"), names)
    assert names["config"]["name"] == "model"
    assert relative(names["heatmap"], maps(page)) < OPENVINO_NEAR
    # The server tells clients these names and shapes, and takes any number of pictures.
    inputs = {one.any_name: one.partial_shape for one in names["model"].inputs}
    assert set(inputs) == {"input", "target"}
    assert all(shape[0].is_dynamic for shape in inputs.values())


@needs("mlflow")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_logs_loads_and_explains(
    page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(page.folder)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((page.folder / "mlruns").as_uri())
    names = dict(page.names)
    exec(block_with("import mlflow"), names)
    assert relative(names["heatmap"], maps(page)) < NEAR
    logged = mlflow.models.get_model_info(names["logged"].model_uri)
    assert logged.metadata == {"composite": "residual-c3"}
    assert set(logged.flavors) == {"onnx", "python_function"}


def test_fits_is_exact() -> None:
    """The server in small refuses what differs in one size."""
    assert fits((2, 3), (-1, 3)) and not fits((2, 3), (-1, 4)) and not fits((2,), (2, 1))
