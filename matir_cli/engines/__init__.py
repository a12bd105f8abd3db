"""The models, one package per family; each engine knows its model and nothing else does."""
