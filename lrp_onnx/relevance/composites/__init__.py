"""Composites: named lists of rules, and how steps get theirs."""
