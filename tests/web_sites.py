"""Sites of `lrp-onnx web` on a local server, which sends what their ``_headers`` say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import onnx

from lrp_onnx.compiler import compile_model

MODEL = Path(__file__).parents[1] / "models" / "shapes-resnet.onnx"
TYPES = {".mjs": "text/javascript", ".wasm": "application/wasm"}


def with_batch(size: int, path: Path) -> Path:
    """The embedded model, compiled for browsers and then for batches of one size, saved."""
    model = compile_model(MODEL, optimize_for="web").model
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    onnx.save(model, path)
    return path


def headers_in(folder: Path) -> dict[str, str]:
    """The headers of every file, of a site's ``_headers``."""
    path, *lines = (folder / "_headers").read_text(encoding="utf-8").splitlines()
    assert path == "/*"
    return dict(line.strip().split(": ", maxsplit=1) for line in lines)


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, sent: dict[str, str], **options: Any) -> None:
        self.sent = sent
        super().__init__(*arguments, **options)

    def guess_type(self, path: Any) -> str:
        return TYPES.get(Path(str(path)).suffix) or super().guess_type(path)

    def end_headers(self) -> None:
        for name, value in self.sent.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def served(folder: Path, *, with_headers: bool = True) -> Iterator[str]:
    """The address of a site; without headers as plain hosts, such as GitHub Pages, serve it."""
    sent = headers_in(folder) if with_headers else {}
    handler = partial(_Handler, sent=sent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
