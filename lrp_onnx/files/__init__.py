"""Files: reading models from untrusted ones, writing so that nothing is lost."""
