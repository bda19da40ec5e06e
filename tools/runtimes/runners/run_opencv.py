"""Runs a file on OpenCV's DNN module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2

from tools.runtimes.runners.exchange import Arrays, Run, serve


def load(model: str, runs: list[Any], options: Mapping[str, Any]) -> tuple[str, Run]:
    network = cv2.dnn.readNetFromONNX(model)
    names = options["outputs"]

    def run(feeds: Arrays) -> Arrays:
        for name, array in feeds.items():
            network.setInput(array, name)
        return dict(zip(names, network.forward(names), strict=True))

    return str(cv2.__version__), run


if __name__ == "__main__":
    serve(load)
