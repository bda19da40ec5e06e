"""Post-processing of heatmaps as operators: what `maps` computes, inside the compiled file."""
