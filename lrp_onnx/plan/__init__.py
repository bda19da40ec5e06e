"""The plan: the recognised layers of a model as frozen data. `model` makes it; `relevance` uses it."""
