"""Pictures of cases: a page of many, slices with outlines, and surfaces.

Slices and surfaces come as Figures. Commands and rooms above call it. Orientation is the radiologist's: axial planes from below,
the patient's right on the left of the picture; all to scale in mm.
"""

from kits.reporting.page import Entry, entry_of, missing_entry, write_page
from kits.reporting.rendering import surface_figure
from kits.reporting.run_notes import RunNotes, read_notes
from kits.reporting.scene import Scene, save
from kits.reporting.slices import slices_figure

__all__ = [
    "Entry",
    "RunNotes",
    "Scene",
    "entry_of",
    "missing_entry",
    "read_notes",
    "save",
    "slices_figure",
    "surface_figure",
    "write_page",
]
