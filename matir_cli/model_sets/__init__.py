"""Model sets: which models work together, and where their files are."""
