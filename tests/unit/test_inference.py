"""Sliding windows and pasting: nothing is shifted, lost or invented."""

import itertools
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor

from kits.config.schema.stage import CoarseInference
from kits.inference.coarse import coarse_mask
from kits.inference.devices import Fallback
from kits.inference.fine import BoxReader, BoxReading, fit_to_multiple, most_probable, paste_labels, read_boxes
from kits.inference.members import Members
from kits.inference.sliding import inner_parts, sliding, to_input, window_starts
from kits.volume.rois import Box


@pytest.mark.parametrize(
    ("depth", "window", "overlap"), [(5, 8, 0.5), (8, 8, 0.5), (9, 8, 0.5), (100, 24, 0.25), (1059, 48, 0.25)]
)
def test_windows_cover_every_slice_and_overlap(depth: int, window: int, overlap: float) -> None:
    starts = window_starts(depth, window, overlap)
    seen = np.zeros(depth, int)
    for start in starts:
        assert start + min(window, depth) <= depth
        seen[start : start + window] += 1
    assert seen.min() >= 1
    for first, second in itertools.pairwise(starts):
        assert first + window - second >= int(window * overlap)


def test_overlapping_windows_of_a_voxelwise_network_give_its_own_answer() -> None:
    hu = np.random.default_rng(0).integers(-100, 300, (21, 4, 4)).astype(np.int16)

    def predict(start: int, stop: int) -> dict[str, Tensor]:
        values = to_input(hu[start:stop], (-100, 300), "cpu")
        return {"logits": torch.cat([values, -values], 1)[0]}

    logits = torch.cat([maps["logits"] for _, maps in sliding(predict, len(hu), window=8, overlap=0.5)], dim=1)
    assert logits.shape == (2, 21, 4, 4)
    np.testing.assert_allclose(logits[0].numpy(), (hu - 100) / 200, atol=1e-6)


def read_and_paste(
    reader: BoxReader, hu: np.ndarray, boxes: list[Box], *, grow_mm: float, grow_rounds: int
) -> tuple[np.ndarray, list[Box]]:
    readings = read_boxes(reader, hu, boxes, SPACING, grow_mm=grow_mm, grow_rounds=grow_rounds)
    return paste_labels(readings, hu.shape), [reading.box for reading in readings]


def test_the_coarse_threshold_is_a_probability() -> None:
    hu = np.array([[[-100, 90, 110, 300]]], dtype=np.int16)
    for threshold, expected in ((0.5, hu > 100), (0.9, np.zeros_like(hu, bool))):
        settings, fallback = CoarseInference(window=4, overlap=0.0, threshold=threshold), Fallback([], "cpu", 4, "coarse")
        mask = coarse_mask(Members([lambda x: x]), hu, window_hu=(-100, 300), inference=settings, fallback=fallback)
        np.testing.assert_array_equal(mask, expected)


def three_classes(x: Tensor) -> Tensor:
    """Background below 0 (100 HU), kidney to 0.5 (200 HU), tumor above."""
    return torch.cat([-x, torch.where(x > 0, 0.5 - (x - 0.25).abs(), -1.0), torch.where(x > 0.5, 2.0, -2.0)], 1)


SPACING = (4.0, 1.0, 1.0)
READER = BoxReader(Members([three_classes]), (-100, 300), 0.25, 8, Fallback([three_classes], "cpu", 4, "fine"))


def test_boxes_are_segmented_where_they_are_and_nothing_outside() -> None:
    hu = np.full((6, 20, 20), -100, np.int16)
    hu[1:4, 3:9, 2:7], hu[2, 5:7, 3:5] = 150, 290
    hu[0, 15, 15] = 290  # outside every box
    boxes = [Box((1, 3, 2), (4, 9, 7)), Box((1, 0, 12), (3, 5, 20))]
    labels, read = read_and_paste(READER, hu, boxes, grow_mm=0, grow_rounds=0)
    expected = np.zeros_like(hu, dtype=np.uint8)
    expected[1:4, 3:9, 2:7], expected[2, 5:7, 3:5] = 1, 2
    np.testing.assert_array_equal(labels, expected)
    assert read == boxes


