"""``python -m lrp_onnx``."""

from lrp_onnx.cli.commands import main

main()
