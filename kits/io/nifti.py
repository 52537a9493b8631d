"""Headers of NIfTI-1 (.nii, .nii.gz, .hdr with .img): where voxels are, and their geometry.

What the header says of geometry is ITK's business. But ITK takes 1 mm for a spacing that is none, some orientation where there
is none, and one of two that contradict each other where other programs take the other.
"""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from kits.core.errors import KitsError
from kits.io.stored import GZIP, RAW, Stored, is_gzip, open_unpacked
from kits.volume import Grid

# NIfTI-1's scalar data types by their code (nifti1.h). Complex numbers, colors and 128-bit floats are left to ITK.
_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_HEADER_BYTES = 348
_FIELDS = {
    "dims": ("<i2", 40),
    "datatype": ("<i2", 70),
    "pixdim": (("<f4", 4), 76),  # the first is the sign of the third axis in the qform
    "vox_offset": ("<f4", 108),
    "scl_slope": ("<f4", 112),
    "scl_inter": ("<f4", 116),
    "units": ("u1", 123),
    "qform_code": ("<i2", 252),
    "sform_code": ("<i2", 254),
    "quatern": (("<f4", 3), 256),
    "qoffset": (("<f4", 3), 268),
    "srow": (("<f4", (3, 4)), 280),
    "magic": ("S4", 344),
}
_HEADER = np.dtype(
    {
        "names": list(_FIELDS),
        "formats": [kind for kind, _ in _FIELDS.values()],
        "offsets": [place for _, place in _FIELDS.values()],
        "itemsize": _HEADER_BYTES,
    }
)
_SINGLE, _PAIR = b"n+1", b"ni1"
# Of the file with a pair's voxels, beside its .hdr.
_VOXEL_ENDINGS = (".img", ".img.gz", ".IMG")
# xyzt_units to mm, as ITK takes them: meters, micrometers; anything else is mm.
_UNITS_MM = {1: 1000.0, 3: 0.001}
# Two readings of a header may place a corner of the image this far apart, mm: numbers are float32, angles come as quaternions.
SAME_PLACE_MM = 2.0

Header = tuple[np.void, bool]


def read_header(path: Path) -> Header | None:
    """Read a NIfTI-1 header's fields, and whether it is in the other byte order; None if it is none.

    Raises:
        KitsError: it cannot be unpacked, or its qform or sform holds NaN or infinity.
    """
    with open_unpacked(path, GZIP if is_gzip(path) else RAW) as stream:
        header = stream.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        return None
    fields = np.frombuffer(header, _HEADER)[0]
    swapped = not 1 <= fields["dims"] <= 7  # as the NIfTI library decides it
    if swapped:
        fields = np.frombuffer(header, _HEADER.newbyteorder(">"))[0]
    if fields["magic"] not in (_SINGLE, _PAIR):
        return None
    for name, matrix in _matrices(fields).items():
        if matrix is not None and not np.isfinite(matrix).all():
            raise KitsError(f"{path}: its {name} holds NaN or infinity; mend the header, or convert it again")
    return fields, swapped


def find_voxels(path: Path, header: Header | None) -> Stored | None:
    """Find the voxels of a NIfTI-1 file; None for any other, and where they are not of one scalar type.

    Raises:
        KitsError: it is a header without its voxels.
    """
    if header is None or int(header[0]["datatype"]) not in _DTYPES:
        return None
    fields, swapped = header
    slope, inter, offset = (float(fields[name]) for name in ("scl_slope", "scl_inter", "vox_offset"))
    file, least = (path, _HEADER_BYTES + 4) if fields["magic"] == _SINGLE else (_voxels_of(path), 0)
    if not least <= offset < 2**31:  # ITK begins at 348 then, nibabel at 352
        what = f"says that its voxels begin at byte {offset:g} (vox_offset), and not behind its {least} bytes"
        raise KitsError(f"{path}: its header {what}: programs read it shifted; convert it again from the original")
    scaled = math.isfinite(slope) and slope != 0
    # Both count where scl_slope is not 0 (nifti1.h), and nibabel refuses an scl_inter that then is no number. ITK takes 0 for
    # that one, adds any other even where scl_slope is 0, and leaves out the tiniest slopes.
    known = math.isfinite(inter)
    if (abs(slope) <= sys.float_info.epsilon or not known) if scaled else (known and inter != 0):
        what = f"has scl_slope {slope:g} and scl_inter {inter:g}, which programs read differently"
        raise KitsError(
            f"{path}: its header {what}; mend it: scl_slope is 1 where the voxels are HU or labels as they are stored"
        )
    return Stored(
        file=file,
        dtype=np.dtype(_DTYPES[int(fields["datatype"])]),
        swapped=swapped,
        encoding=GZIP if is_gzip(file) else RAW,
        skip=int(offset),
        slope=slope if scaled else 1.0,
        inter=inter if scaled else 0.0,
    )


