"""Peak memory of a process that only opens a model and runs it.

    python -m tools.benchmark.peak MODEL BATCH THREADS DEVICE

Prints megabytes: held with the session open, and held at most while it ran three times. Nothing
else is imported, so that the process is what a service would be.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np

from lrp_onnx.runtime.session import open_session


def held(what: str) -> float:
    """Megabytes that this process holds now (VmRSS) or has
    held at most (VmHWM, and always where Linux does not say).

    Not ru_maxrss: a process begins with its parent's.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(
        line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(what)
    )
    return int(line.split()[1]) / 1024


def main() -> None:
    file, batch, threads, device = sys.argv[1:5]
    session = open_session(Path(file), providers=device, threads=int(threads))
    value = session.runtime.get_inputs()[0]
    sizes = [int(batch) if not isinstance(size, int) else size for size in value.shape]
    x = np.random.default_rng(0).normal(size=sizes).astype(np.float32)
    ready = held("VmRSS")
    for _ in range(3):
        session.run(None, {value.name: x})
    print(ready, held("VmHWM"))


if __name__ == "__main__":
    main()
