"""The two stages as one object: ensembles, options, maps beside the labels, warnings, memory that runs out, any orientation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from kits.config.schema import parse
from kits.config.schema.exported import Exported, ExportedCoarse, ExportedFine
from kits.core.errors import KitsError
from kits.inference.devices import LEAST_WINDOW, Fallback, is_out_of_memory
from kits.inference.segmenter import Segmenter, SegmenterOptions, changed
from kits.io import read_labels, read_volume, write_labels
from kits.models.settings import FORMAT
from kits.volume import Volume, doubts, from_image, grid_of, stored_order
from kits.volume.parts import parts_of
from kits.volume.rois import coverage
from tests.conftest import kidney_pair
from tests.unit.test_models import finenet

CPU = torch.device("cpu")
SPACING = (4.0, 1.5, 1.5)


def settings_of(schema: Any, stage: str, classes: int, **groups: dict[str, Any]) -> Any:
    """What a checkpoint of a network with so many classes says, in groups."""
    network = {"classes": classes, "in_plane_multiple": 8, "fixed_size": False, "sources": 0, "reach": None}
    return parse(schema, {"kits_format": FORMAT, "stage": stage, "trained_on": None, "network": network, **groups})


COARSE: ExportedCoarse = settings_of(
    ExportedCoarse,
    "coarse",
    1,
    data={"window_hu": [-100, 300], "coarse_size": 32, "coarse_z_mm": None, "label_name": "segmentation.nii.gz", "labels": None},
    inference={"window": 8, "overlap": 0.25, "threshold": 0.5},
    roi={"count": 2, "min_voxels": 20, "min_ml": None, "margin_mm": 6, "rank": "size"},
)
FINE: ExportedFine = settings_of(
    ExportedFine,
    "fine",
    3,
    data={"window_hu": [-100, 300], "classes": ["background", "kidney", "tumor"], "labels": None},
    inference={"window": 8, "overlap": 0.25, "pixel_mm": None, "mirror": False, "tumor_confidence": None},
    roi={"margin_mm": 6, "grow_mm": 6, "grow_rounds": 1},
    postprocess={"components": 2, "tumor_distance_mm": 5, "min_ml": 0.1, "fill_holes": False},
)


def merged(settings: Exported, groups: dict[str, dict[str, Any]]) -> Exported:
    """Settings with some keys of their groups changed."""
    return changed(settings, **{name: changed(getattr(settings, name), **values) for name, values in groups.items()})


class Bright(nn.Module):
    """A kidney or a tumor is what is brighter than 10 HU; `sharpness` is how sure it is."""

    def __init__(self, sharpness: float = 20.0) -> None:
        super().__init__()
        self.sharpness = sharpness

    def forward(self, volume: Tensor) -> Tensor:
        return (volume + 0.45) * self.sharpness


class Levels(nn.Module):
    """Background below 10 HU, tumor to 120 HU, kidney above: voxel by voxel."""

    in_plane_multiple = 8

    def __init__(self, sharpness: float = 20.0) -> None:
        super().__init__()
        self.sharpness = sharpness

    def forward(self, volume: Tensor) -> Tensor:
        tumor = 0.275 - (volume + 0.175).abs()
        return torch.cat([-(volume + 0.45), volume - 0.1, tumor], dim=1) * self.sharpness


class TwoSources(Levels):
    """Its sources call every voxel background and kidney, each as sure as can be."""

    def all_logits(self, volume: Tensor) -> tuple[Tensor, list[Tensor]]:
        sources = []
        for label in (0, 1):
            logits = torch.full((1, 3, *volume.shape[2:]), -100.0)
            logits[:, label] = 100.0
            sources.append(logits)
        return self(volume), sources


class OutOfMemory(Levels):
    """Has memory for so many slices."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.seen = most, []  # type: ignore[var-annotated]

    def forward(self, volume: Tensor) -> Tensor:
        self.seen.append(volume.shape[2])
        if volume.shape[2] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(volume)


