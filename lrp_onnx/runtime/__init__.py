"""Running compiled files; the only importer of onnxruntime."""
