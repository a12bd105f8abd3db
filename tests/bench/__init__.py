"""Benches: each measures one part beside a peer or the plain way.

Both sides are measured in the same run. `python -m tests.bench` runs all benches, with `--quick` at
the smallest sizes, as the test suite does. The heading of a bench says which data it measured and how
far that is like what users have. The benches share `measuring`; only `test_bench` uses them.
"""