def segmenter(
    fine: nn.Module | list[nn.Module] | None = None,
    options: SegmenterOptions | None = None,
    changes: dict[str, Any] | None = None,
) -> Segmenter:
    networks = fine if isinstance(fine, list) else [fine or Levels()]
    settings = merged(FINE, changes or {})
    return Segmenter([(Bright(), COARSE)], [(network, settings) for network in networks], CPU, options)


def volume_of(hu: np.ndarray, spacing: tuple[float, float, float] = SPACING) -> Volume:
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(spacing[::-1])
    return from_image(image)


def pair(seed: int = 3) -> tuple[Volume, np.ndarray]:
    """A crude CT without noise at its thresholds, and its labels."""
    hu, labels = kidney_pair(seed)
    return volume_of(hu), labels


def test_kidneys_and_tumor_are_found_with_their_sides_and_volumes() -> None:
    volume, labels = pair()
    result = segmenter().segment(volume)
    assert (result.labels == labels).mean() > 0.9995
    assert len(result.boxes) == 2
    kidneys, tumors = ([part for part in result.parts if part.kind == kind] for kind in ("kidney", "tumor"))
    assert {part.side for part in kidneys} == {"left", "right"}
    assert [part.side for part in tumors] == ["left"]  # larger x
    voxel_ml = math.prod(SPACING) / 1000
    left = labels[:, :, 32:] > 0
    by_side = {part.side: part.volume_ml for part in kidneys}
    assert by_side["left"] == pytest.approx(left.sum() * voxel_ml, rel=0.02)
    assert sum(by_side.values()) == pytest.approx(result.volumes_ml["kidney"])
    assert tumors[0].volume_ml == pytest.approx(result.volumes_ml["tumor"])


def test_an_ensemble_is_the_mean_probability_of_its_members() -> None:
    volume, _ = pair()
    outputs = SegmenterOptions(outputs=("probabilities",))
    alone = [segmenter(Levels(sharpness), outputs).segment(volume) for sharpness in (2.0, 9.0)]
    both = segmenter([Levels(2.0), Levels(9.0)], outputs).segment(volume)
    for name in ("kidney", "tumor"):
        first, second, mean = (one.probabilities[name].whole().astype(float) for one in (*alone, both))
        inside = (first > 0) & (second > 0) & (mean > 0)
        assert inside.any()
        np.testing.assert_allclose(mean[inside], (first[inside] + second[inside]) / 2, atol=1.01)


def test_coarse_members_are_averaged_too() -> None:
    volume, _ = pair()
    unsure, sure = Bright(), Bright(-20.0)
    inverted = Segmenter([(one, COARSE) for one in (unsure, sure, sure)], [(Levels(), FINE)], CPU)
    assert inverted.find_rois(volume).boxes != segmenter().find_rois(volume).boxes
    agreeing = Segmenter([(one, COARSE) for one in (unsure, unsure, sure)], [(Levels(), FINE)], CPU)
    assert agreeing.find_rois(volume).boxes == segmenter().find_rois(volume).boxes


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [("data", "classes", ["background", "kidney", "tumor", "cyst"]), ("data", "window_hu", (-50, 50)), ("roi", "grow_mm", 1)],
)
def test_checkpoints_that_disagree_are_not_averaged(group: str, key: str, value: Any) -> None:
    other = merged(FINE, {group: {key: value}})
    with pytest.raises(KitsError, match=rf"^fine: checkpoint 2 was trained with {group}\.{key}=.*average only those that agree$"):
        Segmenter([(Bright(), COARSE)], [(Levels(), FINE), (Levels(), other)], CPU)
    with pytest.raises(KitsError, match="coarse: no checkpoint given"):
        Segmenter([], [(Levels(), FINE)], CPU)


