"""lrp-onnx: compile a classifier's ONNX file into one that also explains itself."""

__version__ = "0.1.0"
