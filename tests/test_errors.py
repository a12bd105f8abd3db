"""The package of errors: every class is imported from its top, and under one base."""

import importlib
import inspect

import pytest

from matir_cli import errors


@pytest.mark.parametrize("module", ["base", "gallery", "models", "inputs", "outputs", "server"])
def test_every_error_is_exported(module: str) -> None:
    source = importlib.import_module(f"matir_cli.errors.{module}")
    defined = [
        kind for _, kind in inspect.getmembers(source, inspect.isclass) if kind.__module__ == source.__name__
    ]
    assert defined
    for kind in defined:
        assert issubclass(kind, errors.MatirError)
        assert kind.__name__ in errors.__all__
        assert getattr(errors, kind.__name__) is kind


def test_facts_are_attributes() -> None:
    error = errors.OutOfRange("min_p", 3, 0, 1)
    assert (error.name, error.value, error.least, error.most) == ("min_p", 3, 0, 1)
    assert isinstance(error, ValueError)
