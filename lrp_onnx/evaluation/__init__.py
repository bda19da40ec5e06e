"""Judging relevance maps: pure metrics that take maps, masks and a `predict`, and know neither ONNX
nor a runtime.
"""
