"""One DICOM series, of single frames or many in a file, as an evenly spaced volume in HU."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from kits.core.errors import KitsError, last_line
from kits.io.headers import CT_IMAGE, Instance, places_of, read_instance
from kits.io.itk_names import names_for_itk
from kits.io.limits import refuse_memory, refuse_size
from kits.io.places import Places
from kits.io.voxels import HU_RANGE, to_hu
from kits.volume import Grid
from kits.volume.hu import PAD_HU

# Of CT numbers in 12 bits.
_MOST_HU = 3071
# What a decoder needs of a header.
_PIXELS = [
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("NumberOfFrames", "PixelData"),
]


def read_slices(folder: Path, files: Sequence[Path]) -> tuple[np.ndarray, Grid]:
    """Read the slices of a series as int16 HU (k, j, i) along their normal, and where they lie.

    ITK reads single CT frames that are alike. Of all else (many frames in a file, a rescale or a sign that changes from slice to
    slice, a class that is not CT's, MONOCHROME1) it would take the header for something else, so the values are rescaled here.

    Raises:
        KitsError: a file cannot be read or holds no slices of CT, or the slices are uneven, shifted or more than fits the memory.
    """
    instances = [_read_header(file) for file in files]
    places = places_of(instances)
    if len(places) < 2:
        raise KitsError(f"{files[0]}: is one slice of a DICOM series; give the folder of the series")
    if len(set(places.planes())) > 1:
        raise KitsError(f"{folder}: mixed: slices of several planes or sizes; export each as its own series")
    order = places.order
    places = places[order]
    if why := places.uneven():
        raise KitsError(f"{folder}: {why}; {_remedy(places)}")
    rescale = np.concatenate([instance.rescale for instance in instances])
    missing = np.isnan(rescale).any(axis=1)
    if missing.any() and not missing.all():
        raise KitsError(f"{folder}: only some of its slices say how to rescale to HU; export the whole series again")
    rescale[missing] = 1, 0
    grid = places.grid()
    refuse_size(folder, grid.size)
    refuse_memory(folder, math.prod(grid.size) * np.dtype(np.int16).itemsize)
    columns, rows, _ = grid.size
    values = np.empty((len(places), rows, columns), np.int16)
    if len(np.unique(rescale, axis=0)) == 1 and _are_plain(instances):
        for instance in instances:
            instance.refuse_short()
        image = _read_plain(folder, [files[index] for index in order])
        for target, plane in zip(values, sitk.GetArrayViewFromImage(image), strict=True):
            target[...] = to_hu(plane, folder)
        return without_padding(values, instances), grid
    place_of, first = np.argsort(order), 0
    for instance in instances:
        planes = _stored(instance).reshape(-1, rows, columns)
        if len(planes) != len(instance.frames):
            what = f"holds {len(planes)} images, and its header describes {len(instance.frames)}"
            raise KitsError(f"{instance.path}: {what}; export it again")
        for plane in planes:
            slope, intercept = rescale[first]
            if slope.is_integer() and intercept.is_integer():
                slope, intercept = np.int64(slope), np.int64(intercept)
            values[place_of[first]] = to_hu(plane * slope + intercept, folder)
            first += 1
    return without_padding(values, instances), grid


def without_padding(values: np.ndarray, instances: Sequence[Instance]) -> np.ndarray:
    """Put air where the value stands for none (PixelPaddingValue) and is above the HU of all tissue."""
    for padding in {instance.padding for instance in instances}:
        if padding > _MOST_HU:
            values[values == min(round(padding), HU_RANGE[1])] = PAD_HU
    return values


def _read_header(path: Path) -> Instance:
    try:
        instance = read_instance(path)
        why = instance.unfit()
    except Exception as error:  # pydicom raises whatever the damage leads to
        raise KitsError(f"{path}: damaged DICOM file ({type(error).__name__}); export the series again") from error
    if why:
        raise KitsError(f"{path}: {why}")
    return instance


def _remedy(places: Places) -> str:
    distinct = len(np.unique(np.round(places.along, 2)))
    if len(places) % distinct == 0 and distinct < len(places):
        return f"every place holds {len(places) // distinct} images, so export each time point or reconstruction by itself"
    return "export the whole series again, or resample it where the gantry was tilted"


def _are_plain(instances: Sequence[Instance]) -> bool:
    """Tell whether ITK reads these files as they are."""
    pixels = {(one.text("BitsStored"), one.text("PixelRepresentation")) for one in instances}
    return len(pixels) == 1 and all(
        one.text("SOPClassUID") == CT_IMAGE
        and one.text("PhotometricInterpretation") == "MONOCHROME2"
        and one.header.file_meta.get("TransferSyntaxUID") is not None
        for one in instances
    )


def _read_plain(folder: Path, files: Sequence[Path]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    try:
        with names_for_itk(files) as names:
            reader.SetFileNames(names)
            image = reader.Execute()
    except RuntimeError as error:
        raise KitsError(f"{folder}: DICOM series cannot be read ({last_line(error)}); export it again") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise KitsError(f"{folder}: DICOM series is not one gray volume; give a CT series")
    return image


def _stored(instance: Instance) -> np.ndarray:
    """Decode the stored values of a file's frames, not rescaled."""
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values that break the standard and that are not used here
            source = pydicom.dcmread(instance.path, force=True)
            if source.file_meta.get("TransferSyntaxUID") is None:  # without a preamble; implicit or not is no matter of pixels
                little = source.original_encoding[1]
                source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            if not source.file_meta.TransferSyntaxUID.is_encapsulated:
                return source.pixel_array
            plain = pydicom.Dataset()
            for name in _PIXELS:
                if name in source:
                    plain[name] = source[name]
            plain.SOPClassUID, plain.SOPInstanceUID, plain.PhotometricInterpretation = CT_IMAGE, "1.2.3", "MONOCHROME2"
            plain.file_meta = pydicom.dataset.FileMetaDataset()
            plain.file_meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
            # ITK's decoders read more compressions than pydicom's, but from files only: one that holds the pixels and no person.
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder, "pixels.dcm")
                plain.save_as(copy, enforce_file_format=True)
                return sitk.GetArrayFromImage(sitk.ReadImage(copy))
    except Exception as error:  # pydicom raises whatever the damage leads to
        raise KitsError(f"{instance.path}: its pixels cannot be read ({last_line(error)}); export it again") from error