def test_mirroring_averages_what_is_seen_from_both_sides() -> None:
    class Ramp(Levels):
        """Surer of kidney the farther to the left a column lies."""

        def forward(self, volume: Tensor) -> Tensor:
            ramp = torch.linspace(-2, 2, volume.shape[-1]).expand(volume.shape)
            return torch.cat([torch.zeros_like(ramp), ramp, torch.full_like(ramp, -50)], dim=1)

    volume, _ = pair()
    outputs = ("probabilities",)
    plain, mirrored = (
        segmenter(Ramp(), SegmenterOptions(mirror=mirror, outputs=outputs)).segment(volume) for mirror in (False, True)
    )
    block = plain.probabilities["kidney"].blocks[0]
    assert int(block[..., -1].min()) > int(block[..., 0].max())
    for block in mirrored.probabilities["kidney"].blocks:  # p(x) + p(-x) = 1
        np.testing.assert_allclose(block, 127.5, atol=1)


def test_a_checkpoint_says_whether_it_is_mirrored_and_an_option_overrides_it() -> None:
    told = merged(FINE, {"inference": {"mirror": True}})
    for fine, asked, expected in ((FINE, None, False), (told, None, True), (told, False, False), (FINE, True, True)):
        found = Segmenter([(Bright(), COARSE)], [(Levels(), fine)], CPU, SegmenterOptions(mirror=asked))
        assert (found.coarse.mirror, found.fine.mirror) == (expected, expected)


def test_large_pixels_are_split_for_the_network_and_its_maps_joined() -> None:
    seen = []

    class Watched(Levels):
        """Remembers the sizes of what it is given."""

        def forward(self, volume: Tensor) -> Tensor:
            seen.append(tuple(volume.shape[2:]))
            return super().forward(volume)

    volume, _ = pair()
    plain = segmenter(Watched()).segment(volume)
    sizes, seen[:] = list(seen), []
    limit = max(volume.spacing[1:]) / 2.5
    split = segmenter(Watched(), changes={"inference": {"pixel_mm": limit}}).segment(volume)
    assert seen == [(depth, 3 * rows, 3 * columns) for depth, rows, columns in sizes]
    assert split.labels.shape == plain.labels.shape
    overlap = 2 * ((split.labels > 0) & (plain.labels > 0)).sum() / ((split.labels > 0).sum() + (plain.labels > 0).sum())
    assert overlap > 0.95


@pytest.mark.parametrize(("hu", "told"), [(30, True), (54, True), (56, False), (170, False)])
def test_kidneys_that_are_no_brighter_than_without_contrast_agent_are_told(hu: int, told: bool) -> None:
    labels = np.zeros((4, 8, 8), np.uint8)
    labels[1:3, 2:6, 2:6], labels[1, 3, 3] = 1, 2
    volume = np.where(labels == 1, hu, np.where(labels == 2, 20, 300)).astype(np.int16)
    expected = [f"no contrast agent: the kidneys have {hu} HU on the median, and a tumor hardly differs from them without it"]
    assert doubts.doubt_contrast(volume, labels) == (expected if told else [])
    assert doubts.doubt_contrast(volume, np.zeros_like(labels)) == []


def test_half_precision_gives_the_same_labels_and_is_refused_where_it_is_slower() -> None:
    volume, _ = pair()
    full, half = (segmenter(options=SegmenterOptions(precision=precision)).segment(volume).labels for precision in ("32", "bf16"))
    assert (full == half).mean() > 0.999
    with pytest.raises(KitsError, match="precision: 16 bits are for a GPU; take precision=auto"):
        segmenter(options=SegmenterOptions(precision="16"))


@pytest.mark.parametrize(
    "wrong", [{"precision": "64"}, {"outputs": ("logits",)}, {"window": 0}, {"margin_mm": -1.0}, {"min_component_ml": -2.0}]
)
def test_wrong_options_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(KitsError, match=f"^{next(iter(wrong))}="):
        parse(SegmenterOptions, wrong)


