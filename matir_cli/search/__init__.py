"""Searching a gallery: stage 1 ranks regions, stage 2 asks the judge."""
