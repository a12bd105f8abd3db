"""One module per command of `matir`, each imported only when its command is used.

A command parses its arguments, calls a pipeline of another package and prints the results. Commands
may import everything below `cli.group`, but not each other; only the demo runs `add` and `find`.
"""
