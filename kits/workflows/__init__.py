"""Commands one after the other, each a process of its own, and none that is done and up to date run again.

`step`: one command and its process. `stamps`: what a finished step leaves, and whether it still holds. `running`: the two joined.
`command_line`: overrides as they are typed. `building`: the steps of a training and its evaluation. `two_stages` and `folds`:
the plans of kits.pipeline and kits.crossval.
"""
