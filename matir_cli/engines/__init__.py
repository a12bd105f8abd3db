"""One file an engine; each knows one family of models, and imports its libraries only when loaded."""
