"""Indexing on a Ray cluster: workers decode, propose and encode; this process walks, hashes and writes.

`dispatch` decides which worker gets which photo and what becomes of lost ones; it knows no Ray. `worker` runs
in the workers' processes, `ray_workers` starts these. Ray is imported only when the first new photo is met.
Used by the API and the command line.
"""
