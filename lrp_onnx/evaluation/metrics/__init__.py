"""Metrics: pure functions of maps, masks and curves, without ONNX or a runtime."""
