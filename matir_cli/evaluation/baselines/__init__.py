"""The CLIP baselines of the paper's tables.

`clip` defines how each baseline turns a photo into vectors, `k_means` clusters vectors, and
`retrieval` scores all photos with every baseline and encoder. Imports the engines, the gallery and
the evaluation's methods and metrics; `evaluation.run` and `evaluation.reporting` use it.
"""
