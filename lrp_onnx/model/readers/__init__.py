"""Readers of operators: node → kind of layer."""
