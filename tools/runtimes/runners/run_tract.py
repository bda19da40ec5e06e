"""Runs a file on tract; the shapes of the inputs are fixed before it is optimised."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import tract

from tools.runtimes.runners.exchange import Arrays, Run, serve

TYPES = {"float32": "f32", "int64": "i64"}


def load(model: str, runs: list[Any], options: Mapping[str, Any]) -> tuple[str, Run]:
    network = tract.onnx().load(model)
    inputs = [network.input_name(index) for index in range(network.input_count())]
    outputs = options["outputs"]  # in the file's order; tract calls them after their nodes
    for index, name in enumerate(inputs):
        array = runs[0][name]
        sizes = ",".join(map(str, array.shape))
        network.set_input_fact(index, f"{sizes},{TYPES[str(array.dtype)]}")
    runnable = network.into_model().into_runnable()

    def run(feeds: Arrays) -> Arrays:
        found = runnable.run([feeds[name] for name in inputs])
        return {name: value.to_numpy() for name, value in zip(outputs, found, strict=True)}

    return version("tract"), run


if __name__ == "__main__":
    serve(load)
