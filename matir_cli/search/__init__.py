"""Searching a gallery in two stages: vectors rank photos, then a judge reranks and grounds the best.

`pipeline.run_search` runs both; `pipeline.search_events` yields what is known as it comes (`events`).
Stage 1 is `query` (from a query to vectors; `phrases` splits descriptions), `index`, `sign_codes`,
`quantisation` and `upper_bounds` (stored vectors) and `rank`; `filters` restricts it.
Stage 2 is `rerank` (True or False per photo), `grounding` and `box_matching` (from the judge's box to a
stored mask).

Imports the gallery, the engines' protocols and photo decoding; the models are passed in (`models`).
Used by indexing (to store vectors), outputs, maintenance, evaluation, the Python API and the command line.
"""
