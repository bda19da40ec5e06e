"""``python -m lrp_onnx``, and ``lrp-onnx``."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line. Ctrl-C ends it without a traceback, even while it starts or ends."""
    _end_quietly()
    try:
        from lrp_onnx.cli.commands import main as command_line

        command_line()
    finally:
        _end_quietly()


def _end_quietly() -> None:
    """Let the system end the process at Ctrl-C, unless that is ignored (``nohup``, ``cmd &``)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