def test_options_take_the_place_of_what_the_checkpoint_says() -> None:
    volume, _ = pair()
    tight, wide = (segmenter(options=SegmenterOptions(margin_mm=margin)).find_rois(volume).boxes for margin in (0.0, 12.0))
    assert all(a.start[0] > b.start[0] for a, b in zip(tight, wide, strict=True))
    assert not segmenter(options=SegmenterOptions(min_component_ml=1000.0)).segment(volume).labels.any()
    network = OutOfMemory(1000)
    segmenter(network, SegmenterOptions(window=5)).segment(volume)
    assert max(network.seen) == 5
    assert FINE.inference.window == 8


def test_fewer_slices_at_once_give_the_same_probabilities() -> None:
    volume, _ = pair()
    network = finenet(sources=1).eval()
    passed: list[int] = []
    network.sources[0].encoder.features.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    found = []
    for slices in (None, 3):
        passed.clear()
        options = SegmenterOptions(slices_at_once=slices, outputs=("probabilities",))
        found.append(segmenter(network, options).segment(volume).probabilities["kidney"].whole().astype(int))
        assert max(passed) == (slices or FINE.inference.window)
    assert found[0].any()
    np.testing.assert_allclose(found[0], found[1], atol=1)


def test_joined_slices_and_a_threshold_in_ml_find_the_same_rois() -> None:
    volume, labels = pair()
    seen: list[int] = []

    class Counting(Bright):
        def forward(self, volume: Tensor) -> Tensor:
            seen.append(volume.shape[2])
            return super().forward(volume)

    def of(**changes: dict[str, Any]) -> Segmenter:
        return Segmenter([(Counting(), merged(COARSE, changes))], [(Levels(), FINE)], CPU)

    fine = of().find_rois(volume).boxes
    assert sum(seen) >= len(labels) == 20
    seen.clear()
    rois = of(data={"coarse_z_mm": 8.0}, roi={"min_ml": 1.0, "min_voxels": 10**6}).find_rois(volume)
    joined, warnings = rois.boxes, rois.warnings
    assert seen == [8, 8]  # two windows over ten slices
    assert not warnings
    assert len(fine) == len(joined) == 2
    assert coverage(joined, labels > 0) == coverage(fine, labels > 0) == 1
    assert all(
        abs(a - b) <= 2 for one, other in zip(fine, joined, strict=True) for a, b in zip(one.shape, other.shape, strict=True)
    )
    rois = of(roi={"min_ml": 500.0}).find_rois(volume)
    nothing, warnings = rois.boxes, rois.warnings
    assert len(nothing) == 1
    assert warnings == [warnings[0]]
    assert "no region of more than 500.0 mL on its grid" in warnings[0]
    assert "the fine stage looked at the whole body" in warnings[0]
    assert coverage(nothing, volume.array > -300) == 1


def test_sources_that_contradict_each_other_are_wholly_uncertain_inside_the_rois_only() -> None:
    volume, _ = pair()
    result = segmenter(TwoSources(), SegmenterOptions(outputs=("uncertainty", "sources"))).segment(volume)
    inside = np.zeros(volume.array.shape, bool)
    for box in result.boxes:
        inside[box.slices] = True
    half = round(255 * math.log(2) / math.log(3))  # two of three classes
    for name in ("entropy", "mutual_information"):
        found = result.uncertainty[name].whole()
        assert found.dtype == np.uint8
        assert (found[inside] == half).all()
        assert not found[~inside].any()
    first, second = (source.whole() for source in result.sources)
    assert not first.any()
    assert (second[inside] == 1).all()
    assert not result.probabilities
    plain = segmenter(TwoSources()).segment(volume)
    np.testing.assert_array_equal(plain.labels, result.labels)
    assert not plain.uncertainty


