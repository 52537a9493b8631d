"""Measurements of segments as a DICOM structured report (TID 1500) of a CT series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kits import __version__
from kits.prediction.dicom_seg import (
    ALGORITHM,
    CODES,
    MANUFACTURER,
    MODEL,
    SERIAL,
    SERIES_NUMBER,
    Segment,
    refusing,
    save,
    segmentation_of,
    sources,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# What is reported: concept by its keyword in SNOMED CT, and unit by its code in UCUM.
MEASURES = {
    "volume_ml": ("Volume", "mL", "milliliter"),
    "axial_mm": ("LongAxis", "mm", "millimeter"),
    "short_mm": ("ShortAxis", "mm", "millimeter"),
    "length_mm": ("Length", "mm", "millimeter"),
}
SEG_NAME, SR_NAME = "seg.dcm", "sr.dcm"


@dataclass(frozen=True)
class ReportedRegion:
    """A kidney or a tumor that is reported.

    Attributes:
        name: for a reader. kind: `kidney` or `tumor`. side: `left` or `right`.
        values: by the keys of `MEASURES`; what could not be measured is left out.
    """

    name: str
    kind: str
    side: str
    values: Mapping[str, float | None]


def write_dicom_sr(folder: Path, files: Sequence[Path], stored: np.ndarray, findings: Sequence[ReportedRegion]) -> None:
    """Write `seg.dcm` with a segment for each finding, and `sr.dcm` with its measurements.

    Args:
        files: the series' files in the order of their slices.
        stored: the number of a voxel's finding, from 1 (k, j, i), as `write_dicom_seg` takes labels.

    Raises:
        KitsError: the series lacks what such objects must repeat, or a file cannot be written.
    """
    with refusing(files, "a DICOM report", "dicom_sr"):
        import highdicom

        headers = sources(files)
        uids = [str(highdicom.UID()) for _ in findings]
        segments = [Segment(finding.name, finding.kind, uid) for finding, uid in zip(findings, uids, strict=True)]
        segmentation = segmentation_of(headers, files, stored, segments)
        groups = [_group(number, one, uids[number - 1], segmentation) for number, one in enumerate(findings, start=1)]
        report = _report([*headers, segmentation], groups)
    save(folder / SEG_NAME, segmentation)
    save(folder / SR_NAME, report)


def _group(number: int, finding: ReportedRegion, uid: str, segmentation: Dataset) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    measurements = [
        highdicom.sr.Measurement(name=getattr(codes.SCT, concept), value=round(float(value), 2), unit=Code(unit, "UCUM", meaning))
        for key, (concept, unit, meaning) in MEASURES.items()
        if (value := finding.values.get(key)) is not None
    ]
    category, kind = (getattr(codes.SCT, code) for code in CODES[finding.kind])
    side = {"left": codes.SCT.Left, "right": codes.SCT.Right}[finding.side]
    return highdicom.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=highdicom.sr.TrackingIdentifier(uid=uid, identifier=finding.name),
        referenced_segment=highdicom.sr.ReferencedSegment.from_segmentation(segmentation, segment_number=number),
        finding_category=category,
        finding_type=kind,
        finding_sites=[highdicom.sr.FindingSite(anatomic_location=codes.SCT.Kidney, laterality=side)],
        algorithm_id=highdicom.sr.AlgorithmIdentification(
            name=ALGORITHM, version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
        measurements=measurements,
    )


def _report(evidence: Sequence[Dataset], groups: Sequence[Any]) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    device = highdicom.sr.DeviceObserverIdentifyingAttributes(
        uid=highdicom.UID(), name=MANUFACTURER, manufacturer_name=MANUFACTURER, model_name=MODEL, serial_number=SERIAL
    )
    content = highdicom.sr.MeasurementReport(
        observation_context=highdicom.sr.ObservationContext(
            observer_device_context=highdicom.sr.ObserverContext(codes.DCM.Device, device)
        ),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    return highdicom.sr.Comprehensive3DSR(
        evidence=evidence,
        content=content,
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBER + 1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        series_description="Measurements of kidneys and kidney tumors; research use only",
    )