def test_a_tumor_region_that_is_unsure_as_a_whole_becomes_what_is_next_most_probable_there() -> None:
    hu = np.full((6, 20, 30), -100, np.int16)
    hu[1:4, 3:9, 2:27] = 150
    hu[2:3, 5:7, 3:6], hu[2:3, 5:7, 12:15], hu[2:3, 5:7, 22:25] = 290, 260, 260
    hu[2, 6, 24] = 300

    def network(x: Tensor) -> Tensor:
        """Tumor of 0.9 above 250 HU but 0.6 of 240 to 270; there kidney is 0.3, and else 1."""
        tumor = torch.where(x > 0.85, 0.9, torch.where(x > 0.75, 0.6, 1e-6))
        return torch.cat([torch.where(x > 0.2, 0.05, 1.0), torch.where(x > 0.2, 0.3, 1e-6), tumor], 1).log()

    members, box = Members([network]), Box((0, 0, 0), (6, 20, 30))
    found = []
    for confidence in (None, 0.7):
        reader = BoxReader(members, (-100, 300), 0.25, 2, Fallback([network], "cpu", 4, "fine"), 1, confidence)
        reading = reader.read(hu, box)
        assert not reading.maps
        found.append(reading.labels)
    assert [(labels == 2).sum() for labels in found] == [18, 6]
    assert (found[1][2, 5:7, 12:15] == 1).all()
    assert (found[1][2, 5:7, 22:25] == 1).all(), "one sure voxel makes no tumor"
    np.testing.assert_array_equal(found[0] > 0, found[1] > 0)


def test_a_box_that_cuts_what_it_shows_grows_until_it_holds_it() -> None:
    hu = np.full((6, 30, 30), -100, np.int16)
    hu[1:5, 5:25, 8:12] = 150
    hu[1:5, 5:25, 27:29] = 150  # beside it: never reached
    cut = Box((0, 10, 5), (6, 16, 15))
    once, _ = read_and_paste(READER, hu, [cut], grow_mm=4, grow_rounds=1)
    assert 0 < (once > 0).sum() < 4 * 20 * 4
    labels, read = read_and_paste(READER, hu, [cut], grow_mm=4, grow_rounds=5)
    assert (labels > 0).sum() == 4 * 20 * 4
    assert read[0].start == (0, 2, 5)
    assert read[0].stop[2] == 15, "a face that nothing touches stays"


def test_a_false_region_at_the_border_does_not_grow_the_box() -> None:
    hu = np.full((6, 30, 30), -100, np.int16)
    hu[1:5, 11:16, 6:12] = 150
    hu[1:5, 18:29, 13:16] = 150
    box = Box((0, 8, 4), (6, 20, 18))
    _, read = read_and_paste(READER, hu, [box], grow_mm=4, grow_rounds=3)
    assert read == [box]


def test_a_box_stops_growing_at_the_border_of_the_volume() -> None:
    hu = np.full((3, 16, 16), 150, np.int16)
    labels, read = read_and_paste(READER, hu, [Box((1, 6, 6), (2, 9, 9))], grow_mm=8, grow_rounds=9)
    assert read == [Box((0, 0, 0), (3, 16, 16))]
    assert (labels == 1).all()


@pytest.mark.parametrize("multiple", [1, 8, 16, 32])
def test_a_box_grows_about_its_middle_to_what_the_network_takes(multiple: int) -> None:
    box = fit_to_multiple(Box((2, 3, 4), (9, 30, 61)), multiple)
    assert box.start[0] == 2
    assert box.stop[0] == 9
    assert all(size % multiple == 0 for size in box.shape[1:])
    assert box.start[1] <= 3
    assert box.stop[1] >= 30
    assert box.shape[1] - 27 < multiple


