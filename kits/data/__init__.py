"""Cases on disk and in memory: the phantom, the case index, validation, cache and data sets (never a network)."""
