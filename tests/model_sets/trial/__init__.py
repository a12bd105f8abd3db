"""Tests of the trial of model sets."""
