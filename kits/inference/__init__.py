"""Masks from HU arrays, by networks in memory that does not grow with what is read.

Prediction and rooms above call it. A network takes a window (1, 1, D, H, W) of intensities in [-1, 1] and gives logits (1, C, D,
H, W).
"""
