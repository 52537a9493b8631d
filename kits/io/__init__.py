"""Files to volumes and back: NIfTI, NRRD, MetaImage and DICOM series in, label maps out.

Any room above may import it; every file is written atomically. ITK reads a truncated or damaged file without complaint and fills
the rest with what it has. So it is asked for the header only, and the voxels are read here (`kits.io.stored`): once, checked to
the last byte, into the memory they stay in.
"""

from kits.io.reading import check_file, read_geometry, read_labels, read_probabilities, read_series, read_volume
from kits.io.writing import make_folder, whole_file, whole_folder, write_json, write_labels, write_text, write_volume

__all__ = [
    "check_file",
    "make_folder",
    "read_geometry",
    "read_labels",
    "read_probabilities",
    "read_series",
    "read_volume",
    "whole_file",
    "whole_folder",
    "write_json",
    "write_labels",
    "write_text",
    "write_volume",
]
