"""Tables and report files of an evaluation.

`tables` arranges average precisions as the paper's four tables beside the figures in `paper`,
`provenance` describes the models, settings and versions, and `reports` writes Markdown, JSON and
CSV. Imports the rest of `evaluation`; `evaluation.pipeline` uses it.
"""
