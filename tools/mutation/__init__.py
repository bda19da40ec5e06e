"""Mutations of the package's own source: which of them the tests find."""
