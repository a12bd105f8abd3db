"""Maintenance of a gallery: list, show, remove, export, merge, compact, check.

Each module is the logic of one command (`merge_source` and `doctor/` belong to `merge` and
`doctor`) and yields records; printing is left to the command line.
May import `model_sets`, `search`, `gallery`, `photos` and below; a peer of `output`, which it does
not import. Used by the API and the command line.
"""
