"""Whatever a file is called, and whatever it is: the terminal gets but text, nothing is waited for, nothing stays half."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from kits.core.errors import KitsError, printable
from kits.data.scans import find_inputs
from kits.data.validate import ERROR, Finding, table
from kits.io import read_volume, whole_file, whole_folder, write_json, write_text, writing
from kits.io.tree import Skipped, summary
from kits.prediction.ledger import RunReport
from kits.prediction.outputs import Outputs
from kits.reporting.run_notes import read_notes
from tests.conftest import kidney_pair
from tests.predicting import run, write_checkpoints

EVIL = "\x1b]0;owned\x07\n\x1b[31mred\u202e"
LATIN = "caf\udce9"  # the byte E9, which is no UTF-8


def image(path: Path) -> Path:
    """A CT at any name that a file may have."""
    path.parent.mkdir(exist_ok=True)
    made = path.with_name("made.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(kidney_pair(0)[0]), str(made))
    return made.rename(path)


def test_a_text_becomes_one_line_that_a_terminal_shows() -> None:
    assert printable("Müller (1), 腎臓 ½.nii.gz") == "Müller (1), 腎臓 ½.nii.gz"
    assert printable(f"a{EVIL}") == r"a\x1b]0;owned\x07\n\x1b[31mred\u202e"
    assert printable(LATIN) == r"caf\udce9"
    error = KitsError(f"{EVIL}: damaged; copy it again")
    assert str(error).isprintable()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # as a worker process hands it on
    assert str(Skipped(Path(EVIL), "a pipe")).isprintable()
    assert all(line.isprintable() for line in summary([Skipped(Path("x", EVIL + end), EVIL) for end in "ab"]))
    finding = Finding(f"case_{EVIL}", ERROR, EVIL, "mend it")
    assert str(finding).isprintable()
    assert len(table([finding], Path("findings.csv")).splitlines()) == 2


@pytest.mark.parametrize(
    "name", [f"evil{EVIL}.nii.gz", f"{LATIN}.nii.gz", "-x (1), [a]{b}.nii.gz", "a" * 248 + ".nii.gz", "~.nii.gz"]
)
def test_an_image_of_any_name_is_read_and_its_own_is_safe(tmp_path: Path, name: str) -> None:
    path = image(tmp_path / name)
    (scan,) = find_inputs(tmp_path).scans.values()
    assert scan.path == path
    assert scan.name.isprintable()
    assert scan.read().array.shape == (20, 64, 64)


def test_names_that_are_no_text_pass_through_a_whole_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The process was aborted (SIGABRT) by one such name, and again on every restart."""
    names = [f"{LATIN}.nii.gz", f"evil{EVIL}.nii.gz", "good.nii.gz"]
    for name in names:
        image(tmp_path / "in" / name)
    (tmp_path / "in" / f"{LATIN}_damaged.nii.gz").write_bytes(b"no image")
    (tmp_path / "in" / f"beside{EVIL}").write_text("?")
    checkpoints = write_checkpoints(tmp_path / "checkpoints")
    for _ in range(2):
        with pytest.raises(KitsError, match=r"^1 of 4 inputs could not be segmented, the first: .*caf\\udce9_damaged"):
            run(*checkpoints, f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}")
        told = capsys.readouterr()
        assert "\x1b" not in told.out
        assert "evil\n" not in told.out
        report = json.loads((tmp_path / "out" / "report.json").read_bytes().decode("ascii"))
        assert len(report["cases"]) == 3
        assert {entry["input"]["path"] for entry in report["cases"].values()} == {str(tmp_path / "in" / name) for name in names}
        assert [Path(item["path"]).name for item in report["skipped"]] == [f"beside{EVIL}"]


def test_texts_with_such_names_are_written_as_utf_8(tmp_path: Path) -> None:
    write_text(tmp_path / f"{LATIN}.csv", f"{LATIN},1\n")
    assert (tmp_path / f"{LATIN}.csv").read_text(encoding="utf-8") == "caf\\udce9,1\n"
    write_json(tmp_path / "a.json", {"path": LATIN})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"path": LATIN}


@pytest.mark.parametrize("encoding", ["C", "POSIX"])
def test_a_command_prints_whatever_the_terminal_can_write(tmp_path: Path, encoding: str) -> None:
    environment = {**os.environ, "LC_ALL": encoding, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "kits.phantom", b"output=" + os.fsencode(tmp_path) + b"/caf\xe9/x", b"labels=caf\xe9"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"kits.phantom: labels=caf\\")
    assert b"Traceback" not in done.stderr


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    image(tmp_path / "good.nii.gz")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.nii.gz")
    os.mkfifo(tmp_path / "list.txt")
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "nowhere.nii.gz").symlink_to("nothing")
    (tmp_path / "loop.nii.gz").symlink_to("loop.nii.gz")
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "device").symlink_to("/dev/zero")
    found = find_inputs(tmp_path)
    assert list(found.scans) == ["good"]
    named = {item.path.name for item in found.skipped}
    assert named >= {"pipe", "pipe.nii.gz", "list.txt", "nowhere.nii.gz", "loop.nii.gz", "device"}
    for name in ("pipe.nii.gz", "device", "loop.nii.gz", "nowhere.nii.gz"):
        with pytest.raises(KitsError, match=r"no regular file|no such file|cannot be opened"):
            read_volume(tmp_path / name)
    with pytest.raises(KitsError, match="no regular file"):
        find_inputs(tmp_path / "list.txt")


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_list_is_read_as_any_editor_writes_it(tmp_path: Path, begin: bytes, end: bytes) -> None:
    names = ["first.nii.gz", "Müller (1).nii.gz", f"{LATIN}.nii.gz"]
    for name in names:
        image(tmp_path / name)
    (tmp_path / "list.txt").write_bytes(begin + end.join([*map(os.fsencode, names), b"", b"# no more"]))
    assert [scan.path for scan in find_inputs(tmp_path / "list.txt").scans.values()] == [tmp_path / name for name in names]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_list_in_another_encoding_is_one_line(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "list.txt").write_bytes("a.nii.gz\nb.nii.gz\n".encode(encoding))
    with pytest.raises(KitsError, match=r"UTF-16 text; save the list as UTF-8|no text; a list has one path a line"):
        find_inputs(tmp_path / "list.txt")


