"""`matir doctor`: checks of the installation, the models and a gallery.

`installation` runs all checks, `integrity` those of a gallery file; both yield `findings`, each with
a remedy. Nothing is changed by a check. Used by the command line only.
"""
