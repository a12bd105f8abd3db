"""Looking after a gallery: what is in it, keeping it as the folders are, taking out, carrying over."""
