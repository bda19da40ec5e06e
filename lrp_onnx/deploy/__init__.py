"""Compiled files where people use them: a page in the browser."""
