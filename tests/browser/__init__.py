"""Tests that need a browser; run by name only."""
