"""Photo files become pixels."""
