"""The command line: parse arguments, call a pipeline, print.

`main` is the entry point, `commands` has one module per command, `options` what several of them
share. May import every other package; nothing but `__main__` and the manual's generator imports it.
Only this package prints and sets exit codes: data on stdout, messages on stderr.
"""

import os

# Threads of OpenBLAS spin while they wait for each other: encoding a query on two busy cores took 2.9 s of
# processor time with two threads, and 0.8 s with one. On idle cores a second thread gains little. The
# variable must be set before numpy is imported; a value set by the user is kept.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Threads of libgomp, with which torch and llama.cpp wait, spin for milliseconds: with another program on one
# of two cores, `matir add` of 40 drawn pictures took 100 s, and 16 s where they sleep sooner. On idle cores
# they took 9 and 10 s. Read when the library is loaded; what the user sets is kept.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
