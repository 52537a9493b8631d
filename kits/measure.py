"""`python -m kits.measure input=LABELS|FOLDER|TREE [image=CT] output=DIR`: the numbers that surgeons write down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kits.config.command import command
from kits.errors import KitsError


@command("measure")
def main(config: dict[str, Any]) -> None:
    """Write `measurements.csv` (a row a tumor), `kidneys.csv` (a row a side) and `measurements.json` with the definitions."""
    from kits.data.index import case_ids
    from kits.io import make_folder
    from kits.parallel import map_cases
    from kits.readout.cohort import finished, measure_map, write_tables
    from kits.readout.maps import find_maps

    output = Path(config["output"])
    image = None if config["image"] is None else Path(config["image"])
    maps = find_maps(Path(config["input"]), image, case_ids(config["cases"]), label_name=config["data"]["label_name"])
    make_folder(output, "output")
    folder, pages = output / "cases", output / "pages" if config["pages"] else None
    known = {} if config["overwrite"] else {job.name: done for job in maps if (done := finished(job, folder)) is not None}
    todo = [job for job in maps if job.name not in known]
    if known:
        print(f"{len(known)} of {len(maps)} label maps are measured and skipped (overwrite=true does them again)")
    results = map_cases(
        measure_map, [(job, folder, pages) for job in todo], workers=config["workers"], desc="measure", catch=(KitsError,)
    )
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


if __name__ == "__main__":
    main()
