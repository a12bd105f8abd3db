"""Model sets: which models work together, their files, and loading them.

The catalogue of TOML files, the weights on disk with their hashes, fetching them (`pull`, `http`),
and the session that loads a set's engines when they are first used. Contains no SQL.
May import `gallery`, `engines` and below; used by `maintenance`, `evaluation` and the command line.
"""
