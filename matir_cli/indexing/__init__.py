"""Indexing: photo files become regions, vectors and previews in a gallery.

The offline stage of the paper (`pipeline`), its threads (`prefetch`), and `matir sync`.
May import `photos`, `gallery`, `search.index` and the engines' protocols; loads no engine
itself and contains no SQL. Used by the API, the evaluation and the command line.
"""
