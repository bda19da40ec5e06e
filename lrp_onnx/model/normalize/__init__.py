"""Normalisation: passes, each graph → graph, that bring the graphs of all exporters to one form."""
