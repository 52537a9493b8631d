"""Splits: what decides them, that they are kept, and when they are refused."""

import json
import random
from pathlib import Path
from statistics import median

import pytest

from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.dataset import Data, Folds, Paper, SplitOptions
from kits.core.errors import KitsError
from kits.data.splits import draw, draw_cases, draw_folds, draw_paper, read_split, settle_split
from tests.conftest import data_of, kidney_pair, prepare, write_case


def group(kind: str, **changes: object) -> Paper | Folds:
    """The real group `split`, typed."""
    return parse(SplitOptions, {**compose("prepare", [f"split={kind}"])["data"]["split"], **changes})


def volumes(count: int, seed: int = 0) -> dict[str, float]:
    """Tumor volumes in mL, spread as KiTS19's are (0.8 to 1464 mL), by case id."""
    rng = random.Random(seed)
    return {f"case_{number:05d}": 10 ** rng.uniform(-0.1, 3.2) for number in range(count)}


@pytest.mark.parametrize("kind", ["paper", "folds"])
def test_cases_of_one_patient_never_train_and_validate(kind: str) -> None:
    tumor_ml = volumes(60)
    patients = {case: f"p{number // 4}" for number, case in enumerate(sorted(tumor_ml)) if number < 40}
    for seed in range(3):
        parts = draw(group(kind, seed=seed), tumor_ml, patients)
        assert sorted(case for part in parts.values() for case in part) == sorted(tumor_ml)
        homes = [{patients.get(case, case) for case in part} for part in parts.values()]
        assert sum(map(len, homes)) == len(set().union(*homes)) == 30
        assert all(parts.values())


@pytest.mark.parametrize(("total", "validation"), [(210, 21), (300, 21), (42, 4), (4, 1), (2, 1)])
def test_the_papers_split_has_21_validation_cases_or_a_tenth(total: int, validation: int) -> None:
    ids = list(volumes(total))
    split = draw(group("paper"), dict.fromkeys(ids, 1.0), {})
    assert len(split["validation"]) == validation
    assert sorted(split["train"] + split["validation"]) == ids
    assert split == draw(group("paper"), dict.fromkeys(ids[::-1], 1.0), {})
    if total > 10:
        assert split != draw(group("paper", seed=1), dict.fromkeys(ids, 1.0), {})


def test_every_case_is_in_one_fold_and_the_folds_are_of_a_size() -> None:
    tumor_ml = volumes(213)
    folds = draw(group("folds"), tumor_ml, {})
    assert list(folds) == ["fold0", "fold1", "fold2", "fold3", "fold4"]
    assert sorted(case for fold in folds.values() for case in fold) == sorted(tumor_ml)
    assert sorted(len(fold) for fold in folds.values()) == [42, 42, 43, 43, 43]


