"""CLIP and Alpha-CLIP as text, region and image encoders."""
