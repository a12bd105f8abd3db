"""Model sets as TOML files, and the tiny set with its recipe."""
