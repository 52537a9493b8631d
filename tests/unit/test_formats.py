"""Every format is read whole and right, or refused: packed voxels to their checksum, geometry to its contradictions."""

from __future__ import annotations

import binascii
import bz2
import gzip
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from kits.core.errors import KitsError
from kits.io import check_file, limits, read_geometry, read_labels, read_volume, write_labels
from kits.volume import grid_of
from tests.conftest import SHARED

HU = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
RAS = np.array([[-0.8, 0, 0, 30.0], [0, -0.7, 0, 40.0], [0, 0, 3.0, 50.0], [0, 0, 0, 1]])


def refusal(path: Path) -> str:
    with pytest.raises(KitsError) as caught:
        read_volume(path)
    text = str(caught.value)
    assert path.stem.split(".")[0] in text
    assert "\n" not in text
    assert ";" in text, f"says what is wrong and not what to do: {text}"
    return text


def nrrd(
    data: bytes, encoding: str = "raw", *, kind: str = "short", endian: str = "little", more: str = "", ends: str = "\n"
) -> bytes:
    """A file whose 7 x 6 x 5 voxels are `data`."""
    lines = ["NRRD0004", "# made by hand", f"type: {kind}", "dimension: 3", "space: left-posterior-superior", "sizes: 7 6 5"]
    lines += ["space directions: (1,0,0) (0,1,0) (0,0,2)", "kinds: domain domain domain", f"endian: {endian}"]
    lines += [f"encoding: {encoding}", *more.splitlines(), "space origin: (0,0,0)", "", ""]
    return ends.join(lines).encode() + data


def meta(data: bytes, *, packed: bool = False, kind: str = "MET_SHORT", big: bool = False, file: str = "LOCAL") -> bytes:
    """The same as MetaImage."""
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        f"BinaryDataByteOrderMSB = {big}",
        f"CompressedData = {packed}",
    ]
    lines += [f"CompressedDataSize = {len(data)}"] if packed and data else []  # ITK needs it
    lines += ["TransformMatrix = 1 0 0 0 1 0 0 0 1", "Offset = 0 0 0", "ElementSpacing = 1 1 2", "DimSize = 7 6 5"]
    return "\n".join([*lines, f"ElementType = {kind}", f"ElementDataFile = {file}", ""]).encode() + data


ENDING = {nrrd: "nrrd", meta: "mha"}


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_every_packing_is_unpacked(tmp_path: Path) -> None:
    raw = HU.tobytes()
    members = gzip.compress(raw[:100]) + gzip.compress(raw[100:])
    paths = [put(tmp_path, f"{name}.nrrd", nrrd(data, name)) for name, data in (("raw", raw), ("gzip", gzip.compress(raw)))]
    paths += [put(tmp_path, "gz.nrrd", nrrd(members, "gz")), put(tmp_path, "bz.nrrd", nrrd(bz2.compress(raw), "bzip2"))]
    paths += [put(tmp_path, "bz2.nrrd", nrrd(bz2.compress(raw[:9]) + bz2.compress(raw[9:]), "bz2"))]
    paths += [put(tmp_path, "hex.nrrd", nrrd(binascii.hexlify(raw), "hex"))]
    paths += [put(tmp_path, "text.nrrd", nrrd(" ".join(map(str, HU.ravel())).encode(), "ascii"))]
    paths += [put(tmp_path, "dos.nrrd", nrrd(raw, ends="\r\n")), put(tmp_path, "raw.mha", meta(raw))]
    paths += [put(tmp_path, "zlib.mha", meta(zlib.compress(raw), packed=True))]
    for name, data in (("data.raw", raw), ("data.raw.gz", gzip.compress(raw)), ("data.zraw", zlib.compress(raw))):
        put(tmp_path, name, data)
    paths += [put(tmp_path, "raw.nhdr", nrrd(b"", more="data file: data.raw"))]
    paths += [put(tmp_path, "gz.nhdr", nrrd(b"", "gzip", more="data file: data.raw.gz"))]
    paths += [
        put(tmp_path, "raw.mhd", meta(b"", file="data.raw")),
        put(tmp_path, "z.mhd", meta(b"", file="data.zraw", packed=True)),
    ]
    paths += [put(tmp_path, "gz.mhd", meta(b"", file="data.raw.gz", packed=True))]
    for path in paths:
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, HU, err_msg=path.name)
        assert volume.spacing == (2, 1, 1)
        check_file(path)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("packed", [False, True])
