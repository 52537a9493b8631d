"""Two-stage segmentation of kidneys and kidney tumors in CT: coarse on the whole volume, fine on the regions of interest."""

__version__ = "0.1.0"
