"""Layer-wise relevance propagation; knows plans, not files."""
