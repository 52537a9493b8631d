"""Painted CT, from label maps to HU, for kits.phantom; numpy and scipy only, never a network."""
