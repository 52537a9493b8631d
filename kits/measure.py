"""`python -m kits.measure input=LABELS|FOLDER|TREE [image=CT] output=DIR`: the numbers that surgeons write down.

With `coarse=CKPT fine=CKPT` the input is CT, as kits.predict takes it: label maps are predicted first, into `predictions/`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kits.config import plain, require
from kits.config.command import command
from kits.core.errors import KitsError

if TYPE_CHECKING:
    from kits.config.schema.commands import Measure


@command("measure")
def main(options: Measure) -> None:
    """Write `measurements.csv` (a row a tumor), `kidneys.csv` (a row a side) and `measurements.json` with the definitions."""
    config = plain(options)
    from kits.core.parallel import map_cases
    from kits.data.index import case_ids
    from kits.io import make_folder
    from kits.prediction.dicom_seg import require_highdicom
    from kits.readout.cohort import finished, measure_map, write_tables
    from kits.readout.maps import find_maps

    output = Path(config["output"])
    if config["dicom_sr"]:
        require_highdicom("dicom_sr=true:")
    path, image = Path(config["input"]), None if config["image"] is None else Path(config["image"])
    if config["coarse"] is not None or config["fine"] is not None:
        predict(config)
        path, image = output / "predictions", path
    members = [Path(member) for member in config["members"]]
    if config["dicom_sr"] and image is None:
        raise KitsError("dicom_sr=true: a report is of a CT; add image= with the DICOM series that the label maps are of")
    maps = find_maps(path, image, case_ids(config["cases"]), label_name=config["data"]["label_name"], members=members)
    make_folder(output, "output")
    folder, ids = output / "cases", config["ids"]
    pages, reports = (output / key if config[name] else None for key, name in (("pages", "pages"), ("dicom", "dicom_sr")))
    before = {} if config["overwrite"] else {job.name: finished(job, folder, pages, ids, reports) for job in maps}
    known = {name: done for name, done in before.items() if done is not None}
    todo = [job for job in maps if job.name not in known]
    if known:
        print(f"{len(known)} of {len(maps)} label maps are measured and skipped (overwrite=true does them again)")
    calls = [(job, folder, pages, ids, reports) for job in todo]
    results = map_cases(measure_map, calls, workers=config["workers"], desc="measure", catch=(KitsError,))
    failed = {job.name: str(result) for job, result in zip(todo, results, strict=True) if isinstance(result, Exception)}
    known |= {job.name: result for job, result in zip(todo, results, strict=True) if isinstance(result, dict)}
    found = [known[job.name] for job in maps if job.name in known]
    write_tables(found, failed, output)
    tumors = sum(len(case["tumors"]) for case in found)
    print(f"{len(found)} label maps, {tumors} tumors: {output / 'measurements.csv'}")
    if failed:
        raise KitsError(
            f"{len(failed)} of {len(maps)} label maps could not be measured, the first: {next(iter(failed.values()))}"
        )


def predict(config: dict[str, Any]) -> None:
    """Run kits.predict on the input, which is CT; what it has finished before it skips.

    Raises:
        KitsError: only one stage has a checkpoint, `image` is given too, or the prediction fails.
    """
    from kits.workflows.building import assigned
    from kits.workflows.step import run_process

    if config["image"] is not None:
        raise KitsError("image: with coarse= and fine= the input is the CT itself; leave image out")
    given = {key: require(config[key], key, f"add {key}=CKPT, or leave both out for label maps") for key in ("coarse", "fine")}
    given |= {"input": config["input"], "output": Path(config["output"]) / "predictions", "cases": config["cases"]}
    run_process("predict", assigned({key: value for key, value in {**given, **config["predict"]}.items() if value is not None}))


class _CallableModule(ModuleType):
    """`kits.measure(...)` is the function of `kits.api` even where somebody has imported this module, whose name is the same."""

    def __call__(self, labels: Any, volume: Any = None) -> Any:
        from kits.readout.cohort import measure_volume

        return measure_volume(labels, volume)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    main()
