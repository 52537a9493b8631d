"""README and CONTRIBUTING name what there is."""

import re
from pathlib import Path

import pytest

from tests.unit.test_floors import ROOMS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LISTED = re.findall(r"^\| `(kits/\S+\.py)` \| (\d+) \|", README, re.MULTILINE)


def test_readme_lists_the_method_from_label_map_to_loss_and_from_scan_to_labels() -> None:
    names = [file for file, _ in LISTED]
    assert len(names) == len(set(names)) > 15
    assert {"kits/training/losses.py", "kits/inference/segmenter.py"} <= set(names)


@pytest.mark.parametrize(("file", "lines"), LISTED)
def test_a_file_of_the_method_is_about_as_long_as_readme_says(file: str, lines: str) -> None:
    assert len((ROOT / file).read_text(encoding="utf-8").splitlines()) == pytest.approx(int(lines), rel=0.15)


def test_contributing_lists_every_room_in_its_order() -> None:
    named = re.findall(r"^\| `(\w+)` \| ", CONTRIBUTING, re.MULTILINE)
    assert named == ROOMS


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`((?:kits|tests)/[\w/]+\.py|conf/\w+/)`", CONTRIBUTING))))
def test_a_path_that_contributing_names_is_there(file: str) -> None:
    assert (ROOT / file).exists()
