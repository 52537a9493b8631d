"""The reach of HU alone on a painted tree: one threshold or band, and the largest components."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from kits.config.schema.benches import ThresholdBench
from kits.core.labels import BACKGROUND, KIDNEY, TUMOR
from kits.core.parallel import map_cases
from kits.data.index import LABEL_NAME, Case
from kits.data.layouts import kits_tree
from kits.data.validate import listed_spacing
from kits.io import read_labels, read_volume
from kits.metrics import dice_from_counts
from kits.volume import Spacing, area_resize
from kits.volume.components import connected

Band = tuple[float, float]  # low <= HU < high
# By region, how many of the largest components the adversary may keep: it takes the better number.
KEPT = {"kidney": (2,), "tumor": (1, 2)}
LOWEST_HU = -1024
SLAB = 32


@dataclass(frozen=True)
class Way:
    """One thing that an adversary can do: a band of HU, then so many of the largest components."""

    band: Band
    kept: int

    def __str__(self) -> str:
        low, high = self.band
        text = f"HU >= {low:g}" if high == np.inf else f"HU < {high:g}" if low == -np.inf else f"{low:g} <= HU < {high:g}"
        return f"{text}, {self.kept} largest"


def measure(options: ThresholdBench) -> dict[str, float]:
    """Measure the mean Dice of the best threshold and of the best band, for kidney and tumor.

    Kidney is label > 0. The best is chosen on the very cases that it is scored on, which no honest method could do. Also printed:
    each case with its own best band, which needs the truth.
    """
    root = Path(options.root)
    cases = list(kits_tree(root, LABEL_NAME, None).cases.values())
    thresholds = [(float(low), np.inf) for low in steps(options.thresholds)]
    bands = sorted({*thresholds, *combinations((-np.inf, *steps(options.band_edges)), 2)})
    tables = map_cases(score_bands, [(case, options.grid_mm, bands) for case in cases], workers=options.workers, desc="threshold")
    groups = phases_of(root, [case.id for case in cases])
    figures: dict[str, float] = {}
    for region, counts in KEPT.items():
        ways = [Way(band, kept) for band in bands for kept in counts]
        dice = np.array([[table[region][way.kept][bands.index(way.band)] for way in ways] for table in tables])  # type: ignore[index]
        single = np.array([np.inf in way.band or -np.inf in way.band for way in ways])
        print_thresholds(region, ways, dice.mean(axis=0))
        figures[region] = print_best(f"{region}, one threshold", ways, np.where(single, dice, -1), groups)
        figures[f"{region}_band"] = print_best(f"{region}, one band", ways, dice, groups)
        own = dice.max(axis=1)
        print(
            f"  each case with its own best band (an oracle): mean {own.mean():.3f}, least {own.min():.3f}, most {own.max():.3f}"
        )
    return figures


def steps(limits: tuple[float, float, float]) -> list[float]:
    """Return lowest, highest (included) and step as a list."""
    low, high, step = limits
    return [float(value) for value in np.arange(low, high + step / 2, step)]


def phases_of(root: Path, ids: list[str]) -> dict[str, list[int]]:
    """Return positions of the cases by contrast phase, as far as the tree's `kits.json` has it."""
    listed: dict[str, Any] = listed_spacing(root)
    groups: dict[str, list[int]] = {}
    for position, case in enumerate(ids):
        painted = listed.get(case, {}).get("painted", {})
        groups.setdefault(painted.get("phase", "not recorded"), []).append(position)
    return groups


def score_bands(case: Case, grid_mm: float, bands: list[Band]) -> dict[str, dict[int, list[float]]]:
    """Compute Dice of one case by region, number of components kept, and band."""
    labels = read_labels(case.label, allowed=(BACKGROUND, KIDNEY, TUMOR))
    truth = {
        "kidney": reduce(labels.array > BACKGROUND, labels.spacing, grid_mm) >= 0.5,
        "tumor": reduce(labels.array == TUMOR, labels.spacing, grid_mm) >= 0.5,
    }
    del labels
    scan = read_volume(case.image)
    hu = reduce(scan.array, scan.spacing, grid_mm)
    del scan
    scores: dict[str, dict[int, list[float]]] = {region: {kept: [] for kept in counts} for region, counts in KEPT.items()}
    for low, high in bands:
        # Components joined by faces alone leak least.
        numbered = connected((hu >= low) & (hu < high), connectivity=6)
        sizes = np.bincount(numbered.ravel(), minlength=3)
        order = 1 + np.argsort(sizes[1:])[::-1][: max(max(counts) for counts in KEPT.values())]
        for region, mask in truth.items():
            hits = np.bincount(numbered[mask], minlength=len(sizes))
            for kept in KEPT[region]:
                chosen = order[:kept]
                dice = dice_from_counts(int(hits[chosen].sum()), int(sizes[chosen].sum()), int(mask.sum()))
                scores[region][kept].append(dice)
    return scores


def reduce(array: np.ndarray, spacing: Spacing, grid_mm: float) -> np.ndarray:
    """Average an array (z, y, x) to voxels of about `grid_mm`, float32; longer sides stay."""
    z, y, x = (max(1, min(n, round(n * size / grid_mm))) for n, size in zip(array.shape, spacing, strict=True))
    plane = np.empty((len(array), y, x), np.float32)
    for low in range(0, len(array), SLAB):
        slab = array[low : low + SLAB]
        plane[low : low + SLAB] = area_resize(slab.view(np.uint8) if slab.dtype == bool else slab.clip(LOWEST_HU), (y, x))
    return area_resize(plane.transpose(1, 0, 2), (z, x)).transpose(1, 0, 2)


def print_thresholds(region: str, ways: list[Way], means: np.ndarray) -> None:
    """Print mean Dice by threshold, with the better number of components."""
    best: dict[float, float] = {}
    for way, mean in zip(ways, means, strict=True):
        if way.band[1] == np.inf:
            best[way.band[0]] = max(best.get(way.band[0], 0.0), float(mean))
    print(f"\n{region}: mean Dice by HU >= t")
    rows = [f"{low:5g} {mean:.3f}" for low, mean in best.items()]
    for first in range(0, len(rows), 8):
        print("  " + "   ".join(rows[first : first + 8]))


def print_best(title: str, ways: list[Way], dice: np.ndarray, groups: dict[str, list[int]]) -> float:
    """Print the way of the highest mean of `dice` (a case a row), where it goes furthest too; that mean."""
    best = int(dice.mean(axis=0).argmax())
    print(f"{title}: {ways[best]}: {dice[:, best].mean():.3f}")
    for phase, rows in sorted(groups.items()):
        within = int(dice[rows].mean(axis=0).argmax())
        print(
            f"  {phase} ({len(rows)} cases): {dice[rows, best].mean():.3f}; with its own best, {ways[within]}: "
            f"{dice[rows, within].mean():.3f}"
        )
    return float(dice[:, best].mean())
