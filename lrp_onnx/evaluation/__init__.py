"""Evaluation of relevance maps: methods, metrics and their results on photos."""
