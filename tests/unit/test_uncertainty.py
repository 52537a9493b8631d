"""Disagreement of the sources as uncertainty, against closed forms."""

import math

import pytest
import torch

from kits.inference.members import Members, disagreement_of, entropy

SURE = 200.0


def logits_of(*probabilities):
    """(1, C, 1, 1, 1) logits of one voxel."""
    return torch.tensor(probabilities).log().view(1, -1, 1, 1, 1)


class Heads:
    """A network whose sources say what they are told to."""

    def __init__(self, sources):
        self.sources = sources

    def all_logits(self, volume):
        return self.sources[0], self.sources


def disagreement(sources):
    """Entropy and mutual information in nats, as a segmentation has them."""
    maps = Members([Heads(sources)], outputs=("uncertainty",))(torch.zeros(1, 1, *sources[0].shape[2:]))
    return disagreement_of(maps) * math.log(sources[0].shape[1])


def figures(*sources):
    return tuple(value.item() for value in disagreement(list(sources)))


def test_entropy_of_certainty_is_none_and_of_a_uniform_voxel_its_logarithm():
    assert entropy(torch.tensor([1.0, 0.0, 0.0])).item() == 0
    assert entropy(torch.full((3,), 1 / 3)).item() == pytest.approx(math.log(3))


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
    sources = [5 * torch.randn(1, 3, 2, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    total, mutual = disagreement(sources)
    assert total.shape == mutual.shape == (2, 4, 4)
    assert (mutual >= 0).all()
    assert (mutual <= total).all()
    assert (total <= math.log(3) + 1e-6).all()
