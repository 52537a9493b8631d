"""The cache as a folder: restarted, killed, half-written, too large for the disk, used twice at once."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kits.core.errors import KitsError
from kits.data import arrays
from kits.data import cache as cache_module
from kits.data.arrays import start_npy
from kits.data.preparation import held_cache
from kits.volume import slabs
from tests.conftest import prepare
from tests.unit.test_preparation import data_config

# Stops for good in the middle of the third case, with its label map written.
KILLED = """
import json, sys, time
from kits.data import arrays
from tests.conftest import prepare
calls, write_image = [], arrays.write_image
def stopping(*args):
    calls.append(1)
    if len(calls) == 3:
        print("half", flush=True)
        time.sleep(600)
    return write_image(*args)
arrays.write_image = stopping
prepare(json.loads(sys.argv[1]))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def cache(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    prepare(data_config(kits_tree, folder))
    return folder


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache_module, "read_volume", fail)
    monkeypatch.setattr(cache_module, "read_labels", fail)


def test_a_second_run_decodes_nothing_and_changes_nothing(kits_tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(cache)
    forbid_decoding(monkeypatch)
    prepare(data_config(kits_tree, cache))
    assert contents(cache) == before


def test_a_prepare_that_is_killed_goes_on_where_it_stopped(kits_tree: Path, cache: Path, tmp_path: Path) -> None:
    data = data_config(kits_tree, tmp_path / "cache")
    text = json.dumps({**data, "root": str(data["root"]), "cache": str(data["cache"])})
    with subprocess.Popen([sys.executable, "-c", KILLED, text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout is not None
        assert any(b"half" in line for line in run.stdout)
        run.send_signal(signal.SIGKILL)
    cases = tmp_path / "cache" / "cases"
    finished = {path: path.stat().st_mtime_ns for path in cases.glob("case_*/record.json")}
    assert len(finished) == 2
    assert len(list(cases.glob(".case_*/label.npy"))) == 1, "it was killed in the middle of a case"
    prepare(data)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert contents(tmp_path / "cache") == contents(cache)


def prepare_and_die(data: dict[str, Any], at: int) -> None:
    """Prepare, and be killed for good before the write or rename number `at`, with whatever is half-written then."""
    events = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal events
            events += 1
            if events == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return wrapped

    np.save = counted(np.save)
    os.replace = counted(os.replace)
    arrays.start_npy = counted(arrays.start_npy)
    prepare(data)


@pytest.mark.slow
def test_a_prepare_that_is_killed_twelve_times_leaves_the_cache_of_one_that_never_was(
    kits_tree: Path, cache: Path, tmp_path: Path
) -> None:
    context, chance, killed = multiprocessing.get_context("forkserver"), random.Random(0), 0
    context.set_forkserver_preload([__name__])
    while killed < 12:
        if killed in (4, 8):  # from the beginning again: what is whole is not written, and so would not be killed
            shutil.rmtree(tmp_path / "cache")
        process = context.Process(target=prepare_and_die, args=(data_config(kits_tree, tmp_path / "cache"), chance.randint(1, 9)))
        process.start()
        process.join(300)
        assert process.exitcode == -signal.SIGKILL
        killed += 1
    prepare(data_config(kits_tree, tmp_path / "cache"))
    assert contents(tmp_path / "cache") == contents(cache)


def test_two_processes_write_the_same_cache_as_one(kits_tree: Path, cache: Path, tmp_path: Path) -> None:
    prepare(data_config(kits_tree, tmp_path / "cache", workers=2))
    assert contents(tmp_path / "cache") == contents(cache)


@pytest.mark.parametrize("name", ["image.npy", "record.json"])
def test_a_case_that_a_crash_left_short_is_written_again(kits_tree: Path, cache: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    (path,) = (tmp_path / "cache" / "cases").glob(f"case_00001-*/{name}")
    path.write_bytes(path.read_bytes()[:100])
    prepare(data_config(kits_tree, tmp_path / "cache"))
    assert contents(tmp_path / "cache") == contents(cache)


def test_a_failed_run_leaves_no_index_of_an_earlier_one(kits_tree: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(kits_tree, tmp_path / "tree"))
    prepare(data_config(tree, tmp_path / "cache"))
    (tree / "case_00001" / "imaging.nii.gz").write_bytes(b"")
    with pytest.raises(KitsError, match="case_00001"):
        prepare(data_config(tree, tmp_path / "cache"))
    assert not (tmp_path / "cache" / "index.json").exists()


def test_the_size_is_printed_in_advance_and_refused_where_the_disk_is_too_small(
    kits_tree: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = sum(path.stat().st_size for path in cache.glob("cases/*/*"))
    usage = type("usage", (), {"free": 0})
    monkeypatch.setattr("kits.data.preparation.shutil.disk_usage", lambda path: usage)
    usage.free = written // 2
    with pytest.raises(KitsError, match=r"data\.cache=.*GB free; free space") as caught:
        prepare(data_config(kits_tree, tmp_path / "cache"))
    assert "\n" not in str(caught.value)
    assert "4 are to be written" in capsys.readouterr().out
    assert not list((tmp_path / "cache" / "cases").iterdir())
    prepare(data_config(kits_tree, cache))  # all there: needs no room
    assert "0 are to be written" in capsys.readouterr().out
    usage.free = written + 300_000
    prepare(data_config(kits_tree, tmp_path / "cache"))


def test_a_second_prepare_of_the_same_cache_is_refused(kits_tree: Path, tmp_path: Path) -> None:
    with held_cache(tmp_path), pytest.raises(KitsError, match="another kits"):
        prepare(data_config(kits_tree, tmp_path))


def test_a_plain_file_with_holes_is_a_whole_npy(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 9, (37, 6, 7)).astype(np.int16).transpose(0, 2, 1)
    with (tmp_path / "array.npy").open("wb") as stream:
        start_npy(stream, array.shape, np.int16)
        for _, slab in slabs(array, depth=32):
            stream.write(slab.data)
    np.testing.assert_array_equal(np.load(tmp_path / "array.npy", mmap_mode="r"), array)
