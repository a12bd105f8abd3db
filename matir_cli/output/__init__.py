"""Output forms of search results: tables, JSON, masks, cut-outs, overlays, data sets, HTML and XMP sidecars.

There is one module per form; `result_pixels`, `picture_folder`, `drawing` and `outlines` are shared by
several. Nothing here prints: functions return lines or write files, and the command line decides where they
go. Text from untrusted sources (file names, EXIF, answers of the judge) is made harmless for its form:
escaped for terminals and HTML, ASCII-only in JSON, reduced to plain characters in names of new files.

Imports search results, the gallery, photo decoding and atomic writes. Used by the command line.
"""
