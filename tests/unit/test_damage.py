"""Files of runs, caches and predictions that were damaged or edited: one line each, or the work goes on; never a traceback.

Seeded damages of bytes and of structure, and the functions behind the commands that read what was damaged.
"""

import copy
import csv
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from kits.config.composing import compose
from kits.core.errors import KitsError
from kits.data.roi_boxes import to_mm, write_boxes
from kits.data.splits import read_split
from kits.inference.segmenter import Segmenter
from kits.models.checkpoint import load_network
from kits.prediction.ledger import exist, read_entry
from kits.reporting.run_notes import read_notes
from kits.runs.folder import resumed_options
from kits.train import train
from kits.volume import Grid, Volume
from kits.volume.rois import Box
from tests.conftest import data_of, kidney_pair, prepare, training_options
from tests.unit.test_runs import FINE, TINY

OTHERS = (None, -1, 0, 7, 2.5, float("nan"), float("inf"), "", "a text", "two\nlines", True, [], {}, [1, "x"], {"x": [0]})
ENTRY = {
    "status": "ok",
    "input": {"path": "scan.nii.gz"},
    "outputs": {"labels": ["scan.nii.gz"]},
    "boxes": [[[0, 0, 0], [1, 2, 3]]],
    "volumes_ml": {"kidney": 1.0},
    "parts": [],
    "warnings": ["small"],
    "seconds": {"read": 0.1},
    "made_with": {},
}


