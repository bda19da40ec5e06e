"""ONNX files and graphs; knows nothing of relevance."""
