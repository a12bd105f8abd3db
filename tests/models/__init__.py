"""Tests of the tiny model set: its world, its training recipe and its quality."""
