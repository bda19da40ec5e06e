"""From any exporter's graph to one form: an ordered list of passes, each graph → graph."""