def test_values_are_itks_to_the_bit_in_either_byte_order(tmp_path: Path, dtype: str, packed: bool) -> None:
    values = (HU % 120).astype(dtype)
    kinds = {"u1": "uint8", "i1": "int8", "i2": "int16", "u2": "uint16", "i4": "int32", "u4": "uint32"}
    kinds |= {"i8": "int64", "u8": "uint64", "f4": "float", "f8": "double"}
    mets = {"u1": "UCHAR", "i1": "CHAR", "i2": "SHORT", "u2": "USHORT", "i4": "INT", "u4": "UINT", "i8": "LONG_LONG"}
    mets |= {"u8": "ULONG_LONG", "f4": "FLOAT", "f8": "DOUBLE"}
    for order, endian in (("<", "little"), (">", "big")):
        raw = values.astype(values.dtype.newbyteorder(order)).tobytes()
        one = put(
            tmp_path,
            f"{endian}.nrrd",
            nrrd(gzip.compress(raw) if packed else raw, "gzip" if packed else "raw", kind=kinds[dtype], endian=endian),
        )
        two = put(
            tmp_path,
            f"{endian}.mha",
            meta(zlib.compress(raw) if packed else raw, packed=packed, kind=f"MET_{mets[dtype]}", big=endian == "big"),
        )
        for path in (one, two):
            image = sitk.ReadImage(str(path))
            np.testing.assert_array_equal(
                read_volume(path).array, sitk.GetArrayFromImage(image).astype(np.int16), err_msg=path.name
            )
            assert read_volume(path).grid == grid_of(image)
            np.testing.assert_array_equal(read_labels(path, allowed=range(120)).array, values.astype(np.uint8))


def test_what_is_cut_or_followed_by_something_is_refused(tmp_path: Path) -> None:
    raw = HU.tobytes()
    packings: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "bzip2": bz2.compress, "raw": bytes}
    whole = {f"{name}.nrrd": nrrd(pack(raw), name) for name, pack in packings.items()}
    whole |= {"zlib.mha": meta(zlib.compress(raw), packed=True), "raw.mha": meta(raw)}
    for name, content in whole.items():
        for end in (1, 4, 9, 100):
            assert "incomplete" in refusal(put(tmp_path, name, content[:-end])), name
        if not name.startswith("raw"):
            assert "damaged" in refusal(put(tmp_path, name, content + b"\x07and more")), name
    detached = put(tmp_path, "alone.mhd", meta(b"", file="lost.raw"))
    assert "no lost.raw beside it" in refusal(detached)
    assert "lost.raw" in refusal(put(tmp_path, "alone.nhdr", nrrd(b"", more="data file: lost.raw")))


