"""What a training tells about itself: its loggers, and the callbacks that measure and draw."""

from kits.tracking.loggers import build_loggers
from kits.tracking.steps import StepMonitor
from kits.tracking.validation_cases import CaseMonitor

__all__ = ["CaseMonitor", "StepMonitor", "build_loggers"]
