"""The command line: one file a command."""

import os

# OpenBLAS's threads spin while they wait for each other. Encoding a query on two busy cores took 2.9 s of
# processor time with two threads and 0.8 s with one; on idle cores a second thread gains little. It has
# to be said before numpy is imported; whoever sets the variable knows better.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
