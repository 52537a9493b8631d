"""The clinical read-out of a label map: what a urologist would measure by hand.

Commands and pages may call `read_out`.
"""

from kits.readout.kidney_measurement import read_out
from kits.readout.readings import CaseReading, KidneyReading, TumorReading

__all__ = ["CaseReading", "KidneyReading", "TumorReading", "read_out"]
