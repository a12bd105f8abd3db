"""Looking after a gallery: listing, removing, exporting, merging, compacting, checking."""
