"""Photo files: finding them, and decoding them into pixels and EXIF fields.

Every file is treated as a stranger's: formats, sizes and decoder errors are bounded here.
May import `records` and `errors` only; knows no gallery, no database and no model.
Used by `gallery`, `indexing`, `maintenance`, `output`, `evaluation` and the command line.
"""
