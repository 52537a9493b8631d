"""Sources of the fine network: planes, windows, different scales; which of them learn when; and at what rate."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kits.config.schema import parse
from kits.config.schema.loss import Loss
from kits.config.schema.training import phase_at
from kits.core.errors import KitsError
from kits.models.adaptation import OPERATORS
from kits.models.finenet import common_size
from kits.training.losses import build_loss, deep_supervision, parallel_loss
from kits.training.optimizers import parameter_groups
from tests.unit.test_models import LOSS, TINY, finenet, unet, volume

LABEL = torch.randint(0, 3, (1, 3, 32, 32), generator=torch.Generator().manual_seed(2))


def one(**keys):
    return {"backbone": TINY, "weights": None, **keys}


def awake(network):
    """Adaptation that no longer is the identity."""
    with torch.no_grad():
        for source in network.sources:
            for adaptation in source.adaptations:
                adaptation.last.weight.normal_()
    return network.eval()


def own_logits(network, x):
    with torch.no_grad():
        return network.all_logits(x)[1]


@pytest.mark.parametrize("operator", OPERATORS)
def test_at_initialization_each_source_is_its_two_dimensional_network(operator):
    network = finenet(operator=operator, gate=True).eval()
    x = volume(4)
    for k, whole in enumerate(own_logits(network, x)):
        slices = [own_logits(network, x[:, :, z : z + 1])[k] for z in range(4)]
        torch.testing.assert_close(whole, torch.cat(slices, dim=2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_slice_changes_with_its_neighbor_but_for_the_operator_none(operator):
    network = awake(finenet(sources=1, operator=operator))
    x = volume(3)
    changed = x.clone()
    changed[:, :, 2] *= -1
    moved = (own_logits(network, changed)[0] - own_logits(network, x)[0])[:, :, 1].abs().max().item()
    assert moved == pytest.approx(0, abs=1e-5) if operator == "none" else moved > 1e-3


def test_the_raw_volume_reaches_the_fused_logits_at_full_resolution_in_three_dimensions():
    """With what the encoders see taken away, one voxel still changes its neighbors, in the next slices too, and no others."""
    network = finenet().eval()
    with torch.no_grad():
        network.fusion.reduce.weight.zero_()
    x = volume(5)
    changed = x.clone()
    changed[0, 0, 2, 16, 16] += 1
    with torch.no_grad():
        moved = (network(changed) - network(x))[0].abs().amax(0) > 1e-7
    reached = moved.nonzero()
    assert reached.amin(0).tolist() == [1, 14, 14]
    assert reached.amax(0).tolist() == [3, 18, 18]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("depth", [1, 7, 16])
def test_sources_of_any_plane_take_any_number_of_slices(plane, depth):
    network = finenet(sources=[one(plane=plane), one()], deep_supervision=1)
    x = torch.rand(2, 1, depth, 32, 48) * 2 - 1
    fused, pyramids = network.training_logits(x)
    assert fused.shape == (2, 3, depth, 32, 48)
    for own in pyramids:
        assert [tuple(logits.shape) for logits in own] == [(2, 3, depth, 32, 48), (2, 3, depth, 8, 12)]


@pytest.mark.parametrize(("plane", "axis"), [("coronal", 3), ("sagittal", 4)])
def test_a_source_of_another_plane_is_the_axial_one_of_the_turned_volume(plane, axis):
    axial, turned = finenet(sources=1).eval(), finenet(sources=1, plane=plane).eval()
    turned.load_state_dict(axial.state_dict())
    x = torch.rand(1, 1, 16, 32, 48) * 2 - 1
    found = own_logits(turned, x)[0]
    expected = own_logits(axial, x.transpose(2, axis))[0].transpose(2, axis)
    # Bilinear over a whole slice and trilinear over the volume are the same resize.
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_sources_may_look_through_windows_of_their_own():
    network = finenet(sources=[one(), one(window_hu=[0, 200])]).eval()
    network.sources[1].load_state_dict(network.sources[0].state_dict())
    x = volume()
    first, second = own_logits(network, x)
    assert (first - second).abs().max() > 1e-4
    torch.testing.assert_close(second, own_logits(network, (2 * x).clamp(-1, 1))[0])


def test_neighbors_as_channels_are_seen_without_any_adaptation():
    x = volume(5)
    changed = x.clone()
    changed[:, :, 3] *= -1
    for kind, reached in (("replicate", [3]), ("neighbors", [2, 3, 4]), ("windows", [3])):
        network = finenet(sources=[one(input=kind)], operator="none").eval()
        moved = (own_logits(network, changed)[0] - own_logits(network, x)[0]).abs().amax(dim=(0, 1, 3, 4))
        assert (moved > 1e-5).nonzero().flatten().tolist() == reached


@pytest.mark.parametrize("fusion", ["concat", "gate", "mean"])
def test_encoders_whose_finest_scales_differ_are_fused(fusion):
    sources = [one(), {"backbone": "test_convnext", "weights": None}]
    network = finenet(sources=sources, fusion=fusion, out_indices=[0, 1, 2], widths=[6, 6, 8])
    assert network.sources[0].encoder.reductions[0] != network.sources[1].encoder.reductions[0]
    assert network(volume()).shape == (1, 3, 3, 32, 32)


@pytest.mark.parametrize("fusion", ["concat", "gate", "mean"])
def test_one_source_is_enough(fusion):
    assert finenet(sources=1, fusion=fusion)(volume()).shape == (1, 3, 3, 32, 32)


def test_a_backbone_of_one_size_names_it():
    network = finenet(sources=1)
    network.in_plane_multiple, network.fixed_size = 224, True
    with pytest.raises(KitsError, match="in-plane size 448 x 224: a backbone takes 224 x 224 only, the nearest valid size"):
        network(torch.zeros(1, 1, 1, 448, 224))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([(16, None), (32, None)], (32, False)), ([(224, 224), (32, None)], (224, True)), ([(224, 224), (224, 224)], (224, True))],
)
def test_the_size_that_suits_all_backbones(sizes, expected):
    assert common_size([SimpleNamespace(multiple=multiple, fixed_size=fixed) for multiple, fixed in sizes]) == expected


@pytest.mark.parametrize(
    ("sizes", "words"),
    [([(224, 224), (384, 384)], "224 x 224 only, 384 x 384 only"), ([(224, 224), (64, None)], "224 x 224 only, multiples of 64")],
)
def test_backbones_without_a_common_size_are_refused(sizes, words):
    with pytest.raises(KitsError, match=rf"^model\.sources: no image size suits all backbones \({words}\)"):
        common_size([SimpleNamespace(multiple=multiple, fixed_size=fixed) for multiple, fixed in sizes])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (one(plane="oblique"), r"model\.sources\[0\]\.plane=oblique: give one of axial, coronal, sagittal"),
        (one(window_hu=[-500, 0]), r"model window \[-500,0\] HU: is not inside data\.window_hu"),
        (one(colour="red"), r"model\.sources\[0\]\.colour: no such key; there are backbone, input"),
        (one(out_indices=[0, 1]), r"model\.widths=\[6,6,8,8\]: 4 widths for 2 scales"),
    ],
)
def test_a_wrong_source_is_named(source, message):
    with pytest.raises(KitsError, match=message):
        finenet(sources=[source])


def learning(network):
    """The parts that get a gradient from one step's loss."""
    network.zero_grad()
    fused, sources = network.training_logits(volume())
    parallel_loss(build_loss(parse(Loss, LOSS, "loss")), fused, sources, LABEL, 0.5)["total"].backward()
    return {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize(("phase", "parts"), [("sources", {"sources"}), ("fusion", {"fusion"}), ("all", {"sources", "fusion"})])
def test_each_phase_trains_its_parts(phase, parts):
    network = finenet(freeze_statistics=False).train()
    network.set_phase(phase)
    before = [buffer.clone() for name, buffer in network.named_buffers() if "running_mean" in name]
    assert learning(network) == parts
    after = [buffer for name, buffer in network.named_buffers() if "running_mean" in name]
    still = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert still is (phase == "fusion")


def test_after_a_phase_everything_learns_again():
    network = finenet(freeze_stages=1)
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    for phase in ("sources", "fusion", "all"):
        network.set_phase(phase)
    assert learning(network) == {"sources", "fusion"}
    assert frozen == [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert frozen


def test_a_source_that_learns_alone_learns_as_if_it_were_the_only_one():
    both, single = finenet(), finenet(sources=1)
    single.sources[0].load_state_dict(both.sources[0].state_dict())
    for network in (both, single):
        network.set_phase("sources")
        learning(network)
    for a, b in zip(both.sources[0].parameters(), single.sources[0].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_even_the_mean_has_a_phase_of_its_own_for_its_edges():
    network = finenet(fusion="mean")
    network.set_phase("fusion")
    assert learning(network) == {"fusion"}


def test_phases_follow_the_shares_of_the_epochs():
    assert [phase_at(epoch, 10, [0.4, 0.2]) for epoch in range(10)] == ["sources"] * 4 + ["fusion"] * 2 + ["all"] * 4
    assert phase_at(0, 1, [0, 0]) == "all"


def test_coarser_heads_learn_from_coarser_labels():
    network = finenet(sources=1, deep_supervision=2)
    _, (pyramid,) = network.training_logits(volume())
    assert [tuple(logits.shape[2:]) for logits in pyramid] == [(3, 32, 32), (3, 8, 8), (3, 4, 4)]
    assert learning(network) == {"sources", "fusion"}
    assert all(head.weight.grad.abs().max() > 0 for head in network.sources[0].coarser_heads)
    with pytest.raises(KitsError, match=r"model\.deep_supervision=4: give 0 to 3, there are 4 levels"):
        finenet(deep_supervision=4)


def test_coarser_levels_of_the_coarse_network_learn_too():
    network = unet(deep_supervision=2)
    pyramid = network.training_logits(volume(5, 64))
    assert [tuple(logits.shape) for logits in pyramid] == [(1, 1, 5, 64, 64), (1, 1, 5, 16, 16), (1, 1, 5, 8, 8)]
    torch.testing.assert_close(pyramid[0], network(volume(5, 64)))
    label = torch.randint(0, 2, (1, 5, 64, 64))
    deep_supervision(build_loss(parse(Loss, LOSS, "loss")), pyramid, label)["total"].backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_without_factors_all_parameters_share_one_rate_in_their_order():
    network = finenet()
    (group,) = parameter_groups(network, 0.1, encoder_factor=1, encoder_decay=1)
    assert group["lr"] == 0.1
    assert [id(p) for p in group["params"]] == [id(p) for p in network.parameters()]


def test_encoders_learn_at_rates_that_fall_toward_their_input():
    network = finenet(freeze_stages=1)
    groups = parameter_groups(network, 1.0, encoder_factor=0.1, encoder_decay=0.5)
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for source in network.sources:
        stage = source.encoder.stages()
        for name, parameter in source.encoder.features.named_parameters():
            expected = None if stage[name] == 0 else pytest.approx(0.1 * 0.5 ** (3 - stage[name]))
            assert rate.get(id(parameter)) == expected
        assert {rate[id(parameter)] for parameter in source.decoder.parameters()} == {1.0}
    assert len(rate) == sum(parameter.requires_grad for parameter in network.parameters())
    assert torch.optim.Adam(groups, lr=1.0).param_groups[0]["lr"] < 1


def test_a_network_without_encoder_has_one_rate():
    assert [g["lr"] for g in parameter_groups(nn.Linear(2, 2), 0.3, encoder_factor=0.1, encoder_decay=0.5)] == [0.3]
