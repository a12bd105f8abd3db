"""Entry point of the console script `matir`.

Nothing is imported before the handlers of signals stand, as most of the time until a command begins is
spent importing.
"""

import os


def main() -> None:
    """Run the command line and end the process."""
    try:
        # Imported here, below the handler for Ctrl-C: first what sets the others, then everything else.
        from matir_cli.cli import signals

        signals.end_at_once()
        from matir_cli.cli.boundary import run
        from matir_cli.cli.group import matir

        run(matir)
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException:
        # A signal arrived while an error was being reported; any other error is a fault.
        if (code := signals.exit_code()) is None:
            raise
        os._exit(code)
