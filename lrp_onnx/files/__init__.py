"""Files: reading untrusted model files, and writing files atomically."""
