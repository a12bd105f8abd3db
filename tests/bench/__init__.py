"""Benches: each measures one part beside its peer or the plain way, in the same run.

`python -m tests.bench` runs them all, `--quick` at the smallest sizes; the test suite does the
latter. A bench says in its heading which data it measured and how far that is like what users
have. The benches share `measuring`; nothing imports them but `test_bench`.
"""
