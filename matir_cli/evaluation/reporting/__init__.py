"""Tables and report files."""
