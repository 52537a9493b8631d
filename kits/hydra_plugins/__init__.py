"""Plugins of Hydra for `kits.train -m`: a launcher that starts a process for each trial, and a sweeper that searches and prunes.

Hydra alone calls them: conf/hydra/ names them, conf/train.yaml chooses the launcher.
"""
