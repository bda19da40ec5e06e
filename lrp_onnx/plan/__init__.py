"""The plan: a model's recognised layers as frozen data. `model` makes it; `relevance` uses it."""
