"""The way of `kits.measure` from its options to tables.

Predict where it is given networks, measure every label map, write the tables.
"""

from __future__ import annotations

from pathlib import Path

from kits.config import plain, require
from kits.config.composing import checked
from kits.config.schema import parse
from kits.config.schema.commands import Measure, Predict
from kits.core.errors import KitsError
from kits.core.parallel import map_cases
from kits.data.index import case_ids
from kits.io import make_folder
from kits.prediction.dicom_seg import require_highdicom
from kits.readout.cohort import finished, measure_map, write_tables
from kits.readout.maps import find_maps


def measure_maps(options: Measure) -> None:
    """Measure the label maps at a path, or those that networks give for the CT there.

    Those that are measured are skipped.

    Raises:
        KitsError: no label map is found, or one or more could not be measured (the others are).
    """
    output, path = Path(options.output), Path(options.input)
    image = None if options.image is None else Path(options.image)
    cases = case_ids(options.cases)
    if options.dicom_sr:
        require_highdicom("dicom_sr=true:")
    if options.coarse is not None or options.fine is not None:
        from kits.prediction.segmenting import predict_labels

        cases = predict_labels(prediction(options))  # not all of the folder: scans of earlier inputs may lie there
        path, image = output / "predictions", path
    if options.dicom_sr and image is None:
        raise KitsError("dicom_sr=true: a report is of a CT; add image= with the DICOM series that the label maps are of")
    members = [Path(member) for member in options.members]
    maps = find_maps(path, image, cases, label_name=options.data.label_name, members=members)
    make_folder(output, "output")
    folder, ids = output / "cases", options.ids.model_dump()
    pages = output / "pages" if options.pages else None
    reports = output / "dicom" if options.dicom_sr else None
    before = {} if options.overwrite else {job.name: finished(job, folder, pages, ids, reports) for job in maps}
    known = {name: done for name, done in before.items() if done is not None}
    todo = [job for job in maps if job.name not in known]
    if known:
        print(f"{len(known)} of {len(maps)} label maps are measured and skipped (overwrite=true does them again)")
    calls = [(job, folder, pages, ids, reports) for job in todo]
    results = map_cases(measure_map, calls, workers=options.workers, desc="measure", catch=(KitsError,))
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


def prediction(options: Measure) -> Predict:
    """Fill in the options of kits.predict for an input that is CT.

    Raises:
        KitsError: only one stage has a checkpoint, `image` is given too, or `predict` holds what kits.predict does not take.
    """
    if options.image is not None:
        raise KitsError("image: with coarse= and fine= the input is the CT itself; leave image out")
    remedy = "add {}=CKPT, or leave both out for label maps"
    given = {key: require(getattr(options, key), key, remedy.format(key)) for key in ("coarse", "fine")}
    given |= {"input": options.input, "output": str(Path(options.output) / "predictions"), "cases": options.cases}
    config = plain(checked("predict", ["coarse=x", "fine=x", "input=x", "output=x"])) | given | options.predict
    predict: Predict = parse(Predict, config)
    return predict
