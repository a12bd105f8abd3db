"""Tests of indexing on a cluster; those that start Ray are in `check_ray`: `make test-ray`."""
