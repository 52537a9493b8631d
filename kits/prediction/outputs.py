"""The places of a scan's results, and writing them: each file whole or not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kits.core.errors import KitsError
from kits.data.scans import Scan, has_image_name

if TYPE_CHECKING:
    import numpy as np

    from kits.config.schema.dataset import RegionIds
    from kits.inference.fine import BoxMap
    from kits.inference.segmenter import Segmentation
    from kits.volume import Grid

LABELS, OWN_IDS, SEG_NRRD, COLOR_TABLE, DICOM_SEG = "labels", "own_ids", "seg_nrrd", "color_table", "dicom_seg"
MAPS = PROBABILITIES, UNCERTAINTY = "probabilities", "uncertainty"
ENDING = ".nii.gz"


@dataclass(frozen=True)
class Outputs:
    """The results that are written of each scan, and their place.

    Attributes:
        path: a folder, or for a single scan the name of its label map.
        save: of `labels`, `own_ids` (labels with the ids of the training data), `seg_nrrd`, `color_table`, `probabilities` and
            `uncertainty`.
        dicom_seg: for DICOM series a segmentation object too.
        own_ids: by label the id that `own_ids` is written with, uint8.
    """

    path: Path
    save: tuple[str, ...]
    dicom_seg: bool
    own_ids: np.ndarray | None = None

    @classmethod
    def of(cls, path: Path, save: str | Sequence[str], dicom_seg: bool) -> Outputs:
        """Take `output`, `save` and `dicom_seg` as the configuration has them.

        Raises:
            KitsError: the path is a file's whose format is not written.
        """
        wanted = [save] if isinstance(save, str) else save
        if has_image_name(path) and not path.name.endswith(ENDING):
            raise KitsError(f"output={path}: label maps are written as {ENDING}; give a name that ends in it, or a folder")
        return cls(path, tuple(dict.fromkeys(wanted)), dicom_seg)

    @property
    def is_file(self) -> bool:
        """True where the path is a label map's and not a folder's."""
        return self.path.name.endswith(ENDING)

    @property
    def folder(self) -> Path:
        """The folder that everything is written into."""
        return self.path.parent if self.is_file else self.path

    def kinds(self, scan: Scan) -> tuple[str, ...]:
        """List what is written of this scan."""
        return (*self.save, DICOM_SEG) if self.dicom_seg and scan.files else self.save

    def entry(self, name: str) -> Path:
        """Name the scan's part of the report."""
        return self.place("report", name, ".json")

    def place(self, kind: str, name: str, ending: str, part: str = "") -> Path:
        """Name the file of a kind; label maps lie in the folder itself, all else in a folder of its kind."""
        if self.is_file:
            own = self.path.name.removesuffix(ENDING)
            between = "" if kind in (LABELS, SEG_NRRD, COLOR_TABLE, "report") else f"_{part or kind}"
            return self.folder / f"{own}{between}{ending}"
        return self.folder / ("" if kind == LABELS else kind) / f"{name}{f'_{part}' if part else ''}{ending}"

    def refuse_collisions(self, source: Path, scans: Mapping[str, Scan]) -> None:
        """Refuse results that would replace an input or one another, or pass for an input the next time.

        Args:
            source: where these scans were found.
        """
        if self.is_file and len(scans) > 1:
            raise KitsError(f"output={self.path}: one file for {len(scans)} inputs; give a folder")
        inputs = {scan.path.resolve() for scan in scans.values()}
        for name in scans:
            target = self.place(LABELS, name, ENDING)
            if target.resolve() in inputs:
                raise KitsError(f"output={self.path}: {target.name} would replace an input; give another folder")
        if source.is_dir() and self.folder.is_dir() and self.folder.samefile(source):
            raise KitsError(f"output={self.path}: holds the inputs, and results would pass for scans there; give another folder")

    def write(
        self, scan: Scan, grid: Grid, result: Segmentation, classes: Sequence[str]
    ) -> tuple[dict[str, list[str]], dict[str, Exception]]:
        """Write everything that is asked for of one scan; what cannot be written costs no other output.

        Args:
            grid: the scan's geometry.
            result: `kits.inference.segmenter.Segmentation`.
            classes: the names of the labels.

        Returns:
            The paths by kind, relative to the folder, and why a kind was not written, of which then no file is there.

        Raises:
            Exception: nothing could be written, the first reason.
        """
        written: dict[str, list[str]] = {}
        failed: dict[str, Exception] = {}
        for kind in self.kinds(scan):
            writers = list(self._writers(kind, scan, grid, result, classes))
            try:
                for path, write in writers:
                    write(path)
                written[kind] = [str(path.relative_to(self.folder)) for path, _ in writers]
            except Exception as error:
                for path, _ in writers:  # all of a kind or nothing, and nothing of an earlier run: it would pass for a result
                    with suppress(OSError):
                        path.unlink()
                failed[kind] = error
        if failed and not written:
            raise next(iter(failed.values()))
        return written, failed

    def _writers(
        self, kind: str, scan: Scan, grid: Grid, result: Segmentation, classes: Sequence[str]
    ) -> Iterator[tuple[Path, Callable[[Path], None]]]:
        """Yield the files of a kind, each with what writes it."""
        from kits.io import write_labels, write_volume
        from kits.volume import stored_order

        if kind == LABELS:
            yield self.place(kind, scan.name, ENDING), partial(write_labels, array=result.labels, grid=grid)
        elif kind == SEG_NRRD:
            from kits.prediction.slicer import write_seg_nrrd

            write = partial(write_seg_nrrd, labels=result.labels, grid=grid, classes=classes)
            yield self.place(kind, scan.name, ".seg.nrrd"), write
        elif kind == COLOR_TABLE:
            from kits.prediction.slicer import write_color_table

            yield self.place(kind, scan.name, ".ctbl"), partial(write_color_table, classes=classes)
        elif kind == OWN_IDS:
            assert self.own_ids is not None
            yield self.place(kind, scan.name, ENDING), partial(write_labels, array=self.own_ids[result.labels], grid=grid)
        elif kind == DICOM_SEG:
            from kits.prediction.dicom_seg import write_dicom_seg

            stored = stored_order(result.labels, grid)
            yield self.place(kind, scan.name, ".dcm"), partial(write_dicom_seg, files=scan.files, stored=stored, classes=classes)
        else:
            for part, found in getattr(result, kind).items():

                def write_map(path: Path, one: BoxMap = found) -> None:
                    write_volume(path, one.whole(), grid, one.unit)  # made whole only now, one after the other

                yield self.place(kind, scan.name, ENDING, part), write_map


def own_ids_of(regions: RegionIds | None) -> np.ndarray:
    """Give by label the id of the training data: the smallest of those that stand for it (`data.labels`).

    Raises:
        KitsError: the checkpoint was trained on KiTS's own ids.
    """
    import numpy as np

    from kits.core.labels import CLASSES, classes_by_id

    if regions is None:
        raise KitsError("save=own_ids: the fine checkpoint was trained on KiTS's own ids (no data.labels); leave it out")
    table = np.zeros(len(CLASSES), np.uint8)
    for number, label in sorted(classes_by_id(regions.ids).items(), reverse=True):
        table[label] = number
    return table
