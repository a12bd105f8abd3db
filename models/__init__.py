"""Model sets as TOML files, and the tiny set that ships with the package.

`lite.toml`, `full.toml` and `tiny.toml` name the files, engines and options of a set;
`matir_cli.model_sets` reads them. `tiny` holds the weights of the tiny set and the recipe that made
them. Importable as `matir_cli.models`.
"""
