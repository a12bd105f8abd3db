"""Constants on which the decoding process and the one that starts it agree."""

READY = b"ready\n"
"""Line that the worker writes first."""

LONGEST_LINES = 2000
"""Bytes of native libraries' messages that are looked at."""
