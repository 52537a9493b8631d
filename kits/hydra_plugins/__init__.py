"""Hydra's plugins for `kits.train -m`: a launcher of processes, and a sweeper that prunes.

Hydra alone calls them: conf/hydra/ names them, conf/train.yaml chooses the launcher.
"""