def test_where_boxes_overlap_a_tumor_stays_before_a_cyst_and_a_cyst_before_a_kidney() -> None:
    claims = {
        Box((0, 0, 0), (1, 1, 4)): [1, 2, 3, 0],
        Box((0, 0, 1), (1, 1, 5)): [3, 2, 1, 1],
        Box((0, 0, 0), (1, 1, 3)): [3, 3, 2],
    }

    class Claims:
        def read(self, hu: np.ndarray, box: Box) -> BoxReading:
            return BoxReading(box, np.array(claims[box], dtype=np.uint8)[None, None])

    hu = np.zeros((1, 1, 5), np.int16)
    for order in itertools.permutations(claims):
        labels, _ = read_and_paste(Claims(), hu, list(order), grow_mm=0, grow_rounds=0)  # type: ignore[arg-type]
        assert labels.tolist() == [[[3, 2, 2, 1, 1]]]


def test_the_most_probable_class_is_the_first_of_equals_as_argmax_has_it() -> None:
    classes = torch.randint(0, 4, (4, 5, 6, 7), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(most_probable(classes), torch.from_numpy(classes.numpy().argmax(0)).to(torch.uint8))


def test_memory_is_that_of_a_window_however_deep_the_box_is() -> None:
    alive: list[weakref.ref] = []
    most = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal most
        most = max(most, sum(one() is not None for one in alive))
        result = three_classes(x)
        alive.append(weakref.ref(result))
        return result

    reader = BoxReader(Members([counted]), (-100, 300), 0.25, 8, Fallback([], "cpu", 4, "fine"))
    hu = np.random.default_rng(0).integers(-100, 300, (100, 16, 16)).astype(np.int16)
    reading = reader.read(hu, Box((0, 0, 0), hu.shape))
    assert len(alive) > 30
    assert most <= 1, "what a window gave is gone when the next one is read"
    np.testing.assert_array_equal(reading.labels, np.digitize(hu, [101, 201]))


@pytest.mark.parametrize("reach", [0, 1, 2, 3])
@pytest.mark.parametrize("window", [8, 9, 24])
def test_windows_of_a_bounded_reach_finish_every_slice_once_with_all_that_it_depends_on(window: int, reach: int) -> None:
    for depth in (1, 7, 8, 9, 26, 27, 100, 1059):
        parts = inner_parts(depth, window, reach)
        assert [first for _, _, first, _ in parts] == [0, *(end for _, _, _, end in parts[:-1])]
        assert parts[-1][3] == depth
        for start, stop, first, end in parts:
            assert stop - start == parts[0][1] <= window
            assert start in (0, first - reach) or first - start > reach
            assert start == 0 or first - start >= reach
            assert stop == depth or stop - end >= reach
            assert first < end
        least = -(-(depth - 2 * reach) // (window - 2 * reach))  # no set of windows can be smaller
        assert len(parts) <= max(1, least)


class Blur(torch.nn.Module):
    """A voxel's logits are the sums of five slices, and the edges of a window show."""

    in_plane_multiple, reach = 1, 2

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.tensor([1.0, 2.0, 5.0, 2.0, 1.0]).view(1, 1, 5, 1, 1)
        blurred = torch.nn.functional.conv3d(x, weight, padding=(2, 0, 0)) / 11
        return torch.cat([-blurred, blurred], 1)


def test_a_box_of_several_windows_is_read_as_one_window_would_be() -> None:
    hu = np.random.default_rng(0).integers(-100, 300, (50, 5, 6)).astype(np.int16)
    found = []
    for window in (50, 24, 6, 5):
        members = Members([Blur()], outputs=("probabilities",))
        reader = BoxReader(members, (-100, 300), 0.25, 1, Fallback([], "cpu", window, "fine"))
        found.append(reader.read(hu, Box((0, 0, 0), hu.shape)))
    for reading in found[1:]:
        np.testing.assert_array_equal(reading.labels, found[0].labels)
        np.testing.assert_array_equal(reading.maps["probabilities"], found[0].maps["probabilities"])
    assert 0 < found[0].labels.mean() < 1