def test_uncertainty_of_an_ensemble_is_between_its_members() -> None:
    volume, _ = pair()
    options = SegmenterOptions(outputs=("uncertainty", "probabilities"))
    alike = segmenter([TwoSources(), TwoSources()], options).segment(volume)  # their sources would not agree
    assert not alike.uncertainty["mutual_information"].whole().any()
    unlike = segmenter([Levels(20.0), Levels(-20.0)], options).segment(volume)
    assert unlike.uncertainty["mutual_information"].whole().max() > 100


def test_a_network_without_memory_sees_fewer_slices_and_the_result_says_so() -> None:
    volume, _ = pair()
    network = OutOfMemory(LEAST_WINDOW)
    result = segmenter(network, changes={"inference": {"window": 16}}).segment(volume)
    assert any("cpu ran out of memory; went on with windows of 6 slices, not 16" in warning for warning in result.warnings)
    assert network.seen[:3] == [16, 8, 6]
    np.testing.assert_array_equal(result.labels, segmenter().segment(volume).labels)
    with pytest.raises(KitsError, match="the fine stage: memory ran out, even with windows of 6 slices on the CPU"):
        segmenter(OutOfMemory(2)).segment(volume)


def test_a_gpu_without_memory_hands_over_to_the_cpu_with_the_whole_window() -> None:
    fallback = Fallback([nn.Linear(1, 1)], torch.device("meta"), 24, "fine")  # stands in for a GPU: only its type is asked
    tried = []

    def attempt(device: torch.device, window: int) -> str:
        tried.append((device.type, window))
        if device.type == "meta":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return "done"

    assert fallback.run(attempt) == "done"
    assert tried == [("meta", 24), ("meta", 12), ("meta", 6), ("cpu", 24)]
    assert fallback.warnings == ["the fine stage: meta ran out of memory; went on with the CPU"]


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
    ],
)
def test_only_what_is_about_memory_is_tried_again(error: Exception, memory: bool) -> None:
    assert is_out_of_memory(error) == memory
    if not memory:
        with pytest.raises(RuntimeError, match="must match"):
            Fallback([], CPU, 8, "fine").run(lambda device, window: (_ for _ in ()).throw(error))


def test_a_real_failure_to_allocate_is_recognized() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)


def warnings_of(hu: np.ndarray, spacing: tuple[float, float, float] = (6.0, 3.0, 3.0)) -> list[str]:
    """Of kidneys of 70 mL, as far as nothing else is said."""
    return segmenter().segment(volume_of(hu, spacing)).warnings


def test_what_a_reader_should_know_is_said() -> None:
    hu, labels = kidney_pair(3)
    assert warnings_of(hu) == []
    right = np.where(np.arange(64) < 32, True, False)
    without = np.where((labels > 0) & right, -50, hu).astype(np.int16)
    assert any(warning == "one kidney: found on the left only" for warning in warnings_of(without))
    cut = warnings_of(np.ascontiguousarray(hu[10:]))
    assert any("field of view cuts the left kidney: it reaches the first slice" in warning for warning in cut)
    assert any("field of view cuts the right kidney" in warning for warning in cut)
    nothing = warnings_of(np.where(hu > 0, -50, hu).astype(np.int16))
    assert any("the fine stage looked at the whole body" in warning for warning in nothing)
    assert any(warning.startswith("nothing found") for warning in nothing)
    assert any("more than a kidney: size doubtful" in warning for warning in warnings_of(hu, spacing=(40.0, 15.0, 15.0)))
    assert any("HU implausible: unscaled" in warning for warning in warnings_of((hu + 1024).astype(np.int16)))
    with pytest.raises(KitsError, match=r"unscaled.*convert it again"):
        segmenter(options=SegmenterOptions(allow_implausible=False)).segment(volume_of((hu + 1024).astype(np.int16)))


