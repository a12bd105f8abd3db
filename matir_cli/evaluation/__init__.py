"""Evaluation of retrieval and segmentation: `matir eval`.

`pipeline` reads a data set, indexes its images, runs the method, its ablations and the CLIP
baselines, and reports the paper's four tables. Data sets are read in `datasets`, baselines run in
`baselines`, tables and files are written in `reporting`. Imports everything below the command
line but the Python API; only the command line imports it.
"""
