"""Checks for a machine with a CUDA GPU: `make gpu-check`; plain pytest only tests that they run."""
