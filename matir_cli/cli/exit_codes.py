"""Exit codes of the commands."""

DONE = 0
"""The command did what it was asked to do."""

NOTHING_FOUND = 1
"""A search found no photo, or a gallery holds none of the photos named."""

PROBLEMS = 1
"""`matir doctor` found at least one problem, or `matir models try` a part that does not work."""

ERROR = 2
"""The command could not be carried out; the reason is on standard error."""

SKIPPED = 3
"""Done, except for some files or photos that were skipped and reported."""

INTERRUPTED = 130
"""Stopped by Ctrl-C, as a shell reports it: 128 + SIGINT. SIGTERM gives 143, SIGHUP 129."""
