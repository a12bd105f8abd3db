"""The base class of all errors that MaTIR raises."""


class MatirError(Exception):
    """Base class of all errors that are raised on purpose."""
