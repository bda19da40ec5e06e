"""The ends of a model: its picture input, and the tensor that relevance starts from."""
