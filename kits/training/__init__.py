"""Trainings: both LightningModules, their data module, losses, optimizers and the trainer.

`kits.train` and the workflows call it.
"""
