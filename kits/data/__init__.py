"""Cases on disk and in memory: layouts, validation, cache, splits and data sets.

Never a network; rooms above may import it.
"""
