"""The loggers of a training, and the callbacks that measure and draw.

`kits.training` uses them.
"""

from kits.tracking.loggers import build_loggers
from kits.tracking.steps import StepMonitor
from kits.tracking.validation_cases import CaseMonitor

__all__ = ["CaseMonitor", "StepMonitor", "build_loggers"]
