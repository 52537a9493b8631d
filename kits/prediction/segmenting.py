"""The way of `kits.predict` from its options to label maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kits.config.schema import parse
from kits.config.schema.commands import Predict
from kits.config.schema.exported import SegmenterOptions
from kits.core.errors import KitsError
from kits.core.sharding import choose_shard, launched, share
from kits.data.index import case_ids
from kits.data.scans import find_inputs
from kits.data.splits import wanted_cases
from kits.io import make_folder
from kits.io.shipped import FOLDER, NOTICE, network_files
from kits.io.tree import summary
from kits.prediction.dicom_seg import require_highdicom
from kits.prediction.leaderboard import TEST_CASES, refuse_other_classes, write_submission
from kits.prediction.outputs import MAPS, OWN_IDS, Outputs, own_ids_of

if TYPE_CHECKING:
    from kits.inference.segmenter import Segmenter

# Lines on the screen; report.json has them all.
MOST_SKIPPED = 20
# Settings on which a result depends, besides its checkpoints; where and in how large steps it is computed changes it by rounding.
SETTINGS = ("mirror", "precision", "window", "margin_mm", "min_component_ml", "tumor_confidence")


def predict_labels(options: Predict, parts: Mapping[str, Any] | None = None) -> list[str]:
    """Segment every input with both stages; those that are finished already are skipped.

    Args:
        parts: what else the report tells of a scan, by its name there: functions of the labels and the volume.

    Returns:
        The names of this process's scans.

    Raises:
        KitsError: a checkpoint cannot be used, no input is found, or one or more could not be segmented (the others are).
        SystemExit: 130 after Ctrl-C, with what to do.
    """
    files = network_files({"coarse": options.coarse, "fine": options.fine})
    if options.submission and options.shards not in (None, 1):
        raise KitsError("submission=true: is for one process; after all shards run kits.submission predictions=DIR")
    if options.dicom_seg:
        require_highdicom("dicom_seg=true:")
    outputs = Outputs.of(Path(options.output), options.save, options.dicom_seg)
    cases = wanted_cases(case_ids(options.cases), options.split_file, options.subset, options.fold)
    source = Path(options.input)
    inputs = find_inputs(source, TEST_CASES if cases is None and options.submission else cases)
    outputs.refuse_collisions(source, inputs.scans)
    shard, shards = choose_shard(options.shard, options.shards)
    own = {name: inputs.scans[name] for name in share(list(inputs.scans), shard, shards)}
    if shard == 0:
        lines = summary(inputs.skipped)
        for line in lines[:MOST_SKIPPED]:
            print(f"skipped: {line}")
        if len(lines) > MOST_SKIPPED:
            print(f"skipped: {len(lines) - MOST_SKIPPED} more such lines; report.json names every file")
    if shards > 1:  # told, because the numbers may come from the environment
        print(f"shard {shard} of {shards}: {len(own)} of {len(inputs.scans)} inputs")
    if not own:
        return []

    from kits.data.cache import file_digest
    from kits.inference.devices import AUTO, described
    from kits.prediction.ledger import RunReport
    from kits.prediction.run import PredictionRun

    segmenter = load_segmenter(options, files, outputs.save)
    if any(path.parent == FOLDER for paths in files.values() for path in paths):
        print(NOTICE)
    print(described(segmenter.device, segmenter.precision, chosen=options.precision == AUTO))
    if OWN_IDS in outputs.save:
        outputs = replace(outputs, own_ids=own_ids_of(segmenter.fine_settings.data.labels))
    if options.submission:
        refuse_other_classes(segmenter.classes)
    if options.split_file is not None and options.cases is None and options.subset == "validation":
        for stage, checkpoints in segmenter.trained.items():
            for one in checkpoints:
                refuse_leaks(inputs.scans, stage, one.trained_on or ())
    make_folder(outputs.folder, "output")  # before minutes are spent on what could not be written
    made_with = {
        "checkpoints": {stage: [file_digest(path) for path in paths] for stage, paths in files.items()},
        "settings": {name: getattr(options, name) for name in SETTINGS},
    }
    told = {
        "checkpoint_files": {stage: [str(path) for path in paths] for stage, paths in files.items()},
        "input": options.input,
        "device": options.device,
    }
    run = PredictionRun(segmenter, outputs, RunReport(outputs, made_with, told, tuple(parts or ())), dict(parts or {}))
    run.segment_all(own, of=inputs.scans, skipped=inputs.skipped, overwrite=options.overwrite)
    if run.failed:
        first = next(iter(run.failed.values()))
        raise KitsError(f"{len(run.failed)} of {len(own)} inputs could not be segmented, the first: {first}")
    if run.not_written:
        first = next(iter(run.not_written.values()))
        raise KitsError(f"{len(run.not_written)} of {len(own)} inputs lack an output that was asked for, the first: {first}")
    if options.submission:
        print(f"{write_submission(outputs.folder, source)}: {len(TEST_CASES)} predictions, checked")
    return list(own)


def load_segmenter(options: Predict, files: Mapping[str, Sequence[Path]], save: Sequence[str]) -> Segmenter:
    """Load the checkpoints of both stages on this process's GPU, where none is named.

    Raises:
        KitsError: one is no checkpoint of its stage, or the device or a setting cannot be used.
    """
    import torch

    from kits.inference.onnx_network import device_for
    from kits.inference.segmenter import Segmenter

    given = [*files["coarse"], *files["fine"]]
    check_backend(options.backend, given)
    device, gpus = device_for(given, options.device), torch.cuda.device_count()
    settings: SegmenterOptions = parse(
        SegmenterOptions,
        {
            **{name: getattr(options, name) for name in (*SETTINGS, "slices_at_once", "allow_implausible")},
            "precision": str(options.precision),
            "outputs": [name for name in save if name in MAPS],
        },
    )
    if gpus and device in ("auto", "cuda"):
        device = f"cuda:{launched().local % gpus}"
    return Segmenter.load(files["coarse"], files["fine"], device, settings)


def check_backend(backend: str, paths: Sequence[Path]) -> None:
    """Refuse a file that is not of the backend that is asked for; `auto` takes either."""
    from kits.models.settings import ONNX, is_exported

    for path in paths:
        if backend == "onnx" and not is_exported(path):
            raise KitsError(f"backend=onnx: {path} is no {ONNX} file; python -m kits.export writes one of a checkpoint")
        if backend == "torch" and is_exported(path):
            raise KitsError(f"backend=torch: {path} is an exported network; give the checkpoint, or leave backend out")


def refuse_leaks(cases: Iterable[str], stage: str, trained_on: Iterable[str]) -> None:
    """Refuse to predict as validation what a checkpoint was trained on.

    Raises:
        KitsError: it knows a case.
    """
    if seen := sorted({*trained_on} & {*cases}):
        raise KitsError(
            f"{stage}: this checkpoint was trained on {len(seen)} of these validation cases, the first {seen[0]};"
            " give the one of this split and fold, or name the cases with cases=[...]"
        )
