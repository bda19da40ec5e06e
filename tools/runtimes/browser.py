"""A compiled file in a headless Chromium, on a page that a local server gives out."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tools.runtimes.environments import browser
from tools.runtimes.errors import CannotRunError

SECONDS = 600
"""Longest time that a page may take."""
PAGE = Path(__file__).parent / "runners" / "page.html"
SCRIPT = Path(__file__).parent / "runners" / "exchange.mjs"


class _Handler(SimpleHTTPRequestHandler):
    """Files under fixed addresses, and a place to send the answer to."""

    def __init__(
        self, *arguments: Any, files: dict[str, Path], inbox: list[bytes], ready: Any
    ) -> None:
        self.files, self.inbox, self.ready = files, inbox, ready
        super().__init__(*arguments)

    def translate_path(self, path: str) -> str:
        name = path.split("?", maxsplit=1)[0].lstrip("/")
        if name.startswith("ort/"):
            return str(self.files["ort"] / Path(name).name)
        return str(self.files.get(name, Path("/nonexistent")))

    def do_POST(self) -> None:
        self.inbox.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.ready.set()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def run_in_browser(
    folder: Path, model: Path, request: Path, *, screenshot: Path | None = None
) -> dict[str, Any]:
    """The answer of onnxruntime-web's wasm in a headless Chromium, in exchange.py's form.

    Args:
        folder: where `node_modules` has onnxruntime-web.
        model: a compiled file.
        request: a request's file.
        screenshot: where a picture of the page goes.

    Raises:
        UnavailableError: there is no Chromium.
        CannotRunError: the page did not answer, or answered with an error.
    """
    program = browser()
    package = folder / "node_modules" / "onnxruntime-web"
    files = {
        "page.html": PAGE,
        "exchange.mjs": SCRIPT,
        "ort": package / "dist",
        "model.onnx": model,
        "request.json": request,
    }
    inbox: list[bytes] = []
    ready = threading.Event()
    handler = partial(_Handler, files=files, inbox=inbox, ready=ready)
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        tempfile.TemporaryDirectory() as profile,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/page.html"
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        if screenshot is not None:
            # The page's virtual time ends when it has drawn its answer.
            options += [f"--screenshot={screenshot}", "--virtual-time-budget=600000"]
        options += ["--window-size=900,520", "--remote-debugging-port=0"] if not screenshot else []
        process = subprocess.Popen(
            [program, *options, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            answered = ready.wait(SECONDS)
            if screenshot is not None:
                process.wait(60)
        finally:
            process.terminate()
            process.wait(30)
            server.shutdown()
    if not answered:
        raise CannotRunError(f"the page did not answer within {SECONDS} s")
    data: dict[str, Any] = json.loads(inbox[0])
    if "error" in data:
        raise CannotRunError(data["error"])
    data["version"] = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    return data
