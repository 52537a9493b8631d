"""The split into cases that train and validate, by id in `splits.json`; it is drawn once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits.config.schema.dataset import SplitOptions
from kits.core.errors import KitsError
from kits.core.plain_files import read_json
from kits.data.cache import digest
from kits.io import write_json

# The subset of every case.
ALL = "all"
# KiTS19's 210 labelled cases, of which the paper takes a fixed number (section 3), less a few that one may exclude.
WHOLE_SET = 200
PARTS, WRITER = {str: [str]}, "kits.prepare writes it"
RENEW = "delete the file or add split.renew=true to draw it again"


@dataclass(frozen=True)
class Split:
    """The content of a `splits.json`.

    Attributes:
        path: the file, for messages.
        settings: what made it: kind, seed and the kind's own numbers; empty for parts that someone wrote by hand.
        parts: case ids: `train` and `validation`, or `fold0`, `fold1`, ...
    """

    path: Path
    settings: dict[str, Any]
    parts: dict[str, list[str]]

    @property
    def cases(self) -> list[str]:
        """Every case, by id."""
        return sorted(case for part in self.parts.values() for case in part)

    @property
    def has_folds(self) -> bool:
        """True where a fold has to be chosen before there is a validation set."""
        return "fold0" in self.parts

    def subset(self, name: str, fold: int | None) -> list[str]:
        """Return the ids of `all`, `validation` (of folds: `fold`) or `train` (of folds: all the others).

        Raises:
            KitsError: no such subset; or a fold is chosen where there is none, none where there are some, or an unknown one.
        """
        if name == ALL and fold is None:
            return self.cases
        subsets = self.parts
        if self.has_folds:
            offered = f"fold=0 to fold={len(self.parts) - 1}"
            if fold is None:
                raise KitsError(f"fold: no value given; {self.path} holds {len(self.parts)} folds, add one of {offered}")
            if f"fold{fold}" not in self.parts:
                raise KitsError(f"fold={fold}: {self.path} holds {len(self.parts)} folds; give one of {offered}")
            validation = self.parts[f"fold{fold}"]
            subsets = {"train": sorted(set(self.cases) - set(validation)), "validation": validation}
        elif fold is not None:
            raise KitsError(
                f"fold={fold}: {self.path} is one fixed split without folds; leave fold out,"
                " or run kits.prepare with split=folds split.renew=true"
            )
        if name not in subsets:
            raise KitsError(f"subset={name}: {self.path} has none of this name; take one of {', '.join(subsets)}")
        return subsets[name]

    def check_settings(self, options: SplitOptions) -> None:
        """Refuse a file that other settings made."""
        asked = decisive(options)
        if self.settings != asked:
            made = f"was made with {_spelled(self.settings)}" if self.settings else "does not say how it was made"
            keep = "ask for that, " if self.settings else ""
            raise KitsError(f"{self.path}: {made}; this run asks for {_spelled(asked)}; {keep}{RENEW}")

    def check_cases(self, cases: Iterable[str], remedy: str) -> None:
        """Refuse a file that was drawn for another list of cases."""
        now, then = set(cases), set(self.cases)
        if now != then:
            changes = [f"{word} {_some(ids)}" for word, ids in (("new", now - then), ("gone", then - now)) if ids]
            raise KitsError(
                f"{self.path}: was drawn for {len(then)} cases, now there are {len(now)}: {'; '.join(changes)}; {remedy}"
            )


def read_split(path: Path) -> Split:
    """Read a split: a `splits.json`, or `train` and `validation` alone in a file by hand.

    Raises:
        KitsError: the file cannot be read, is no split, or a case stands in two of its parts.
    """
    content: dict[str, Any] = read_json(path, {str: Any}, "a split", WRITER)
    ours = "parts" in content  # else someone's own, of parts alone
    content = read_json(path, {"parts": PARTS, "settings": {str: Any}} if ours else PARTS, "a split", WRITER)
    parts: dict[str, list[str]] = content["parts"] if ours else content
    split = Split(path, content["settings"] if ours else {}, parts)
    if split.has_folds and set(parts) != {f"fold{number}" for number in range(len(parts))}:
        raise KitsError(f"{path}: its parts are not fold0, fold1, ... without a gap; {RENEW}")
    twice = {case for case, count in Counter(split.cases).items() if count > 1}
    if twice:
        raise KitsError(f"{path}: {_some(twice)} stands in it more than once; {RENEW}")
    if ours and "cases_sha256" in content and content["cases_sha256"] != digest(split.cases):
        raise KitsError(f"{path}: its parts do not hold the cases that it was drawn for; {RENEW}")
    return split


def wanted_cases(cases: list[str] | None, split: str | None, subset: str, fold: int | None) -> list[str] | None:
    """Return the cases that are named, else those of a split's subset; None where neither is given.

    Raises:
        KitsError: a fold is named without a split to find it in, or the split cannot be read or has no such subset.
    """
    if split is None and fold is not None:
        raise KitsError(f"fold={fold}: means nothing without a split; add split_file=CACHE/splits.json")
    return read_split(Path(split)).subset(subset, fold) if cases is None and split is not None else cases


def check_kept(path: Path, options: SplitOptions | None) -> SplitOptions:
    """Refuse at once, before hours of preparing, what `settle_split` would refuse in the end.

    Returns:
        The options.

    Raises:
        KitsError: no kind of split is chosen, or there is a split that other settings made, and it is not to be renewed.
    """
    if options is None:
        raise KitsError("split: no value given; add split=paper or split=folds")
    if path.exists() and not options.renew:
        read_split(path).check_settings(options)
    return options


def settle_split(path: Path, options: SplitOptions, tumor_ml: Mapping[str, float], patients: Mapping[str, str]) -> None:
    """Keep the split that `path` holds, byte for byte, or draw one where there is none.

    Args:
        tumor_ml: the tumor volume in mL of every case.
        patients: whose a case is, where that is known; the cases of one patient stay together.

    Raises:
        KitsError: the file was drawn for other cases or with other settings, and `split.renew` is false.
    """
    if path.exists() and not options.renew:
        split = read_split(path)
        split.check_settings(options)
        split.check_cases(tumor_ml, RENEW)
        return
    parts = draw(options, tumor_ml, patients)
    made_by = {"settings": decisive(options), "cases": len(tumor_ml), "cases_sha256": digest(sorted(tumor_ml))}
    write_json(path, {**made_by, "parts": parts})


def draw(options: SplitOptions, tumor_ml: Mapping[str, float], patients: Mapping[str, str]) -> dict[str, list[str]]:
    """Draw the parts of a new split: patients are drawn, and bring all of their cases.

    They depend on the settings, the ids and (for folds) the volumes, of a patient the largest, and on no order.

    Raises:
        KitsError: too few patients.
    """
    numbers = decisive(options)
    kind = numbers.pop("kind")
    cases_of: dict[str, list[str]] = {}
    for case in sorted(tumor_ml):
        cases_of.setdefault(patients.get(case, case), []).append(case)
    largest = {patient: max(tumor_ml[case] for case in cases) for patient, cases in cases_of.items()}
    parts = draw_paper(list(largest), **numbers) if kind == "paper" else draw_folds(largest, **numbers)
    return {name: sorted(case for patient in part for case in cases_of[patient]) for name, part in parts.items()}


def draw_paper(ids: Sequence[str], *, validation_cases: int, validation_fraction: float, seed: int) -> dict[str, list[str]]:
    """Draw `train` and `validation` with a seed: 21 of 210 validate (paper, section 3).

    Raises:
        KitsError: fewer than two cases, so that one of the parts would be empty.
    """
    if len(ids) < 2:
        raise KitsError(f"data.root: {len(ids)} usable case; training and validation need at least one each")
    count = validation_cases if len(ids) >= WHOLE_SET else max(1, round(validation_fraction * len(ids)))
    if not 0 < count < len(ids):
        raise KitsError(
            f"split: {count} of {len(ids)} cases to validate leave none to train, or none to validate; give other numbers"
        )
    shuffled = sorted(ids)
    random.Random(seed).shuffle(shuffled)
    return {"train": sorted(shuffled[count:]), "validation": sorted(shuffled[:count])}


def draw_folds(tumor_ml: Mapping[str, float], *, k: int, seed: int) -> dict[str, list[str]]:
    """Draw `fold0` to `fold<k-1>`, seeded and stratified by tumor volume.

    Raises:
        KitsError: fewer cases than folds.
    """
    if k > len(tumor_ml):
        raise KitsError(f"split.k={k}: {len(tumor_ml)} usable cases make 2 to {len(tumor_ml)} folds; give another split.k")
    by_volume = sorted(tumor_ml, key=lambda case: (tumor_ml[case], case))
    folds: list[list[str]] = [[] for _ in range(k)]
    rng = random.Random(seed)
    for first in range(0, len(by_volume), k):
        for fold, case in zip(rng.sample(range(k), k), by_volume[first : first + k], strict=False):
            folds[fold].append(case)
    return {f"fold{number}": sorted(fold) for number, fold in enumerate(folds)}


def decisive(options: SplitOptions) -> dict[str, Any]:
    """Return, plain, the settings that decide a split, without the order to renew it."""
    return options.model_dump(exclude={"renew"})


def _spelled(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _some(ids: Iterable[str]) -> str:
    """Return the first few ids of many."""
    ordered = sorted(ids)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


def draw_cases(cases: list[str], count: int | None, seed: int) -> list[str]:
    """Draw `count` of the cases (None: all), in their order; a larger draw holds a smaller one.

    Raises:
        KitsError: there are not so many.
    """
    if count is None:
        return cases
    if count > len(cases):
        raise KitsError(f"data.train_cases={count}: the split has {len(cases)} training cases; give at most that")
    chosen = set(random.Random(seed).sample(range(len(cases)), len(cases))[:count])
    return [case for position, case in enumerate(cases) if position in chosen]
