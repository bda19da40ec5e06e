"""Pictures for people: colours, overlays, sheets, curves."""