def _voxels_of(header: Path) -> Path:
    stem = header.name.removesuffix(".gz")[: -len(".hdr")]
    for ending in _VOXEL_ENDINGS:
        if (header.parent / f"{stem}{ending}").is_file():
            return header.parent / f"{stem}{ending}"
    raise KitsError(f"{header}: incomplete, no {stem}.img beside it; copy both files again")


def believed_grid(path: Path, header: Header | None, grid: Grid) -> Grid:
    """Return the geometry that a NIfTI header gives, if it says which side is left.

    Args:
        grid: what ITK makes of the header.

    Raises:
        KitsError: nothing gives the orientation, or several things do; the text says what contradicts what, and who takes which.
    """
    if header is None:
        stem = next((path.name.removesuffix(ending) for ending in _VOXEL_ENDINGS if path.name.endswith(ending)), "")
        if stem and path.with_name(f"{stem}.hdr").is_file():
            raise KitsError(f"{path}: has the voxels alone, its header is {stem}.hdr; give that one")
        raise KitsError(f"{path}: is Analyze, which does not say which side is left; convert it again from the original")
    found = {name: matrix for name, matrix in _matrices(header[0]).items() if matrix is not None}
    if list(found) == ["sform"] and (header[0]["pixdim"][1:] == 1).all():
        # Nobody wrote pixdim, which the sform makes needless (nifti1.h, method 3); ITK takes 1 mm all the same.
        i, j, k = np.linalg.norm(found["sform"][:, :3], axis=0).tolist()
        grid = replace(grid, spacing=(i, j, k))
    if not found:
        codes = "qform_code and sform_code are 0"
        raise KitsError(f"{path}: its header does not say which side is left ({codes}); convert it again from the original")
    ras = np.diag([-1.0, -1.0, 1.0]) @ np.column_stack([grid.steps, grid.origin])
    readings = {**found, "its reading by ITK": ras}
    # Wherever there is an sform nibabel and most viewers take it.
    (held, holds), *others = sorted(
        readings.items(), key=lambda item: ("sform", "qform").index(item[0]) if item[0] in found else 2
    )
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, n - 1) for n in grid.size))])
    for name, matrix in others:
        apart = float(np.linalg.norm(corners @ (holds - matrix).T, axis=1).max())
        if not apart <= SAME_PLACE_MM:  # NaN is not close either
            what = f"its {held} and {name} contradict each other (up to {apart:.0f} mm apart)"
            raise KitsError(
                f"{path}: {what}; nibabel takes the {held}. Write both alike: image.set_qform(image.affine, 1) and set_sform"
            )
    return grid


@np.errstate(invalid="ignore", over="ignore")  # of numbers that are none
def _matrices(fields: np.void) -> dict[str, np.ndarray | None]:
    """Return the sform and the qform, (4, 4) from voxels (i, j, k) to RAS mm; None for one not given."""
    unit = _UNITS_MM.get(int(fields["units"]) & 7, 1.0)
    sform = unit * fields["srow"].astype(float)
    b, c, d = fields["quatern"].astype(float)
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    turn = np.array(  # nifti1.h, method 2
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    steps = fields["pixdim"][1:].astype(float) * (1, 1, -1 if fields["pixdim"][0] < 0 else 1)
    qform = unit * np.column_stack([turn * steps, fields["qoffset"].astype(float)])
    return {"sform": sform if fields["sform_code"] > 0 else None, "qform": qform if fields["qform_code"] > 0 else None}