@pytest.mark.parametrize("seed", range(5))
def test_folds_are_stratified_by_tumor_volume(seed: int) -> None:
    tumor_ml = volumes(210, seed)
    ranks = {case: rank for rank, case in enumerate(sorted(tumor_ml, key=tumor_ml.__getitem__))}
    for fold in draw_folds(tumor_ml, k=5, seed=seed).values():
        # One of every five neighbors: a fold's middle case is within a block of the middle of all.
        assert abs(median(ranks[case] for case in fold) - 104.5) <= 5
        assert sorted(ranks[case] // 5 for case in fold) == list(range(42))


def test_folds_depend_on_the_seed_and_not_on_the_order() -> None:
    tumor_ml = volumes(42)
    folds = draw_folds(tumor_ml, k=5, seed=0)
    shuffled = list(tumor_ml)
    random.Random(9).shuffle(shuffled)
    assert folds == draw_folds({case: tumor_ml[case] for case in shuffled}, k=5, seed=0)
    assert folds != draw_folds(tumor_ml, k=5, seed=1)


def test_folds_that_cannot_be_filled_are_refused() -> None:
    with pytest.raises(KitsError, match=r"split\.k=5"):
        draw_folds(volumes(4), k=5, seed=0)
    with pytest.raises(KitsError, match="k=1"):
        group("folds", k=1)


def test_other_impossible_splits_are_refused() -> None:
    with pytest.raises(KitsError, match="at least one each"):
        draw_paper(["case_00000"], validation_cases=21, validation_fraction=0.1, seed=0)


def test_a_split_is_kept_byte_for_byte(tmp_path: Path) -> None:
    path, tumor_ml = tmp_path / "splits.json", volumes(12)
    settle_split(path, group("folds"), tumor_ml, {})
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    # A corrected label map changes a volume, and no reason to move cases between folds.
    settle_split(path, group("folds"), dict.fromkeys(reversed(tumor_ml), 500.0), {})
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == stamp
    content = json.loads(before)
    assert content["settings"] == {"kind": "folds", "seed": 0, "k": 5}
    assert content["cases"] == 12
    assert len(content["cases_sha256"]) == 64


def test_another_list_of_cases_is_refused_by_name_until_renewed(tmp_path: Path) -> None:
    path, tumor_ml = tmp_path / "splits.json", volumes(12)
    settle_split(path, group("folds"), tumor_ml, {})
    before = path.read_bytes()
    changed = {**tumor_ml, "case_00099": 3.0}
    del changed["case_00004"]
    with pytest.raises(KitsError, match=r"new case_00099; gone case_00004; delete the file or add split\.renew=true") as caught:
        settle_split(path, group("folds"), changed, {})
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    settle_split(path, group("folds", renew=True), changed, {})
    assert read_split(path).cases == sorted(changed)
    assert "renew" not in json.loads(path.read_text(encoding="utf-8"))["settings"]


@pytest.mark.parametrize("asked", [group("paper"), group("folds", seed=1), group("folds", k=3)])
def test_other_settings_are_refused_until_renewed(tmp_path: Path, asked: Folds) -> None:
    path, tumor_ml = tmp_path / "splits.json", volumes(12)
    settle_split(path, group("folds"), tumor_ml, {})
    with pytest.raises(KitsError, match=r"kind=folds seed=0 k=5; this run asks for .*split\.renew=true"):
        settle_split(path, asked, tumor_ml, {})
    settle_split(path, asked.model_copy(update={"renew": True}), tumor_ml, {})
    settle_split(path, asked, tumor_ml, {})


def test_a_part_of_the_training_cases_is_drawn_by_seed_and_grows_with_its_size() -> None:
    cases = [f"case_{number:05d}" for number in range(20)]
    few, more = draw_cases(cases, 4, seed=0), draw_cases(cases, 9, seed=0)
    assert len(few) == 4
    assert set(few) < set(more) < set(cases)
    assert few == sorted(few) == draw_cases(cases, 4, seed=0) != draw_cases(cases, 4, seed=1)
    assert draw_cases(cases, None, seed=0) == cases
    with pytest.raises(KitsError, match=r"data\.train_cases=21"):
        draw_cases(cases, 21, seed=0)
    data = compose("prepare", ["split=folds"])["data"]
    for impossible in (0, "all"):
        with pytest.raises(KitsError, match=f"data.train_cases={impossible}"):
            parse(Data, {**data, "train_cases": impossible}, "data")


def test_a_fold_is_chosen_where_there_are_folds_and_only_there(tmp_path: Path) -> None:
    tumor_ml = volumes(12)
    settle_split(tmp_path / "folds.json", group("folds"), tumor_ml, {})
    settle_split(tmp_path / "paper.json", group("paper"), tumor_ml, {})
    folds, paper = read_split(tmp_path / "folds.json"), read_split(tmp_path / "paper.json")
    held = [folds.subset("validation", fold) for fold in range(5)]
    assert sorted(case for fold in held for case in fold) == sorted(tumor_ml)
    assert sorted(folds.subset("train", 3) + held[3]) == sorted(tumor_ml)
    assert paper.subset("train", None) == json.loads((tmp_path / "paper.json").read_text(encoding="utf-8"))["parts"]["train"]
    with pytest.raises(KitsError, match=r"fold: no value given; .*fold=0 to fold=4"):
        folds.subset("validation", None)
    for fold in (5, -1, "first"):
        with pytest.raises(KitsError, match=f"fold={fold}: .*5 folds; give one of fold=0 to fold=4"):
            folds.subset("validation", fold)  # type: ignore[arg-type]
    with pytest.raises(KitsError, match=r"fold=0: .*without folds; leave fold out, or .*split=folds"):
        paper.subset("validation", 0)
    with pytest.raises(KitsError, match=r"subset=test: .*train, validation"):
        paper.subset("test", None)


def test_a_file_that_is_no_sound_split_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    settle_split(path, group("folds"), volumes(12), {})
    sound = json.loads(path.read_text(encoding="utf-8"))
    moved = {**sound["parts"], "fold0": sound["parts"]["fold0"] + sound["parts"]["fold1"][:1]}
    lost = {**sound["parts"], "fold0": sound["parts"]["fold0"][1:]}
    gap = {name: ids for name, ids in sound["parts"].items() if name != "fold3"}
    for parts, words in ((moved, "more than once"), (lost, "was drawn for"), (gap, "without a gap")):
        path.write_text(json.dumps({**sound, "parts": parts}))
        with pytest.raises(KitsError, match=words):
            read_split(path)
    for text in ("[]", "{", '{"train": 3}'):
        path.write_text(text)
        with pytest.raises(KitsError, match="cannot be read as a split"):
            read_split(path)


# --- prepare and train -----------------------------------------------------------------------------------------------


def small(root: Path, cache: Path, *overrides: str) -> dict:
    """A training configuration on the small tree; its group `data` prepares it."""
    scaled = ["data.coarse_size=32", "data.workers=1", "data.loader_workers=0", "data.roi_rule.min_voxels=100"]
    scaled += ["sampling.patch=[8,32,32]", "model.width=4", "model.depth=2"]
    return compose("train", ["stage=coarse", f"data.root={root}", f"data.cache={cache}", *scaled, *overrides])


def test_prepare_and_training_refuse_a_changed_case_list(tmp_path: Path) -> None:
    tree, cache = tmp_path / "tree", tmp_path / "cache"
    for number in range(4):
        write_case(tree, f"case_{number:05d}", *kidney_pair(number))
    folds = ["split=folds", "split.k=2"]
    prepare(small(tree, cache, *folds)["data"])
    index = (cache / "index.json").read_bytes()
    with pytest.raises(KitsError, match=r"gone case_00002; .*split\.renew=true"):
        prepare(small(tree, cache, *folds, "data.exclude=[case_00002]")["data"])
    assert (cache / "index.json").read_bytes() == index, "a refusal leaves the cache as it was"

    module = data_of(small(tree, cache, "fold=1"))
    assert [case.id for case in module.cases["validation"]] == module.split["validation"]
    assert len(module.cases["train"]) == 2
    with pytest.raises(KitsError, match="this run asks for kind=paper"):
        data_of(small(tree, cache, "split=paper"))
    content = json.loads(index)
    del content["cases"]["case_00001"]
    (cache / "index.json").write_text(json.dumps(content))
    with pytest.raises(KitsError, match=r"gone case_00001; run kits\.prepare again"):
        data_of(small(tree, cache, "fold=1"))
    with pytest.raises(KitsError, match="split=paper or split=folds"):
        prepare(small(tree, cache)["data"])


def test_a_split_is_a_kind_for_some_commands_and_its_file_for_others() -> None:
    assert compose("prepare", ["split=folds", "split.k=3"])["data"]["split"]["k"] == 3
    for command, needed in (("predict", ["coarse=a", "fine=a", "input=b"]), ("evaluate", ["prediction=a", "truth=b"])):
        config = compose(command, [*needed, "output=c", "split_file=cache/splits.json", "fold=2"])
        assert config["split_file"] == "cache/splits.json"
        assert (config["subset"], config["fold"]) == ("validation", 2)
    with pytest.raises(KitsError, match="split=none: no such choice; take one of folds, paper"):
        compose("prepare", ["split=none"])


def test_a_run_folder_tells_its_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KITS_OUTPUT", raising=False)
    assert compose("train", ["stage=coarse"])["run_dir"] == "runs/coarse"
    assert compose("train", ["stage=fine", "fold=0"])["run_dir"] == "runs/fine0"
