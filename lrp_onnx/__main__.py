"""``python -m lrp_onnx``, and ``lrp-onnx``."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command line. Ctrl-C ends it without a traceback, even while it starts or ends."""
    _end_quietly()
    _occupy()
    try:
        from lrp_onnx.cli.commands import main as command_line

        command_line()
    except SystemExit as ended:
        # Ray's libraries sometimes abort while the process ends, when all is written and told.
        if "ray" in sys.modules and isinstance(ended.code, int):
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            os._exit(ended.code)
        raise
    finally:
        _end_quietly()


def _occupy() -> None:
    """Let no other file have the number of a standard stream that is closed, where libraries write,
    and let errors go nowhere where standard error is closed: Ray does not start without it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(number, True)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _end_quietly() -> None:
    """Let the system end the process at Ctrl-C, unless that is ignored (``nohup``, ``cmd &``)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
