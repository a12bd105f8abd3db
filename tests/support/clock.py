"""A clock for tests that do not wait."""


class Clock:
    """Stands still until it is moved on."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        """What it shows."""

    def __call__(self) -> float:
        return self.seconds
