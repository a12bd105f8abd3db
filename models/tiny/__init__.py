"""The tiny model set: its drawn world, its recipe and its weights."""
