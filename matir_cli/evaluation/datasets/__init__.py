"""Data sets: COCO, D3 and the drawn world."""
