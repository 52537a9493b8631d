"""`python -m kits.predict coarse=CKPT fine=CKPT input=... output=...`: segment scans, from one file to a cohort.

With `split=oof coarse=[CKPT,...]` it writes no label maps but `boxes.json`, the ROIs that the fine stage can be trained on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kits.config import plain, require
from kits.config.command import command
from kits.core.errors import KitsError
from kits.core.sharding import choose_shard, share

if TYPE_CHECKING:
    from kits.config.schema.commands import Predict

OUT_OF_FOLD = "oof"
# Lines on the screen; report.json has them all.
MOST_SKIPPED = 20


@command("predict")
def main(options: Predict) -> None:
    """Write what `save` names of each input, in its own grid, and `report.json` beside it; or `boxes.json`."""
    config = plain(options)
    if config["split"]["source"] == OUT_OF_FOLD:
        from kits.prediction.out_of_fold import predict_out_of_fold

        predict_out_of_fold(config)
    else:
        predict_labels(config)


def predict_labels(config: dict[str, Any]) -> None:
    """Segment every input with both stages; those that are finished already are skipped.

    Raises:
        KitsError: a checkpoint cannot be used, no input is found, or one or more could not be segmented (the others are).
        SystemExit: 130 after Ctrl-C, with what to do.
    """
    from kits.data.index import case_ids
    from kits.data.splits import read_split, refuse_lone_fold
    from kits.io import make_folder
    from kits.io.tree import summary
    from kits.prediction.dicom_seg import require_highdicom
    from kits.prediction.leaderboard import TEST_CASES, refuse_other_classes, write_submission
    from kits.prediction.outputs import Outputs
    from kits.prediction.scans import find_inputs

    require(config["fine"], "fine", "add fine=CKPT")
    if config["submission"] and config["shards"] not in (None, 1):
        raise KitsError("submission=true: is for one process; after all shards run kits.submission predictions=DIR")
    if config["dicom_seg"]:
        require_highdicom("dicom_seg=true:")
    outputs = Outputs.of(Path(config["output"]), config["save"], config["dicom_seg"])
    cases: Sequence[str] | None = case_ids(config["cases"])
    split = config["split"]["source"]
    refuse_lone_fold(split, config["fold"])
    if cases is None and split is not None:
        cases = read_split(Path(split)).subset(config["subset"], config["fold"])
    if cases is None and config["submission"]:
        cases = TEST_CASES
    inputs = find_inputs(Path(config["input"]), cases)
    outputs.refuse_collisions(inputs.scans)
    shard, shards = choose_shard(config["shard"], config["shards"])
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
        return

    from kits.inference.devices import AUTO, described
    from kits.prediction.engine import load_segmenter, made_with, told_of
    from kits.prediction.ledger import Report
    from kits.prediction.run import InterruptedRun, Run
    from kits.readout.cohort import READOUT, readout_of

    segmenter = load_segmenter(config, outputs.save)
    print(described(segmenter.device, segmenter.precision, chosen=config["precision"] == AUTO))
    if config["submission"]:
        refuse_other_classes(segmenter.classes)
    if split is not None and config["cases"] is None and config["subset"] == "validation":
        for stage, configs in (("coarse", segmenter.coarse_configs), ("fine", segmenter.fine_configs)):
            for one in configs:
                refuse_leaks(inputs.scans, {stage: one})
    make_folder(outputs.folder, "output")  # before minutes are spent on what could not be written
    measure = {READOUT: readout_of} if config["measure"] else {}
    report = Report(outputs, made_with(config), told_of(config), tuple(measure))
    run = Run(segmenter, outputs, report, config["allow_implausible"], measure)
    try:
        run.segment_all(own, of=inputs.scans, skipped=inputs.skipped, overwrite=config["overwrite"])
    except InterruptedRun as interrupted:
        print(f"kits.predict: {interrupted}", file=sys.stderr)
        raise SystemExit(130) from None
    if run.failed:
        first = next(iter(run.failed.values()))
        raise KitsError(f"{len(run.failed)} of {len(own)} inputs could not be segmented, the first: {first}")
    if run.not_written:
        first = next(iter(run.not_written.values()))
        raise KitsError(f"{len(run.not_written)} of {len(own)} inputs lack an output that was asked for, the first: {first}")
    if config["submission"]:
        print(f"{write_submission(outputs.folder, Path(config['input']))}: {len(TEST_CASES)} predictions, checked")


def refuse_leaks(cases: Iterable[str], configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to predict as validation what a checkpoint was trained on; older checkpoints do not say what that was.

    Raises:
        KitsError: a checkpoint knows a case.
    """
    for stage, config in configs.items():
        seen = sorted(set(config.get("trained_on") or ()) & set(cases))
        if seen:
            raise KitsError(
                f"{stage}: this checkpoint was trained on {len(seen)} of these validation cases, the first {seen[0]};"
                " give the one of this split and fold, or name the cases with cases=[...]"
            )


if __name__ == "__main__":
    main()
