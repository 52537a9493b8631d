"""Painted CT: from label maps, drawn or real, to HU.

Called by kits.phantom; numpy and scipy only, never a network.
"""
