"""DICOM series as scanners write them, slice by slice, for tests that damage them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

STUDY, FRAME = generate_uid(entropy_srcs=["study"]), generate_uid(entropy_srcs=["frame"])

GROUPS = {
    **dict.fromkeys(("RescaleSlope", "RescaleIntercept"), "PixelValueTransformationSequence"),
    **dict.fromkeys(("PixelSpacing", "SliceThickness"), "PixelMeasuresSequence"),
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "ImagePositionPatient": "PlanePositionSequence",
}


def slice_of(hu: np.ndarray, position: Sequence[float], *, series: str = "axial", number: int = 1, **changes: Any) -> FileDataset:
    """One CT slice (row, column) in HU, 4 mm thick, 1.5 mm in plane; `changes` replace attributes, None deletes one."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    attributes = {
        **{"SOPClassUID": CTImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "CT"},
        **{"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "StudyInstanceUID": STUDY, "FrameOfReferenceUID": FRAME},
        **{"SeriesInstanceUID": generate_uid(entropy_srcs=[series]), "SeriesNumber": number, "SeriesDescription": series},
        **{
            "PatientName": "Nobody",
            "PatientID": "0",
            "PatientBirthDate": "",
            "PatientSex": "",
            "StudyID": "",
            "StudyDate": "20200101",
        },
        **{"StudyTime": "120000", "AccessionNumber": "", "ReferringPhysicianName": "", "InstanceNumber": 1, "Manufacturer": "x"},
        **{"Rows": hu.shape[0], "Columns": hu.shape[1], "PixelSpacing": [1.5, 1.5], "SliceThickness": 4},
        **{"ImagePositionPatient": list(map(float, position)), "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        **{
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
        },
        **{"PixelRepresentation": 1, "RescaleIntercept": -1024, "RescaleSlope": 1},
        **{"PixelData": (hu.astype(np.int16) + 1024).tobytes()},
    }
    for name, value in {**attributes, **changes}.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def write_series(folder: Path, hu: np.ndarray, *, positions: Sequence[Sequence[float]] | None = None, **changes: Any) -> Path:
    """A series of these slices (z, row, column), from the feet up unless positions are given; stored in another order."""
    folder.mkdir(parents=True, exist_ok=True)
    places = [(-48.0, -48.0, 4.0 * k) for k in range(len(hu))] if positions is None else positions
    name = changes.get("series", "axial")
    for k, (plane, place) in enumerate(zip(hu, places, strict=True)):
        pydicom.dcmwrite(folder / f"{name}-{(k * 7) % 97:03d}.dcm", slice_of(plane, place, **changes))
    return folder


def multi_frame(hu: np.ndarray, positions: Sequence[Sequence[float]], **changes: Any) -> FileDataset:
    """An Enhanced CT of these frames (frame, row, column) at these places; `changes` replace attributes of the shared group."""
    dataset = slice_of(hu[0], positions[0], SOPClassUID=EnhancedCTImageStorage)
    dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    shared = {name: changes.get(name, dataset.get(name)) for name in GROUPS if name != "ImagePositionPatient"}
    for name in GROUPS:
        delattr(dataset, name)
    dataset.SharedFunctionalGroupsSequence = [group_of(shared)]
    dataset.PerFrameFunctionalGroupsSequence = [group_of({"ImagePositionPatient": list(map(float, at))}) for at in positions]
    dataset.NumberOfFrames, dataset.PixelData = len(hu), (hu.astype(np.int16) + 1024).tobytes()
    return dataset


def group_of(attributes: dict[str, Any]) -> Dataset:
    """What a multi-frame file says of its frames, in the sequences where that stands."""
    group = Dataset()
    for name, value in attributes.items():
        if value is not None:
            if GROUPS[name] not in group:
                setattr(group, GROUPS[name], [Dataset()])
            setattr(group[GROUPS[name]][0], name, value)
    return group
