"""Weight files as named tensors, read without running anything in them."""
