"""A run: its folder, random state, place to go on from after an interruption, and manifest.

`kits.training` and the workflows use it. A training that is killed at any moment and resumed ends, on a CPU, with the same
weights bit by bit as one that never was. Four things make that so. Patches are a function of the seed and their position alone.
`last.ckpt` is written only where nothing is half done: before an epoch, a step or a validation. It holds everything that the rest
of the training depends on, the random numbers of torch, numpy and Python included. And it is complete under its name, whenever
the process dies.
"""
