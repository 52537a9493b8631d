"""Patches a second from our loader, MONAI's and TorchIO's, on the same cases, plain and augmented.

A loader is timed in its steady state: its processes run, its cache is written, every case has been read once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from kits.bench.other_loaders import QUEUE, monai_batches, torchio_batches
from kits.bench.timing import scratch_folder, seconds
from kits.config.schema import parse
from kits.config.schema.dataset import Data
from kits.config.schema.stage import FineSampling
from kits.core.errors import KitsError
from kits.data.datasets import CachedCase, PatchLoader, RoiPatches, worker_context
from kits.data.index import Case
from kits.data.layouts import find_data_set
from kits.data.preparation import prepare
from kits.training.datamodule import EpochSampler

# Rounds in which the loaders take turns, so that a busy moment of the machine meets all of them.
ROUNDS = 2


def measure(config: dict[str, Any]) -> dict[str, float]:
    """Measure our patches a second as multiples of the faster rival's, plain and augmented."""
    if find_spec("torchio") is None:
        raise KitsError("parts=[loading]: TorchIO is not installed; pip install 'kits[bench]'")
    with scratch_folder(config) as scratch:
        data = config["data"]
        found = list(find_data_set(parse(Data, data), Path(config["root"])).cases.values())
        cases = choose_cases(found, config["loading"]["cases"])
        print(f"cases: {', '.join(case.id for case in cases)}")
        others = [*data["exclude"], *(case.id for case in found if case not in cases)]
        data = {**data, "root": config["root"], "exclude": others, "cache": str(scratch / "cache")}
        index = prepare(parse(Data, data, "data"))
        ours = [CachedCase(scratch / "cache", record) for record in index["cases"].values()]
        result = {}
        for name, augmentation in (("plain", {}), ("augmented", data["augmentation"])):
            rates = compare({**data, "augmentation": augmentation}, config["loading"], ours, cases, scratch)
            result[name] = rates["kits"] / max(rates["monai"], rates["torchio"])
        return result


def choose_cases(cases: list[Case], count: int) -> list[Case]:
    """Choose the `count` cases whose compressed scans are nearest to the median size."""
    by_size = sorted(cases, key=lambda case: case.image.stat().st_size)
    first = max(0, (len(by_size) - count) // 2)
    return sorted(by_size[first : first + count], key=lambda case: case.id)


def compare(
    data: dict[str, Any], options: dict[str, Any], ours: list[CachedCase], cases: list[Case], scratch: Path
) -> dict[str, float]:
    """Measure and print patches a second of each loader."""
    batches = {
        "kits": our_batches(ours, data, options),
        "monai": monai_batches(cases, data, options, scratch / "monai"),
        "torchio": torchio_batches(cases, data, options, scratch / "torchio"),
    }
    # Batches until each has read every case, and as many to time as take seconds. TorchIO's queue runs empty before it is filled
    # again, so it is timed over whole fillings.
    filling = QUEUE // options["batch_size"]
    warm = {"kits": 20, "monai": 2 * options["cases"], "torchio": filling}
    timed = {"kits": 60, "monai": 4 * options["cases"], "torchio": filling}
    taken = dict.fromkeys(batches, 0.0)

    def draw(stream: Iterator[Any], count: int) -> None:
        for _ in islice(stream, count):
            pass

    for name, stream in batches.items():
        draw(stream, warm[name])
    for _ in range(ROUNDS):
        for name, stream in batches.items():
            # What was made while others were timed is not counted.
            draw(stream, 2 * options["workers"] if name != "torchio" else 0)
            taken[name] += seconds(partial(draw, stream, timed[name]))
            print(f"  {name} {timed[name] * options['batch_size']} patches, {taken[name]:.1f} s so far", flush=True)
    rates = {name: ROUNDS * timed[name] * options["batch_size"] / taken[name] for name in batches}
    kind = "augmented" if data["augmentation"] else "plain"
    for name, rate in rates.items():
        print(f"  {kind:>9} {name:>8} {rate:8.1f} patches/s")
    for stream in batches.values():
        stream.close()  # type: ignore[attr-defined]
    return rates


def our_batches(cases: list[CachedCase], data: dict[str, Any], options: dict[str, Any]) -> Iterator[Any]:
    """Yield batches without end, as the data module makes them."""
    sampling = {**options["sampling"], "batch_size": options["batch_size"], "patches_per_epoch": 400}
    patches = RoiPatches(cases, parse(Data, data), parse(FineSampling, sampling), seed=0)
    sampler = EpochSampler(len(patches))
    loader = PatchLoader(
        patches,
        batch_size=options["batch_size"],
        sampler=sampler,
        num_workers=options["workers"],
        persistent_workers=True,
        multiprocessing_context=worker_context(patches),
    )
    for epoch in range(10**6):
        sampler.set_epoch(epoch)
        yield from loader
