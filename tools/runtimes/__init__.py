"""Compiled files on the runtimes themselves, each in an environment of its own."""
