"""Tests, in the same folders as the package: each module mirrors one of it."""
