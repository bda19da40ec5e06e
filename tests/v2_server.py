"""A server of the Open Inference Protocol ("V2") over HTTP, in small: it runs the model NAME of a
repository for ``POST /v2/models/NAME/infer``, as Triton, KServe and OpenVINO Model Server do.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

TYPES = {"FP32": np.float32, "FP16": np.float16, "INT64": np.int64, "UINT8": np.uint8}
NAMES = {np.dtype(dtype): name for name, dtype in TYPES.items()}


def infer(file: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request. An axis that the model does not have is dropped, as Triton's
    reshape does.
    """
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    ranks = {value.name: len(value.shape) for value in session.get_inputs()}
    feeds = {}
    for one in request["inputs"]:
        values = np.array(one["data"], TYPES[one["datatype"]]).reshape(one["shape"])
        feeds[one["name"]] = values.reshape(values.shape[: ranks[one["name"]]])
    names = [one["name"] for one in request.get("outputs", [])]
    names = names or [value.name for value in session.get_outputs()]
    outputs = [
        {
            "name": name,
            "datatype": NAMES[values.dtype],
            "shape": list(values.shape),
            "data": values.ravel().tolist(),
        }
        for name, values in zip(names, session.run(names, feeds), strict=True)
    ]
    return {"model_name": file.parents[1].name, "model_version": "1", "outputs": outputs}


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, *arguments: Any, repository: Path) -> None:
        self.repository = repository
        super().__init__(*arguments)

    def do_POST(self) -> None:
        _, version, models, name, verb = self.path.split("/")
        assert (version, models, verb) == ("v2", "models", "infer")
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = json.dumps(infer(self.repository / name / "1" / "model.onnx", request)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def serving(repository: Path) -> Iterator[str]:
    """The address, host and port, at which a repository's models are served."""
    handler = partial(_Handler, repository=repository)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
