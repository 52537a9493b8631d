"""What a training tells about itself: its loggers, and the callbacks that measure and draw."""

from kits.tracking.loggers import RunLog, build_loggers, build_monitors
from kits.tracking.steps import StepMonitor
from kits.tracking.validation_cases import CaseMonitor

__all__ = ["CaseMonitor", "RunLog", "StepMonitor", "build_loggers", "build_monitors"]
