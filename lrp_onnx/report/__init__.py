"""Pictures of relevance maps and curves: colours, overlays, sheets, plots."""
