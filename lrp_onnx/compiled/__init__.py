"""The compiled model: node order, memory estimate, checks and the conservation ledger."""
