"""Command-line options that several commands share.

Each decorator adds its options to a command and hands it one typed, frozen value. May import the
packages whose options are set (search, gallery, model sets) and `cli.boundary`; the commands use it.
"""
