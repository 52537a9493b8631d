"""Commands one after the other, each a process of its own, and none that is up to date run again.

`step`: one command, its record and its process. `plan`: the steps around trainings. `two_stages` and `folds`: the plans of
kits.pipeline and kits.crossval. Commands and benches may call it.
"""
