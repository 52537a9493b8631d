"""KiTS19 from servers that stall, cut, lie and refuse: what is in place afterwards is whole, and nothing is sent twice."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from kits.config import conf_dir
from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.commands import Download
from kits.core.errors import KitsError
from kits.data.downloading import download, readable_size
from kits.data.layouts import kits_tree
from kits.data.sources import list_cases, list_files, without_secrets
from tests.conftest import kidney_pair, prepare, write_case
from tests.server import API, GIT, HUB, Fault, Server

RECORDS = [{"case_id": f"case_{number:05d}", "voxel_spacing": {"z_spacing": 4.0}} for number in range(2)]

# kits.download as a terminal starts it: a shell's background jobs, and what they start, ignore SIGINT.
TERMINAL = """
import runpy, signal
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 10000
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("kits.download", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the servers keep: two labeled cases, one without labels, the records."""
    root = tmp_path_factory.mktemp("served")
    content = {f"{GIT}/kits.json": json.dumps(RECORDS).encode()}
    for number in (0, 1, 210):
        case = f"case_{number:05d}"
        folder = write_case(root, case, *kidney_pair(number))
        content[image_path(number)] = (folder / "imaging.nii.gz").read_bytes()
        if number < 210:
            content[f"{GIT}/{case}/segmentation.nii.gz"] = (folder / "segmentation.nii.gz").read_bytes()
    return content


@pytest.fixture
def server(files: dict[str, bytes]) -> Iterator[Server]:
    with Server(dict(files)) as running:
        yield running


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were asked for, none of which is waited for; pieces and patience are those of small files."""
    asked: list[float] = []
    for module in ("kits.data.remote", "huggingface_hub.file_download", "huggingface_hub.utils._http"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(**{**vars(time), "sleep": asked.append}))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10000)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    return asked


def image_path(number: int) -> str:
    return f"{HUB}/case_{number:05d}.nii.gz"


@cache
def defaults() -> dict:
    return compose("download", ["output=x", "cases=0"])


def options(config: dict) -> Download:
    return parse(Download, config)


def run(server: Server, output: Path, cases: object = "0", **changes: object) -> str:
    """Download from the local server."""
    addresses = {"hub_endpoint": server.url, "labels_url": f"{server.url}{GIT}"}
    return download(options(defaults() | addresses | {"output": str(output), "cases": cases, "retries": 2} | changes))


def in_place(output: Path) -> set[str]:
    """The visible files below a folder."""
    return {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file() and ".download" not in path.parts}


def parts(output: Path, file: str = "") -> list[Path]:
    return sorted((output / ".download").glob(f"{file}*.part*"))


def test_what_arrives_is_what_prepare_reads(server: Server, files: dict[str, bytes], tmp_path: Path) -> None:
    summary = run(server, tmp_path / "kits", "0-1")
    assert "5 files downloaded" in summary
    for number in (0, 1):
        assert (tmp_path / f"kits/case_0000{number}/imaging.nii.gz").read_bytes() == files[image_path(number)]
    assert json.loads((tmp_path / "kits/kits.json").read_text(encoding="utf-8")) == RECORDS
    assert not parts(tmp_path / "kits")
    assert list(kits_tree(tmp_path / "kits", "segmentation.nii.gz", None).cases) == ["case_00000", "case_00001"]
    data = compose("prepare", [f"data.root={tmp_path / 'kits'}", f"data.cache={tmp_path / 'cache'}"])["data"]
    data["coarse_size"], data["workers"], data["roi_rule"]["min_voxels"] = 32, 1, 100
    assert sorted(prepare(data)["cases"]) == ["case_00000", "case_00001"]


def test_a_second_run_asks_for_nothing_and_reads_nothing_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(server, tmp_path)
    server.requests.clear()
    monkeypatch.setattr("kits.data.store.check_content", lambda path: pytest.fail(f"{path} is read again"))
    assert "0 files downloaded (0.00 B), 3 were there and sound" in run(server, tmp_path)
    assert not server.requests


def test_test_cases_have_no_labels_and_labels_can_come_alone(server: Server, tmp_path: Path) -> None:
    run(server, tmp_path / "test", "210")
    assert in_place(tmp_path / "test") == {"kits.json", "case_00210/imaging.nii.gz"}
    run(server, tmp_path / "labels", [0, 210], imaging=False)
    assert in_place(tmp_path / "labels") == {"kits.json", "case_00000/segmentation.nii.gz"}


def test_a_cut_connection_goes_on_from_where_it_stopped(server: Server, files: dict[str, bytes], tmp_path: Path) -> None:
    path = image_path(0)
    server.faults["GET", path] = [Fault(cut=30000), Fault(cut=20000)]
    run(server, tmp_path)
    assert [request.range for request in server.asked("GET", path)] == [None, "bytes=30000-", "bytes=50000-"]
    assert server.sent[path] == len(files[path])
    assert (tmp_path / "case_00000/imaging.nii.gz").read_bytes() == files[path]


