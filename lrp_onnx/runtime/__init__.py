"""Running compiled files. Only this package imports onnxruntime."""
