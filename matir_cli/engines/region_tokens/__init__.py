"""Region tokens: one pass of a frozen image-text model per photo, pooled by each mask (TextRegion).

`pooling` has the method, `towers` the image towers that it works with, `encoder` both for a photo; `text`
runs without torch where the checkpoint allows it. May import `clip`, `siglip`, `tensors` and the modules at
the root of `engines`; loaded by the registry alone.
"""
