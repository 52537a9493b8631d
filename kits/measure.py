"""`python -m kits.measure input=LABELS|FOLDER|TREE [image=CT] output=DIR`: surgeons' numbers.

With `coarse=CKPT fine=CKPT` the input is CT, as kits.predict takes it: label maps are predicted first, into `predictions/`.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Measure


@command("measure")
def main(options: "Measure") -> None:
    """Write measurements.csv (by tumor), kidneys.csv (by side), and measurements.json with definitions."""
    from kits.readout.measuring import measure_maps

    measure_maps(options)


class _CallableModule(ModuleType):
    """A module that is called: `kits.measure(...)` is the function of the package.

    Even where somebody has imported this module, whose name is the same.
    """

    def __call__(self, labels: Any, volume: Any = None) -> Any:
        from kits.readout.cohort import measure_volume

        return measure_volume(labels, volume)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    main()
