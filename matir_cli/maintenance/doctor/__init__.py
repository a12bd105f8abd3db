"""`matir doctor`: checks of the installation and of a gallery."""
