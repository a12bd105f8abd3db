"""The gallery: one SQLite file that holds photos, masks, vectors and verdicts.

The schema, its rows as checked records, the files a gallery knows, cached verdicts, and the
separate file of evaluation scores. Search and maintenance write their own SQL on top of this.
May import `photos`, `masks`, `records` and `errors`; knows no engine and no model.
Used by every package above it, from `search` to the command line.
"""
