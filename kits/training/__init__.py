"""Trainings: the LightningModules of both stages, their data module, losses, optimizers, callbacks and the trainer."""
