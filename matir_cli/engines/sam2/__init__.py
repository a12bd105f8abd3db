"""The region proposer: SAM 2, as a grid of point prompts, a box or a point.

`proposer` is the engine, `adaptive` chooses some of the grid's points, `decoder` is a faster mask decoder
for many prompts, `model` builds and loads the network, `options` is free of torch. May import `tensors`
and the modules at the root of `engines`; loaded by the registry alone.
"""
