"""Many trainings as one study: each trial is a process of its own with a run folder of its own.

A process for each trial, because only then does one that runs out of memory leave the others alone, give all of its memory back,
and start the ranks of its own DDP; in one process every rank would run the whole sweep again.
"""
