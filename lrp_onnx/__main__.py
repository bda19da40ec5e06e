"""``python -m lrp_onnx``."""

from lrp_onnx.cli import main

main()
