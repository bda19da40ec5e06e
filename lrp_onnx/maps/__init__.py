"""Pure functions on relevance maps of shape (H, W)."""