def test_packed_parts_whose_damage_could_not_be_seen_are_refused(tmp_path: Path) -> None:
    packed = gzip.compress(HU.tobytes())
    assert "could not be seen" in refusal(put(tmp_path, "skip.nrrd", nrrd(packed, "gzip", more="byte skip: 2")))
    for number in range(1, 6):
        put(tmp_path, f"part{number}.raw.gz", packed)
    assert "could not be seen" in refusal(put(tmp_path, "parts.nhdr", nrrd(b"", "gzip", more="data file: part%d.raw.gz 1 5 1")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["scan.nii.gz", "scan.nrrd", "bz.nrrd", "scan.mha", "detached.mhd", "detached.nhdr", "labels.mha", "labels.nii.gz"]
)
def test_of_120_flipped_bits_none_passes_with_other_voxels(tmp_path: Path, name: str) -> None:
    """All refused, or the voxels are right: bits of gzip's header that mean nothing."""
    hu = np.random.default_rng(1).normal(0, 300, (20, 32, 32)).astype(np.int16)
    array = (hu > 200).astype(np.uint8) if name.startswith("labels") else hu
    image = sitk.GetImageFromArray(array)
    path = data = tmp_path / name
    if name == "bz.nrrd":
        sitk.WriteImage(image, str(path), False)
        begin, _, raw = path.read_bytes().partition(b"\n\n")
        path.write_bytes(begin.replace(b"encoding: raw", b"encoding: bzip2") + b"\n\n" + bz2.compress(raw))
    else:
        sitk.WriteImage(image, str(path), True)
    if name.startswith("detached"):
        data = next(file for file in tmp_path.iterdir() if file != path)
    whole = data.read_bytes()
    start = max(whole.find(b"\n\n") + 2, whole.find(b"LOCAL\n") + 6, 0) if path.suffix in (".nrrd", ".mha") else 0
    read = (lambda: read_labels(path, allowed=(0, 1))) if name.startswith("labels") else (lambda: read_volume(path))
    np.testing.assert_array_equal(read().array, array)
    rng, outcome = np.random.default_rng(2), Counter[str]()
    for _ in range(120):
        damaged = bytearray(whole)
        damaged[rng.integers(start, len(whole))] ^= 1 << rng.integers(8)
        data.write_bytes(damaged)
        try:
            found = read().array
        except KitsError:
            outcome["refused"] += 1
        else:
            outcome["right" if np.array_equal(found, array) else "wrong"] += 1
    print(name, dict(outcome))
    assert outcome["wrong"] == 0
    assert outcome["refused"] >= 110


def announced(path: Path, shape: tuple[int, int, int], voxels: int) -> Path:
    """A NIfTI file of that many zeros that announces a shape."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header.set_sform(RAS, 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(path, "wb", 9) as stream:
        stream.write(header.binaryblock + bytes(4))
        for _ in range(voxels // (1 << 22)):
            stream.write(bytes(1 << 23))
    return path


def test_what_no_ct_has_is_not_unpacked(tmp_path: Path) -> None:
    path = announced(tmp_path / "bomb.nii.gz", (512, 512, 16000), 1 << 24)
    for read in (read_volume, read_geometry, check_file, lambda path: read_labels(path, allowed=(0,))):
        with pytest.raises(KitsError, match="promises 512 x 512 x 16000 voxels, which no CT has"):
            read(path)
    huge = nrrd(b"", "gzip").replace(b"sizes: 7 6 5", b"sizes: 4096 4096 4096")
    assert "which no CT has" in refusal(put(tmp_path, "huge.nrrd", huge))
    huge = meta(b"", packed=True).replace(b"DimSize = 7 6 5", b"DimSize = 4096 4096 4096")
    assert "which no CT has" in refusal(put(tmp_path, "huge.mha", huge))
    large = nrrd(gzip.compress(HU.tobytes()), "gzip").replace(b"sizes: 7 6 5", b"sizes: 512 512 512")
    assert "cannot hold" in refusal(put(tmp_path, "large.nrrd", large))


def test_what_does_not_fit_the_memory_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = announced(tmp_path / "scan.nii.gz", (256, 256, 64), 1 << 22)
    assert read_volume(path).array.shape == (64, 256, 256)
    free = limits.free_bytes()
    assert free is None or 1e8 < free < 1e14
    monkeypatch.setattr(limits, "free_bytes", lambda: 8_000_000)
    assert "needs 0.0 GB of memory" in refusal(path) or "0.0 GB are free" in refusal(path)
    read_geometry(path)


def test_a_stream_that_never_ends_is_left(tmp_path: Path) -> None:
    assert "holds more voxels than its header says" in refusal(announced(tmp_path / "bomb.nii.gz", (64, 64, 4), 1 << 24))


def test_no_spacing_and_no_orientation_are_refused(tmp_path: Path) -> None:
    raw = HU.tobytes()
    directions = b"space directions: (1,0,0) (0,1,0) (0,0,2)\n"
    assert "gives no spacing" in refusal(put(tmp_path, "none.nrrd", nrrd(raw).replace(directions, b"")))
    lost = nrrd(raw).replace(directions, b"spacings: 1 1 2\n").replace(b"space: left-posterior-superior\n", b"")
    assert "which side is left" in refusal(put(tmp_path, "lost.nrrd", lost.replace(b"space origin: (0,0,0)\n", b"")))
    assert "lengths in m;" in refusal(put(tmp_path, "meters.nrrd", nrrd(raw, more='space units: "m" "m" "m"')))
    for line in (b"content: a patient\n", b"CT_WindowWidth:=400\n"):  # behind an empty line these would be the first voxels
        split = nrrd(raw + b"\0" * 99).replace(b"\n\n", b"\n\n" + line)
        assert f"before '{line.decode().strip()}'" in refusal(put(tmp_path, "split.nrrd", split))
    assert "gives no spacing" in refusal(put(tmp_path, "none.mha", meta(raw).replace(b"ElementSpacing = 1 1 2\n", b"")))
    assert read_volume(put(tmp_path, "size.mha", meta(raw).replace(b"ElementSpacing", b"ElementSize"))).spacing == (2, 1, 1)


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [
        ("space: left-posterior-superior", "space dimension: 3", "which side is left (its space is not named)"),
        ("space: left-posterior-superior", "space: 3D-left-handed", "which side is left (its space is 3D-left-handed)"),
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", "", "which side is left (no TransformMatrix)"),
        ("Offset = 0 0 0", "Offset = nan 0 0", "a field 'offset' of 'nan 0 0', not of 3 numbers"),
        ("Offset = 0 0 0", "Offset = 0 0", "'offset' of '0 0', not of 3"),  # behind it ITK reads nothing, and takes 1 mm
        ("Offset = 0 0 0", "Offset = 0,5 0 0", "of '0,5 0 0', not of 3 numbers; mend the header (decimals have points)"),
        ("Offset = 0 0 0", "offset = 5 6 7", "pass over a part of its header"),
        ("ElementSpacing", "elementspacing", "pass over a part of its header"),
        ("Offset = 0 0 0", "Offset = 0 0 0\nno field", "pass over a part of its header"),
        ("TransformMatrix = 1 0 0", "TransformMatrix = 1,0 0 0", "'transformmatrix' of '1,0 0 0 0 1 0 0 0 1', not of 9 numbers"),
        ("DimSize = 7 6 5", "DimSize = 7 6 4.9", "pass over a part of its header"),
        ("DimSize = 7 6 5", "DimSize = 0 6 5", "promises 0 x 6 x 5 voxels, which no CT has"),
        ("DimSize = 7 6 5", "DimSize = 7,6,5", "'dimsize' of '7,6,5', not of 3"),
        ("space origin: (0,0,0)", "space origin: (nan,nan,nan)", "'space origin' of '(nan,nan,nan)', not of 3"),
        ("space origin: (0,0,0)", "space origin: (0,5,0,5,0,5)", "(decimals have points)"),
        ("space directions: (1,0,0) (0,1,0) (0,0,2)", "space directions: (0,8,0,0) (0,1,0) (0,0,2)", "not of 9 numbers"),
        ("space directions: (1,0,0)", "space directions: none", "'space directions' of 'none (0,1,0) (0,0,2)', not of 9"),
        ("space directions: (1,0,0) (0,1,0) (0,0,2)", "spacings: nan nan nan", "'spacings' of 'nan nan nan', not of 3"),
        ("Offset = 0 0 0", "Offset = 0 0 0\nDistanceUnits = um", "lengths in um"),
        ("Offset = 0 0 0", "Offset = 0 0 0\nElementToIntensityFunctionOffset = -1024", "stored * 1.0 + -1024.0"),
    ],
)
def test_what_itk_would_pass_over_is_refused(tmp_path: Path, ours: str, theirs: str, why: str) -> None:
    made = nrrd if ours.startswith("space") else meta
    assert ours.encode() in made(b"")
    assert why in refusal(put(tmp_path, f"odd.{ENDING[made]}", made(HU.tobytes()).replace(ours.encode(), theirs.encode())))


@pytest.mark.parametrize("made", [nrrd, meta])
def test_another_number_of_dimensions_is_named(tmp_path: Path, made: Callable[..., bytes]) -> None:
    """One volume too: ITK tells of three dimensions where NRRD has four."""
    four = {b"7 6 5": b"7 6 5 1", b"dimension: 3": b"dimension: 4", b"(0,0,2)": b"(0,0,2) none", b"domain domain": b"domain list"}
    four |= {b"NDims = 3": b"NDims = 4", b"domain list domain": b"domain domain domain list"}
    content = made(HU.tobytes())
    for ours, theirs in four.items():
        content = content.replace(ours, theirs)
    assert "is 4D, of size 7 6 5 1; give one 3D image" in refusal(put(tmp_path, f"four.{ENDING[made]}", content))


@pytest.mark.parametrize(("made", "line"), [(nrrd, b"space origin: (0,0,0)\n"), (meta, b"Offset = 0 0 0\n")])
def test_a_missing_origin_is_noted(tmp_path: Path, made: Callable[..., bytes], line: bytes) -> None:
    content = made(HU.tobytes())
    assert read_geometry(put(tmp_path, f"scan.{ENDING[made]}", content)).notes == ()
    assert "no origin" in read_geometry(put(tmp_path, f"scan.{ENDING[made]}", content.replace(line, b""))).notes[0]


def test_the_three_spaces_that_have_a_left_side_are_read(tmp_path: Path) -> None:
    for space, array in (("LPS", HU), ("RAS", HU[:, ::-1, ::-1]), ("left-anterior-superior", HU[:, ::-1])):
        path = put(tmp_path, f"{space}.nrrd", nrrd(HU.tobytes()).replace(b"left-posterior-superior", space.encode()))
        np.testing.assert_array_equal(read_volume(path).array, array)


@pytest.mark.parametrize("made", [nrrd, meta])
def test_files_that_a_header_names_are_whole_and_no_pipes(tmp_path: Path, made: Callable[..., bytes]) -> None:
    def naming(name: str, files: str, behind: bytes = b"") -> Path:
        header = nrrd(b"", more=f"data file: {files}") if made is nrrd else meta(b"", file=files)
        if made is nrrd:  # a list is the last that a header has
            line = f"data file: {files}\n".encode()
            header = header.replace(line, b"").rstrip(b"\n") + b"\n" + line
        return put(tmp_path, f"{name}.{'nhdr' if made is nrrd else 'mhd'}", header + behind)

    for k, part in enumerate(HU):
        put(tmp_path, f"part{k}.raw", part.tobytes())
    names = [f"part{k}.raw\n".encode() for k in range(5)]
    np.testing.assert_array_equal(read_volume(naming("list", "LIST", b"".join(names))).array, HU)
    np.testing.assert_array_equal(read_volume(naming("pattern", "part%d.raw 0 4 1")).array, HU)
    assert refusal(naming("short", "LIST", b"".join(names[:4])))
    if made is meta:
        put(tmp_path, "whole.raw", HU.tobytes())
        assert "lists files of 3 dimensions" in refusal(naming("whole", "LIST 3D", b"whole.raw\n"))
    os.mkfifo(tmp_path / "part9.raw")
    for path in (
        naming("one", "part9.raw"),
        naming("listed", "LIST", b"".join([*names[:4], b"part9.raw\n"])),
        naming("numbered", "part%d.raw 5 9 1"),
    ):
        assert "incomplete, no part" in refusal(path)
    put(tmp_path, "part4.raw", b"x")
    assert refusal(naming("cut", "LIST", b"".join(names)))


@pytest.mark.parametrize(
    ("size", "before", "told"),
    [
        ("9", b"ninebytes", ""),
        ("-1", b"whatever", ""),
        ("9", b"", "incomplete, 411 of 420 bytes"),
        ("ten", b"", "'ten', not of 1 number;"),
    ],
)
def test_bytes_before_the_voxels_are_passed_over(
    size: str, before: bytes, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "scan.raw", before + HU.tobytes())
    header = meta(b"", file="scan.raw").replace(b"ElementDataFile", f"HeaderSize = {size}\nElementDataFile".encode())
    path = put(tmp_path, "scan.mhd", header)
    if told:
        assert told in refusal(path)
    else:
        np.testing.assert_array_equal(read_volume(path).array, HU)
    assert capfd.readouterr() == ("", "")  # no line of ITK's


@pytest.mark.parametrize("name", ["scan.gipl", "scan.vtk", "scan.gipl.gz"])
def test_a_format_that_does_not_say_which_side_is_left_is_refused(name: str, tmp_path: Path) -> None:
    """Among them a GIPL of 512 columns, which looks like DICOM at its 128th byte."""
    sitk.WriteImage(sitk.GetImageFromArray(np.full((5, 6, 512), 7, np.int16)), tmp_path / name)
    assert re.search(r"of a format \((Gipl|VTK)\) that is not read", refusal(tmp_path / name))


def test_a_name_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(KitsError, match="cannot be opened"):
        read_volume(tmp_path / ("x" * 300))


def oriented(
    path: Path, qform: np.ndarray | None, sform: np.ndarray | None, *, pixdim: tuple[float, ...] | None = None, units: int = 2
) -> Path:
    """A NIfTI file with these matrices; None is code 0."""
    header = nib.Nifti1Header()
    header.set_data_shape(HU.T.shape)
    header.set_data_dtype(np.int16)
    header.set_qform(RAS if qform is None else qform, 1)
    header.set_sform(RAS if sform is None else sform, 1)
    header["qform_code"], header["sform_code"] = qform is not None, sform is not None
    header["xyzt_units"], header["vox_offset"], header["magic"] = units, 352, b"n+1"
    if pixdim is not None:
        header["pixdim"][1:4] = pixdim
    path.write_bytes(header.binaryblock + bytes(4) + HU.tobytes())
    return path


MIRRORED = RAS @ np.diag([-1.0, 1, 1, 1])


def test_one_matrix_or_two_alike_are_believed_and_nibabel_sees_the_mask_where_it_sees_the_scan(tmp_path: Path) -> None:
    turned = np.eye(4)
    turned[:3, :3] = nib.eulerangles.euler2mat(0.3, 0.2, 0.1)
    for matrix in (RAS, MIRRORED, turned @ RAS):
        for qform, sform in ((matrix, matrix), (matrix, None), (None, matrix)):
            path = oriented(tmp_path / "scan.nii", qform, sform)
            volume = read_volume(path)
            write_labels(tmp_path / "mask.nii.gz", (volume.array > 0).astype(np.uint8), volume.grid)
            theirs, ours = nib.load(path), nib.load(tmp_path / "mask.nii.gz")
            np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)
            np.testing.assert_array_equal(np.asarray(ours.dataobj) > 0, np.asarray(theirs.dataobj) > 0)


def test_matrices_that_contradict_each_other_are_refused_and_which_holds_is_said(tmp_path: Path) -> None:
    shifted, larger, sheared = RAS.copy(), RAS.copy(), RAS.copy()
    shifted[:3, 3] += 10
    larger[:3, :3] *= 2
    sheared[0, 1] = 0.6
    for other in (MIRRORED, shifted, larger, sheared):
        text = refusal(oriented(tmp_path / "both.nii", RAS, other))
        assert "sform and qform contradict each other" in text
        assert "nibabel takes the sform" in text
    assert "contradict" in refusal(oriented(tmp_path / "steps.nii", None, RAS, pixdim=(0.8, 0.7, 5)))
    for place in ((0, 0), (0, 3)):  # a step, and the origin
        none = RAS.copy()
        none[place] = np.nan
        assert "its sform holds NaN or infinity" in refusal(oriented(tmp_path / "none.nii", None, none, pixdim=(0.8, 0.7, 3)))
    assert "which side is left (qform_code and sform_code are 0)" in refusal(oriented(tmp_path / "none.nii", None, None))
    assert "right angles" in refusal(oriented(tmp_path / "sheared.nii", None, sheared))
    nearly = RAS.copy()
    nearly[:3, 3] += 0.5
    assert read_volume(oriented(tmp_path / "near.nii", RAS, nearly)).array.shape == HU.shape


def test_an_sform_gives_the_spacing_where_nobody_wrote_one(tmp_path: Path) -> None:
    """As files that were written voxel by voxel have it; ITK takes 1 mm."""
    volume = read_volume(oriented(tmp_path / "scan.nii", None, RAS, pixdim=(1, 1, 1)))
    np.testing.assert_allclose(volume.spacing, (3, 0.7, 0.8), rtol=1e-6)
    np.testing.assert_array_equal(volume.array, HU)


@pytest.mark.parametrize(("units", "mm"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
def test_meters_and_micrometers_become_mm(tmp_path: Path, units: int, mm: float) -> None:
    scaled = RAS.copy()
    scaled[:3] /= mm
    volume = read_volume(oriented(tmp_path / "scan.nii", scaled, scaled, units=units))
    np.testing.assert_allclose(volume.spacing, (3, 0.7, 0.8), rtol=1e-5)


def test_a_wrong_ending_of_nifti_does_no_harm(tmp_path: Path) -> None:
    plain = oriented(tmp_path / "scan.nii", RAS, RAS).read_bytes()
    for name, content in (("plain.nii.gz", plain), ("packed.nii", gzip.compress(plain)), ("PLAIN.NII.GZ", plain)):
        path = put(tmp_path, name, content)
        np.testing.assert_array_equal(read_volume(path).array, HU)
        check_file(path)
    damaged = bytearray(gzip.compress(plain))
    damaged[-6] ^= 1
    assert "damaged" in refusal(put(tmp_path, "packed.nii", bytes(damaged)))


def test_pairs_are_read_and_checked(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(HU.T, RAS), tmp_path / "scan.img")
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.hdr").array, HU)
    whole = (tmp_path / "scan.img").read_bytes()
    put(tmp_path, "scan.img", whole[:-2])
    assert "incomplete" in refusal(tmp_path / "scan.hdr")
    (tmp_path / "scan.img").unlink()
    assert "no scan.img beside it" in refusal(tmp_path / "scan.hdr")
    packed = bytearray(gzip.compress(whole))
    packed[40] ^= 4
    put(tmp_path, "scan.img.gz", bytes(packed))
    assert "damaged" in refusal(tmp_path / "scan.hdr")
    nib.save(nib.AnalyzeImage(HU.T, RAS), tmp_path / "old.img")
    assert "is Analyze" in refusal(tmp_path / "old.hdr")


def test_formats_whose_damage_passes_unseen_are_refused(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(HU)
    for ending in ("tif", "vtk", "mnc", "hdf5"):
        sitk.WriteImage(image, str(tmp_path / f"scan.{ending}"))
        assert "that is not read" in refusal(tmp_path / f"scan.{ending}")


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha", "mhd"])
def test_a_name_that_is_not_utf_8_is_read(tmp_path: Path, ending: str) -> None:
    """SimpleITK ends the process (SIGABRT) at one."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    image = sitk.GetImageFromArray(HU)
    sitk.WriteImage(image, str(tmp_path / f"scan.{ending}"), True)
    for file in tmp_path.glob("scan.*"):
        file.rename(folder / file.name)
    np.testing.assert_array_equal(read_volume(folder / f"scan.{ending}").array, HU)
    if ending != "mhd":  # its header names the other file
        odd = folder / os.fsdecode(b"se\xf1or." + ending.encode())
        (folder / f"scan.{ending}").rename(odd)
        np.testing.assert_array_equal(read_volume(odd).array, HU)


def test_the_cases_that_people_report() -> None:
    cases = SHARED.parent / "cases"
    if not cases.is_dir():
        pytest.skip("no shared cases beside this checkout")
    truth = read_volume(cases / "truth_imaging.nii.gz")
    plain = read_volume(cases / "plain_named_gz.nii.gz")
    np.testing.assert_array_equal(plain.array, truth.array)
    assert plain.spacing == truth.spacing == (5, 3, 3)
    for name, words in (
        ("damaged.mha", "damaged"),
        ("no_spacing.nrrd", "which side"),
        ("qform_against_sform.nii.gz", "contradict"),
    ):
        assert words in refusal(cases / name)
