"""The tiny model set: its weights, its drawn world, and its training recipe.

`world`, `shapes`, `grammar`, `questions` and `benchmark` are the drawn world: pictures, queries and
their answers from seeds. `train` and the modules it calls train the three models; they need the extra
`train`. May import the engines and what lies below them; used by `matir demo`, by the evaluation's
data set `world` and by tests. Seeded: a change of one random draw changes the benchmark.
"""
