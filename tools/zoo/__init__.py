"""Recipes of the model zoo: thin networks, written by the exporters that people use."""
