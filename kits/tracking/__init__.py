"""The loggers of a training, and the callbacks that measure and draw.

`kits.training` uses them.
"""
