"""Layers as rules see them: forward and vector-Jacobian product."""
