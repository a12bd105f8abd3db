"""What results become: one file a form. Nothing here prints: the commands do.

What comes from a stranger (file names, EXIF, the judge's words) is made harmless for where it
goes: escapes for terminals and pages, ASCII-only JSON, file names that stay in their folder.
"""
