"""`matir eval`: data sets, baselines, metrics and tables, one file each."""
