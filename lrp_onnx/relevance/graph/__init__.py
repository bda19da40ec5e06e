"""The graph that is being built: values, nodes, factored relevance, choices of operators."""
