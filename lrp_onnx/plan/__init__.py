"""The plan: what was recognised in a model, as frozen data; where `model` and `relevance` meet."""