@pytest.mark.parametrize(
    "damage",
    [
        {"seconds": {"read": float("nan")}},
        {"seconds": {"read": "soon"}},
        {"seconds": [1]},
        {"seconds": None},
        {"boxes": [[[0, 0, float("inf")], [1, 2, 3]]]},
        {"boxes": [[[3, 3, 3], [1, 2, 3]]]},
        {"boxes": "none"},
        {"boxes": None},
        {"warnings": 3},
        {"warnings": [None]},
    ],
)
def test_a_damaged_report_costs_no_page(tmp_path: Path, damage: dict) -> None:
    entry = {"boxes": [[[0, 0, 0], [1, 2, 3]]], "seconds": {"read": 1.0}, "warnings": []}
    (tmp_path / "report.json").write_text(json.dumps({"cases": {"a": {**entry, **damage}}}))
    assert read_notes(tmp_path, "a").warnings == ["the run's report of this case is damaged"]


@pytest.mark.parametrize(
    "damage", [{"error": None}, {"input": 3}, {"input": {}}, {"status": None}, {"status": "ok", "outputs": [1]}]
)
def test_a_damaged_entry_costs_no_report(tmp_path: Path, damage: dict) -> None:
    report = RunReport(Outputs.of(tmp_path, "labels", False), {}, {})
    whole = {"status": "failed", "input": {"path": "x"}, "error": "is damaged"}
    write_json(tmp_path / "report" / "a.json", whole)
    write_json(tmp_path / "report" / "b.json", {**whole, **damage})
    path = report.join(["a", "b"], [])
    assert path is not None
    assert list(json.loads(path.read_text(encoding="utf-8"))["failed"]) == ["a"]


KILLED = """
import sys, time
from pathlib import Path
from kits.io import whole_file, whole_folder
path = Path(sys.argv[1])
with (whole_folder(path) if sys.argv[2] == "folder" else whole_file(path, ".nii.gz")) as temporary:
    (temporary / "half" if sys.argv[2] == "folder" else temporary).write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_was_writing_goes_at_the_next_start_and_what_another_writes_stays(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / ("case_00000" if kind == "folder" else "scan.nii.gz")
    command = [sys.executable, "-c", KILLED, str(path), kind]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
    assert len(list(tmp_path.iterdir())) == 2
    mine = [".backup.12345678.csv", ".scan.20240101.nii.gz", ".kits-notes"]
    for name in mine:
        (tmp_path / name).touch()
    writers[0].send_signal(signal.SIGKILL)
    writers[0].wait()
    writing.remove_leftovers.cache_clear()
    write_text(tmp_path / "report.json", "{}")
    left = {entry.name for entry in tmp_path.iterdir()} - {"report.json", *mine}
    assert len(left) == 1, "the half of the killed one is gone, and the other goes on"
    writers[1].send_signal(signal.SIGKILL)
    writers[1].wait()
    for writer in writers:
        writer.stdout.close()
    writing.remove_leftovers.cache_clear()
    write_text(tmp_path / "report.json", "{}")
    assert {entry.name for entry in tmp_path.iterdir()} == {"report.json", *mine}


@pytest.mark.parametrize("removed", [False, True])
def test_a_name_that_another_process_takes_for_a_leftover_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    opened, taken = os.open, []

    def open_late(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if not taken:
            taken.append(Path(path))
            if removed:
                taken[0].rmdir()
            else:  # it is about to remove it
                fcntl.flock(opened(path, flags), fcntl.LOCK_EX)
        return opened(path, flags, mode)

    monkeypatch.setattr(writing.os, "open", open_late)
    with whole_folder(tmp_path / "case_00000") as folder:
        assert folder != taken[0]
        (folder / "imaging").touch()
    assert (tmp_path / "case_00000" / "imaging").exists()


def test_what_another_machine_may_be_writing_stays_for_an_hour(tmp_path: Path) -> None:
    other = tmp_path / ".scan.kits-ffff01234567.nii.gz"
    assert not other.name.startswith(f".scan.kits-{writing._HOST}")
    other.touch()
    write_text(tmp_path / "a.txt", "")
    assert other.exists()
    os.utime(other, (time.time() - 4000, time.time() - 4000))
    writing.remove_leftovers.cache_clear()
    write_text(tmp_path / "a.txt", "")
    assert not other.exists()


def test_a_folder_is_the_old_or_the_new_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "case_00000"
    for content in ("old", "new"):
        with whole_folder(path) as folder:
            (folder / "imaging").write_text(content)
            assert not path.exists() or (path / "imaging").read_text() == "old"
        assert (path / "imaging").read_text() == content
    with pytest.raises(KitsError, match="cannot be written"), whole_folder(path) as folder:
        (folder / "missing" / "imaging").write_text("half")
    assert (path / "imaging").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["case_00000"]


def test_a_name_of_255_bytes_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 248 + ".nii.gz")
    with whole_file(path, ".nii.gz") as temporary:
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    assert np.array_equal([entry.name for entry in tmp_path.iterdir()], [path.name])
