"""The compiled file: its order, its memory, and the proof that it is right."""
