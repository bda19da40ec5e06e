"""Pure metrics of maps and curves."""
