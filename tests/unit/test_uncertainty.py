"""Disagreement of the sources as uncertainty, against closed forms."""

import math

import numpy as np
import pytest
import torch

from kits.inference import sliding_logits
from kits.models.uncertainty import disagreement, entropy, stacked_sources, unstacked
from tests.unit.test_models import finenet

SURE = 200.0


def logits_of(*probabilities):
    """(1, C, 1, 1, 1) logits of one voxel."""
    return torch.tensor(probabilities).log().view(1, -1, 1, 1, 1)


def figures(*sources):
    return tuple(value.item() for value in disagreement(list(sources)))


def test_entropy_of_certainty_is_none_and_of_a_uniform_voxel_its_logarithm():
    assert entropy(torch.tensor([1.0, 0.0, 0.0]), 0).item() == 0
    assert entropy(torch.full((3,), 1 / 3), 0).item() == pytest.approx(math.log(3))


def test_sources_that_are_sure_of_different_classes_disagree_wholly():
    kidney, tumor = (torch.tensor(value).view(1, -1, 1, 1, 1) for value in ([-SURE, SURE, -SURE], [-SURE, -SURE, SURE]))
    assert figures(kidney, tumor) == pytest.approx((math.log(2), math.log(2)))
    assert figures(kidney, kidney) == pytest.approx((0, 0))


def test_sources_that_are_unsure_alike_do_not_disagree():
    unsure = logits_of(1 / 3, 1 / 3, 1 / 3)
    assert figures(unsure, unsure, unsure) == pytest.approx((math.log(3), 0), abs=1e-6)


def test_two_classes_are_the_jensen_shannon_divergence():
    p, q = 0.9, 0.3
    m = (p + q) / 2

    def h(x):
        return -x * math.log(x) - (1 - x) * math.log(1 - x)

    assert figures(logits_of(p, 1 - p), logits_of(q, 1 - q)) == pytest.approx((h(m), h(m) - (h(p) + h(q)) / 2), abs=1e-6)


def test_mutual_information_is_between_none_and_the_entropy():
    sources = [5 * torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    total, mutual = disagreement(sources)
    assert total.shape == mutual.shape == (2, 2, 4, 4)
    assert (mutual >= 0).all()
    assert (mutual <= total).all()
    assert (total <= math.log(3) + 1e-6).all()


def test_every_head_is_read_window_by_window():
    network = finenet(sources=2).eval()
    hu = np.random.default_rng(0).integers(-100, 300, (6, 32, 32)).astype(np.int16)

    def read(net, window):
        return sliding_logits(net, hu, window_hu=[-100, 300], window=window, overlap=0.5, device="cpu")

    fused, sources = unstacked(read(stacked_sources(network), 4), 3)
    assert [tuple(own.shape) for own in sources] == [(3, 6, 32, 32)] * 2
    torch.testing.assert_close(fused, read(network, 4))
    with torch.no_grad():
        volume = torch.from_numpy((hu - 100) / 200).float()[None, None]
        expected = network.all_logits(volume)[1]
    for own, wanted in zip(unstacked(read(stacked_sources(network), 6), 3)[1], expected, strict=True):
        torch.testing.assert_close(own, wanted[0], rtol=1e-4, atol=1e-5)
    entropies, mutual = disagreement([own[None] for own in sources])
    assert entropies.shape == mutual.shape == (1, 6, 32, 32)
    assert mutual.max() > 0
