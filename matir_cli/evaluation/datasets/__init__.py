"""Data sets: images, queries and ground-truth masks.

One reader per format (`coco`, `d3`, `drawn_world`) returns a `dataset.Dataset`; every reader checks
what it reads, since the files come from others. `source` says how each data set of the command is
read. Imports masks, records and errors, and the drawn world of the tiny models; all of `evaluation` uses it.
"""
