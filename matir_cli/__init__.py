"""MaTIR CLI: find photos by describing an object in them, and get the object's mask."""
