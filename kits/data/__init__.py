"""Cases on disk and in memory: layouts, validation, cache, splits and data sets; never a network."""
