"""Fuzz campaigns: seeded random inputs against parsers, galleries, models and whole processes (`make fuzz`).

Each campaign is a module `fuzz_NAME.py` with a trial, run as a process of its own. `make test` runs a
few trials of each.
"""