def test_a_result_at_the_border_of_its_roi_is_doubted() -> None:
    volume, _ = pair()
    tight = segmenter(options=SegmenterOptions(margin_mm=0.0), changes={"roi": {"grow_rounds": 0}})
    boxes = [box.grow_mm(0, SPACING, volume.array.shape) for box in tight.find_rois(volume).boxes]
    assert boxes
    tight.coarse_settings = merged(tight.coarse_settings, {"inference": {"threshold": 0.9999}})  # a smaller mask
    result = tight.segment(volume)
    assert any("touches the border of ROI" in warning for warning in result.warnings)


def test_sides_are_judged_by_the_other_kidney_and_else_by_the_body() -> None:
    labels = np.zeros((9, 40, 100), np.uint8)
    labels[2:7, 10:20, 40:48], labels[2:7, 10:20, 70:78] = 1, 1
    labels[3:5, 12:16, 72:76] = 2
    spacing = (5.0, 4.0, 4.0)
    both = parts_of(labels, spacing, middle=90)  # the patient lies off-center
    assert [(part.kind, part.side) for part in both if part.kind == "tumor"] == [("tumor", "left")]
    assert sorted(part.side for part in both if part.kind == "kidney") == ["left", "right"]
    labels[:, :, :60] = 0
    assert parts_of(labels, spacing, middle=90)[0].side == "right"
    assert parts_of(labels, spacing, middle=50)[0].side == "left"
    assert parts_of(labels, spacing, middle=50)[1].volume_ml == pytest.approx(2 * 4 * 4 * 80 / 1000)
    assert parts_of(labels, spacing, middle=50)[0].tissue_ml == pytest.approx((5 * 10 * 8 - 2 * 4 * 4) * 80 / 1000)
    assert parts_of(np.zeros_like(labels), spacing, 50) == []


ORIENTATIONS = [(axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)]


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_labels_return_to_the_grid_of_any_input(axes: tuple[int, ...], signs: tuple[float, ...], tmp_path: Any) -> None:
    rng = np.random.default_rng(hash((axes, signs)) % 1000)
    hu, _ = kidney_pair(1)
    direction = np.zeros((3, 3))
    direction[list(axes), range(3)] = signs
    angles = np.radians(rng.uniform(-12, 12, 3)).tolist() if rng.random() < 0.5 else (0.0, 0.0, 0.0)
    tilt = np.reshape(sitk.Euler3DTransform((0, 0, 0), *angles).GetMatrix(), (3, 3))
    # The patient as LPS array: the file's axes are a permutation of it, some of them turned over.
    upright = sitk.GetImageFromArray(hu)
    template = sitk.GetImageFromArray(np.zeros([(64, 64, 20)[axes[2 - k]] for k in range(3)], np.int16))
    template.SetDirection((tilt @ direction).ravel().tolist())
    template.SetSpacing([float((1.5, 1.5, 4.0)[axis] * rng.uniform(0.8, 1.2)) for axis in axes])
    template.SetOrigin(rng.uniform(-500, 500, 3).tolist())
    assert upright.GetSize() == tuple(template.GetSize()[axes.index(k)] for k in range(3))
    grid = grid_of(template)
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored_order(hu, grid)))
    image.CopyInformation(template)
    path = tmp_path / "scan.nii.gz"
    sitk.WriteImage(image, str(path))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, hu)
    result = segmenter().segment(volume)
    write_labels(tmp_path / "labels.nii.gz", result.labels, volume.grid)
    written = sitk.ReadImage(str(tmp_path / "labels.nii.gz"))
    scan = sitk.ReadImage(str(path))
    for of in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(written, of)(), getattr(scan, of)(), rtol=1e-6, atol=1e-6)
    found, stored = sitk.GetArrayFromImage(written) > 0, sitk.GetArrayFromImage(scan)
    assert found.any()
    np.testing.assert_array_equal(found & (stored < 0), False)  # in the file's own order: on bright voxels only
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii.gz", allowed=(0, 1, 2)).array, result.labels)