@pytest.fixture(scope="module")
def sound(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache, a run of each stage, boxes.json and a prediction's report, none of them damaged."""
    folder = tmp_path_factory.mktemp("damage")
    cache = folder / "cache"
    index = prepare(compose("train", [*TINY, f"data.root={kits_tree}", f"data.cache={cache}"])["data"])
    for stage, overrides in (("coarse", TINY), ("fine", [*FINE, "training=parallel"])):  # which may train on
        train(training_options([*overrides, "trainer.max_epochs=2", f"data.cache={cache}", f"run_dir={folder / stage}"]))
    cases = {
        case: {
            "boxes_mm": [to_mm(Box.from_list(box), record["spacing"]) for box in record["boxes"]],
            "shape": record["shape"],
            "spacing": record["spacing"],
            "checkpoint": "coarse.ckpt",
        }
        for case, record in index["cases"].items()
    }
    write_boxes(folder / "boxes.json", {"coarse.ckpt": {"sha256": "0", "trained_on": []}}, cases)
    (folder / "predicted").mkdir()
    (folder / "predicted" / "report.json").write_text(json.dumps({"cases": {"scan": ENTRY}, "failed": {}}))
    (folder / "predicted" / "scan.json").write_text(json.dumps(ENTRY))
    return folder


def go_on(folder: Path, run: str = "coarse") -> None:
    """`python -m kits.train resume=RUN`, for one more epoch."""
    given = [f"resume={folder / run}", f"data.cache={folder / 'cache'}", "trainer.max_epochs=3", "data.loader_workers=0"]
    train(resumed_options(given))


def predict(folder: Path) -> None:
    """Segment a small volume."""
    segmenter = Segmenter.load(folder / "coarse" / "best.ckpt", folder / "fine" / "best.ckpt", "cpu")
    hu, _ = kidney_pair(0)
    segmenter.segment(
        Volume(hu, (4.0, 1.5, 1.5), Grid((64, 64, 20), (1.5, 1.5, 4.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)))
    )


def export(folder: Path) -> None:
    """What kits.export reads before it traces."""
    load_network(folder / "coarse" / "best.ckpt", "coarse", "cpu")
    load_network(folder / "fine" / "best.ckpt", "fine", "cpu")


def look(folder: Path) -> None:
    """Read every patch of an epoch and every validation case, of both stages, and the boxes."""
    for overrides in ([*TINY], [*FINE], [*FINE, "data.roi=oof", f"data.boxes={folder / 'boxes.json'}"]):
        data = data_of([*overrides, f"data.cache={folder / 'cache'}"])
        assert len(list(data.train_dataloader())) == 5
        for case in data.val_dataloader():
            assert np.asarray(case.label).max() >= 0
    read_split(folder / "cache" / "splits.json").subset("validation", None)


def read_reports(folder: Path) -> None:
    """What kits.predict, kits.evaluate and kits.report ask of earlier predictions."""
    read_notes(folder / "predicted", "scan")
    exist(folder / "predicted", read_entry(folder / "predicted" / "scan.json"))


# What is damaged, and who reads it.
FILES: list[tuple[str, Callable[[Path], None]]] = [
    ("coarse/best.ckpt", predict),
    ("fine/best.ckpt", predict),
    ("fine/best.ckpt", export),
    ("coarse/last.ckpt", go_on),
    ("fine/last.ckpt", lambda folder: go_on(folder, "fine")),
    ("coarse/config.yaml", go_on),
    ("fine/config.yaml", lambda folder: go_on(folder, "fine")),
    ("coarse/manifest.json", go_on),
    ("coarse/metrics.csv", go_on),
    ("cache/index.json", look),
    ("cache/splits.json", look),
    ("cache/cases/case_00001-*/record.json", look),
    ("cache/cases/case_00001-*/image.npy", look),
    ("cache/cases/case_00001-*/label.npy", look),
    ("cache/cases/case_00001-*/coarse_label.npy", look),
    ("cache/cases/case_00001-*/tumor_points.npy", look),
    ("boxes.json", look),
    ("predicted/report.json", read_reports),
    ("predicted/scan.json", read_reports),
]


def damage_bytes(content: bytes, chance: random.Random) -> bytes:
    """Bits flipped, a piece lost, doubled, zeroed or cut off."""
    at = chance.choice([chance.randrange(len(content)), chance.randrange(min(len(content), 400))])
    size = chance.choice([1, 1, 4, 64, 4096])
    piece = content[at : at + size]
    kind = chance.choice(["flip", "flip", "lose", "double", "zero", "cut", "noise"])
    new = {
        "flip": bytes([piece[0] ^ (1 << chance.randrange(8))]) + piece[1:],
        "lose": b"",
        "double": piece + piece,
        "zero": bytes(len(piece)),
        "cut": b"",
        "noise": chance.randbytes(len(piece)),
    }[kind]
    return content[:at] + new + (b"" if kind == "cut" else content[at + size :])


def edit(content: Any, chance: random.Random) -> Any:
    """One entry of nested containers lost, renamed, doubled or of another value, as deep as chance goes."""
    changed, node = copy.deepcopy(content), None
    node = changed
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        # Of a checkpoint's hundreds of weights one is as likely as any other part.
        key = chance.choice(keys)
        inner = node[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.8:
            node = inner
            continue
        kind = chance.choice(["lose", "change", "change", "change", "add"])
        if kind == "lose":
            del node[key]
        elif kind == "add":
            node.update({"another": 1}) if isinstance(node, dict) else node.append(copy.deepcopy(node[key]))
        elif isinstance(inner, torch.Tensor) and chance.random() < 0.7:
            node[key] = chance.choice(
                [inner[..., None], inner.double() * float("nan"), inner.flatten()[:0], inner.to(torch.int8)]
            )
        else:
            node[key] = chance.choice(OTHERS)
        return changed


def edit_file(path: Path, chance: random.Random) -> None:
    """Change the structure of what a file holds, in its own format."""
    if path.suffix == ".ckpt":
        torch.save(edit(torch.load(path, weights_only=True), chance), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(edit(json.loads(path.read_text(encoding="utf-8")), chance)), encoding="utf-8")
    elif path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(edit(yaml.safe_load(path.read_text(encoding="utf-8")), chance)), encoding="utf-8")
    elif path.suffix == ".csv":
        text = io.StringIO(newline="")
        rows = edit(list(csv.reader(path.read_text(encoding="utf-8").splitlines())), chance)
        csv.writer(text).writerows(row if isinstance(row, list) else [row] for row in rows)
        path.write_text(text.getvalue(), encoding="utf-8")
    else:
        path.write_bytes(damage_bytes(path.read_bytes(), chance))


def outcomes(sound: Path, folder: Path, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """What became of each damage: `refused`, `went on`, or what escaped."""
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        pattern, command = FILES[number % len(FILES)]
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound, folder)
        (path,) = folder.glob(pattern)
        if chance.random() < 0.5:
            path.write_bytes(damage_bytes(path.read_bytes(), chance))
        else:
            edit_file(path, chance)
        try:
            command(folder)
        except KitsError as error:
            yield pattern, "refused" if "\n" not in str(error) else f"{number}: two lines: {error}"
        except BaseException as error:
            yield pattern, f"{number}: {type(error).__name__}: {error}"
        else:
            yield pattern, "went on"


@pytest.mark.parametrize(("count", "seed"), [(38, 1), pytest.param(800, 2, marks=pytest.mark.slow)])
def test_every_damage_is_refused_in_one_line_or_harmless(sound: Path, tmp_path: Path, count: int, seed: int) -> None:
    found = list(outcomes(sound, tmp_path / "copy", count, seed))
    escaped = [(pattern, what) for pattern, what in found if what not in ("refused", "went on")]
    refused = sum(what == "refused" for _, what in found)
    print(f"{count} damages: {refused} refused in one line, {count - refused - len(escaped)} harmless, {len(escaped)} escaped")
    assert not escaped, "\n".join(f"{pattern} {what}" for pattern, what in escaped)
    assert refused > count / 3