def test_a_silent_server_is_left_and_asked_again(server: Server, files: dict[str, bytes], tmp_path: Path) -> None:
    path = f"{GIT}/case_00000/segmentation.nii.gz"
    server.faults["GET", path] = [Fault(stall=0)]
    began = time.monotonic()
    run(server, tmp_path, imaging=False)
    assert time.monotonic() - began < 10
    assert [request.range for request in server.asked("GET", path)] == [None, None]
    assert (tmp_path / "case_00000/segmentation.nii.gz").read_bytes() == files[path]


def test_a_server_that_cannot_resume_sends_all(server: Server, files: dict[str, bytes], tmp_path: Path) -> None:
    path = image_path(0)
    server.faults["GET", path] = [Fault(cut=30000), Fault(no_range=True)]
    run(server, tmp_path)
    assert (tmp_path / "case_00000/imaging.nii.gz").read_bytes() == files[path]


def test_a_server_that_tells_no_size_is_believed_as_far_as_the_file_opens(
    server: Server, files: dict[str, bytes], tmp_path: Path
) -> None:
    path = f"{GIT}/case_00000/segmentation.nii.gz"
    server.faults["GET", path] = [Fault(unsized=True, cut=500), Fault(unsized=True, cut=len(files[path]))]
    run(server, tmp_path, imaging=False)
    assert len(server.asked("GET", path)) == 2
    assert (tmp_path / "case_00000/segmentation.nii.gz").read_bytes() == files[path]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    for method, path in (("POST", API), ("GET", image_path(0)), ("GET", f"{GIT}/kits.json")):
        server.faults[method, path] = [Fault(status=status)] * 2
    assert "3 files downloaded" in run(server, tmp_path)


