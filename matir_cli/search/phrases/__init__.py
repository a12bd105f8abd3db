"""Phrases: English descriptions of objects, split at their relations and negations.

`parser.parse_phrase` makes a `description.Description` of a query's text; the words that it knows are the
tables of `grammar`. Imports nothing of the package. Used by `search` to score the parts of a description,
and by `matir parse` to show them.
"""
