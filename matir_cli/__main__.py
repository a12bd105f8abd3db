"""Entry point of `python -m matir_cli`."""

from matir_cli.cli.main import main

main()