def test_a_server_that_asks_for_a_pause_gets_it(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    wait = Fault(status=429, headers=(("Retry-After", "17"),))
    limit = Fault(status=429, headers=(("RateLimit", '"resolvers";r=0;t=23'),))
    server.faults["GET", f"{GIT}/kits.json"], server.faults["GET", image_path(0)] = [wait], [limit]
    run(server, tmp_path)
    assert sorted(pauses) == [18, 24]  # one more, so that rounding does not fall short


def test_a_busy_server_is_given_up_and_the_others_finish(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.always["GET", image_path(0)] = Fault(status=503)
    with pytest.raises(KitsError, match=r"4 files downloaded .* 0 were there and sound, 1 failed") as caught:
        run(server, tmp_path, "0-1")
    assert "\n" not in str(caught.value)
    assert "case_00000/imaging.nii.gz: " in capsys.readouterr().err
    assert len(server.asked("GET", image_path(0))) == 3
    assert in_place(tmp_path) == {
        "kits.json",
        "case_00000/segmentation.nii.gz",
        "case_00001/segmentation.nii.gz",
        "case_00001/imaging.nii.gz",
    }


@pytest.mark.parametrize(
    ("question", "status", "words"),
    [
        (("GET", image_path(1)), 404, "does not have it (HTTP 404); check hub_repo"),
        (("GET", image_path(1)), 401, "refuses access (HTTP 401); check hub_repo"),
        (None, 200, "does not have it; check hub_repo"),
    ],
)
def test_a_definite_answer_is_one_line_with_a_remedy(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    question: tuple[str, str] | None,
    status: int,
    words: str,
) -> None:
    if question:
        server.always[question] = Fault(status=status)
    else:
        del server.files[image_path(1)]
    with pytest.raises(KitsError, match="1 failed"):
        run(server, tmp_path, "0-1")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(lines) == 1
    assert lines[0].startswith("failed: case_00001/imaging.nii.gz: ")
    assert words in lines[0]
    assert len(server.asked("GET", image_path(1))) == (1 if question else 0)
    assert (tmp_path / "case_00000/imaging.nii.gz").exists()


def test_many_cases_that_fail_alike_are_one_line(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KitsError, match="16 failed"):
        run(server, tmp_path, [0, "2-9"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert [line.partition(" and ")[0].count("case_") for line in lines] == [5, 5]
    assert sum("and 3 more" in line for line in lines) == 2


def test_an_unreachable_server_is_not_waited_for_case_by_case(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], pauses: list[float]
) -> None:
    with pytest.raises(KitsError, match=r"2 files downloaded .* 210 failed"):  # nothing listens there
        run(server, tmp_path / "imaging", "0-209", hub_endpoint="http://127.0.0.1:9", labeled_cases="0")
    assert len(pauses) == 2
    with pytest.raises(KitsError, match="211 failed"):
        run(server, tmp_path / "labels", "0-209", labels_url="http://127.0.0.1:9/data", imaging=False, workers=1)
    assert len(pauses) < 2 + 3 * 6  # of the first file alone
    assert capsys.readouterr().err.count("cannot be reached") == 2


def broken(kind: str, whole: bytes) -> bytes:
    """A damaged file."""
    middle = len(whole) // 2
    return {
        "truncated on the server": whole[:middle],
        "truncated after the promise": whole[:middle],
        "longer than the promise": whole + b"0" * 10,
        "a bit is wrong": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "voxels are missing": gzip.compress(gzip.decompress(whole)[:-1000]),
        "not an image": b"version 1 oid 7",
    }[kind]


KINDS = [
    "truncated on the server",
    "truncated after the promise",
    "longer than the promise",
    "a bit is wrong",
    "voxels are missing",
    "not an image",
]


@pytest.mark.parametrize("name", ["segmentation", "imaging"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_fetched_again_then_reported_and_never_put_in_place(
    server: Server, files: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, name: str
) -> None:
    path = image_path(0) if name == "imaging" else f"{GIT}/case_00000/segmentation.nii.gz"
    if kind in ("truncated on the server", "voxels are missing", "not an image"):  # which the server does not know
        server.files[path] = broken(kind, files[path])
    else:
        server.always["GET", path] = Fault(content=broken(kind, files[path]))
    with pytest.raises(KitsError, match=r"2 files downloaded .* 1 failed"):
        run(server, tmp_path)
    assert len(server.asked("GET", path)) == 2
    assert f"failed: case_00000/{name}.nii.gz: " in capsys.readouterr().err
    assert f"case_00000/{name}.nii.gz" not in in_place(tmp_path)
    assert not parts(tmp_path)
    server.always.clear()  # mended: one more run completes the case
    server.files |= files
    assert "1 files downloaded" in run(server, tmp_path)


def test_a_file_that_was_damaged_once_comes_whole(server: Server, files: dict[str, bytes], tmp_path: Path) -> None:
    path = image_path(0)
    server.faults["GET", path] = [Fault(content=broken("a bit is wrong", files[path]))]
    run(server, tmp_path)
    assert (tmp_path / "case_00000/imaging.nii.gz").read_bytes() == files[path]
    assert [request.range for request in server.asked("GET", path)] == [None, None]


@pytest.mark.parametrize("name", ["case_00000/imaging.nii.gz", "case_00000/segmentation.nii.gz", "kits.json"])
def test_a_damaged_file_in_place_is_fetched_again_and_a_sound_one_is_kept(server: Server, tmp_path: Path, name: str) -> None:
    run(server, tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert "1 files downloaded" in run(server, tmp_path)
    assert (tmp_path / name).read_bytes() == whole


def test_the_users_own_sound_file_is_not_replaced(server: Server, tmp_path: Path) -> None:
    folder = write_case(tmp_path, "case_00000", *kidney_pair(7))
    mine = (folder / "segmentation.nii.gz").read_bytes()
    assert "1 files downloaded" in run(server, tmp_path)  # the records
    assert (folder / "segmentation.nii.gz").read_bytes() == mine


@pytest.mark.parametrize(
    ("sign", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)], ids=["killed", "interrupted"]
)
def test_a_killed_or_interrupted_download_goes_on_from_its_part(
    server: Server, files: dict[str, bytes], tmp_path: Path, sign: signal.Signals, status: int
) -> None:
    path, image, arrived = image_path(0), "case_00000.imaging", 40000
    server.faults["GET", path] = [Fault(stall=arrived)]
    addresses = [f"hub_endpoint={server.url}", f"labels_url={server.url}{GIT}"]
    program = [sys.executable, "-c", TERMINAL, f"output={tmp_path}", "cases=0", *addresses]
    patient = os.environ | {"HF_HUB_DOWNLOAD_TIMEOUT": "60"}
    checkout = conf_dir().parent
    with (
        subprocess.Popen(program, cwd=checkout, env=patient, stderr=subprocess.PIPE, encoding="utf-8") as process,
        ExitStack() as stack,
    ):
        stack.callback(process.kill)
        assert server.stalled.wait(60)
        deadline = time.monotonic() + 5
        while (
            sum(part.stat().st_size for part in parts(tmp_path, "case_00000.imaging")) < arrived and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        began = time.monotonic()
        process.send_signal(sign)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == status, errors
    assert time.monotonic() - began < 10  # although the server would be waited for a minute
    if sign == signal.SIGINT:
        assert "the same command goes on from there" in errors
        assert "Traceback" not in errors
    assert not (tmp_path / "case_00000/imaging.nii.gz").exists()
    assert [part.read_bytes() for part in parts(tmp_path, image)] == [files[path][:arrived]]
    run(server, tmp_path)
    assert [request.range for request in server.asked("GET", path)] == [None, f"bytes={arrived}-"]
    assert (tmp_path / "case_00000/imaging.nii.gz").read_bytes() == files[path]


def test_a_part_of_another_version_is_not_continued(server: Server, files: dict[str, bytes], tmp_path: Path) -> None:
    path = image_path(0)
    server.faults["GET", path] = [Fault(cut=30000)]
    server.always["GET", path] = Fault(status=503)
    with pytest.raises(KitsError):
        run(server, tmp_path)
    assert [part.stat().st_size for part in parts(tmp_path)] == [30000]
    server.always.clear()
    server.files[path] = files[image_path(1)]
    server.requests.clear()
    run(server, tmp_path)
    assert [request.range for request in server.asked("GET", path)] == [None]
    assert (tmp_path / "case_00000/imaging.nii.gz").read_bytes() == files[image_path(1)]
    assert not parts(tmp_path)


def test_a_disk_without_room_is_refused_before_anything_is_fetched(
    server: Server, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = len(files[image_path(0)])
    for free in (need - 1, need):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: type("Usage", (), {"free": free}))
        if free < need:
            with pytest.raises(KitsError, match=r"to fetch, but the disk has .* \(imaging=false\)"):
                run(server, tmp_path)
            assert not [request for request in server.requests if request.method == "GET"]
        else:
            assert "3 files downloaded" in run(server, tmp_path)


def test_two_downloads_into_one_folder_do_not_mix(server: Server, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / ".download").mkdir()
    with (tmp_path / ".download/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(KitsError, match=r"another kits\.download is at work"):
            run(server, tmp_path)
    assert "3 files downloaded" in run(server, tmp_path)


def test_a_token_goes_to_the_users_own_hub_alone_and_nowhere_on_the_screen(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    server.redirect_to = "localhost"
    with pytest.raises(KitsError) as caught:
        run(server, tmp_path / "mirror", [0, 2])
    assert not [request for request in server.requests if request.token]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    server.requests.clear()
    server.faults["GET", f"/cdn{image_path(0)}"] = [Fault(cut=30000)]
    run(server, tmp_path / "own")
    assert {request.path for request in server.requests if request.token} == {API, image_path(0)}
    assert [request.range for request in server.asked("GET", f"/cdn{image_path(0)}")][-2:] == [None, "bytes=30000-"]
    screen = capsys.readouterr()
    assert not any(secret in screen.out + screen.err + str(caught.value) for secret in ("very_secret", "signature"))


def test_the_users_environment_is_left_alone(server: Server, tmp_path: Path) -> None:
    from huggingface_hub import constants

    before = dict(os.environ), constants.HF_HUB_DISABLE_TELEMETRY
    run(server, tmp_path)
    assert (dict(os.environ), constants.HF_HUB_DISABLE_TELEMETRY) == before
    assert not [request for request in server.requests if "agent" in request.path]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("all", list(range(300))),
        ("train", list(range(210))),
        ("7", [7]),
        ("case_00160", [160]),
        ("0-41", list(range(42))),
        ("[5,case_00003,8-10,5]", [3, 5, 8, 9, 10]),
        ("00012", [12]),
    ],
)
def test_cases_are_named_as_one_would(text: str, numbers: list[int]) -> None:
    assert list_cases(options(compose("download", ["output=x", f"cases={text}"]))) == numbers


@pytest.mark.parametrize("text", ["some", "300", "41-0", "[]", "-3", "1.5", "true", "[1,x]"])
def test_other_cases_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(KitsError, match="cases") as caught:
        list_cases(options(compose("download", ["output=x", f"cases={text}"])))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("hub_endpoint", "mirror.org"), ("labels_url", ""), ("hub_repo", "no data set"), ("hub_endpoint", "http://")],
)
def test_an_address_that_is_none_is_refused_in_one_line(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(KitsError, match=key):
        download(options(defaults() | {"output": str(tmp_path), key: value}))


def test_the_public_addresses_are_the_documented_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert [source.url for source in list_files(options(compose("download", ["output=x", "cases=[3,299]"])))] == [
        "https://raw.githubusercontent.com/neheller/kits19/master/data/kits.json",
        "https://raw.githubusercontent.com/neheller/kits19/master/data/case_00003/segmentation.nii.gz",
        "https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging/resolve/main/images/case_00003.nii.gz",
        "https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging/resolve/main/images/case_00299.nii.gz",
    ]


def test_addresses_are_shown_without_secrets() -> None:
    assert without_secrets("https://me:password@mirror.org:8443/base/?token=1") == "https://mirror.org:8443/base"
    assert readable_size(28_400_000_000) == "28.4 GB"
