"""Trial of a model set: its real files, on drawn pictures whose objects are known.

`pictures` are the records, `shapes` and `drawn_world` draw them, `worlds` chooses between the two.
`proposer`, `encoder` and `judge` each measure one part, compare it with what a working one gives, and
name the likely reason of a failure; `run` loads a set's parts and calls them. May import `catalogue`,
`session`, the engines and the drawn world of the tiny models; used by `matir models try`.
"""
