"""The offline stage: photos become regions, vectors and rows of a gallery."""
