"""The gallery: one SQLite file."""
