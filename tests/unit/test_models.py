"""The two networks: shapes, sizes they take, how sources are fused, what they can learn."""

import copy
import subprocess
import sys
from copy import deepcopy
from functools import cache

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.loss import Loss
from kits.core.errors import KitsError
from kits.models import NETWORKS, build_network, weights
from kits.models.encoder2d import with_even_padding
from kits.models.folding import fold_backbone, fold_norms
from kits.models.layers import LEAK, PaddedConv3d, channels_last
from kits.models.unet3d import UNet3d
from kits.training.losses import build_loss, parallel_loss

TINY = "test_efficientnet"
LOSS = {
    "name": "dice_ce",
    "bias": 1.0,
    "dice_weight": 1.0,
    "ce_weight": 1.0,
    "smooth": 1.0,
    "per_sample": False,
    "class_weights": None,
    "over": "classes",
}


@cache
def composed(stage):
    return compose("train", [f"stage={stage}"])["model"]


def configured(name, **changes):
    """The model as its file in conf/model and the stage's interpolations make it."""
    return {**deepcopy(composed({"unet3d": "coarse", "finenet": "fine"}[name])), **changes}


def unet(**changes):
    torch.manual_seed(0)
    return build_network(configured("unet3d", **{"widths": [4, 4, 8, 8], **changes}), pretrained=False)


def finenet(sources=2, **changes):
    torch.manual_seed(0)
    small = {"widths": [6, 6, 8, 8], "width": 8, "stem_width": 4}
    names = [{"backbone": TINY, "weights": None}] * sources if isinstance(sources, int) else sources
    return build_network(configured("finenet", sources=names, **{**small, **changes}), pretrained=True)


def volume(depth=3, size=32, batch=1):
    return torch.rand(batch, 1, depth, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("depth", [1, 3, 4, 7])
def test_unet_takes_any_number_of_slices(depth):
    assert unet()(volume(depth, batch=2)).shape == (2, 1, depth, 32, 32)


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_finenet_takes_any_number_of_slices(depth):
    fused, sources = finenet().all_logits(volume(depth, batch=2))
    assert fused.shape == (2, 3, depth, 32, 32)
    assert [tuple(logits.shape) for logits in sources] == [(2, 3, depth, 32, 32)] * 2


def test_unet_padding_repeats_the_last_slice():
    network = unet().eval()
    x = volume(3)
    repeated = torch.cat([x, x[:, :, -1:]], dim=2)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(repeated)[:, :, :3])


@pytest.mark.parametrize(("build", "multiple", "larger"), [(unet, 16, 48), (finenet, 16, 48)])
def test_a_size_that_does_not_fit_is_answered_with_the_nearest_that_does(build, multiple, larger):
    network = build()
    assert network.in_plane_multiple == multiple
    valid = f"is not a multiple of {multiple}; the nearest valid size is 32 x 32, the next larger {larger} x 32"
    with pytest.raises(KitsError, match=f"in-plane size 33 x 32 {valid}"):
        network(torch.zeros(1, 1, 2, 33, 32))


def test_unet_predicts_each_voxel_of_a_stride_cell_by_itself():
    logits = unet()(volume(4))
    assert (logits[..., 0::2] - logits[..., 1::2]).abs().min() > 0
    assert (logits[..., 0::2, :] - logits[..., 1::2, :]).abs().min() > 0


def test_unet_starts_in_plane():
    """Thick slices are mixed only in the levels below."""
    levels = [(down[0][0].kernel_size, down[1][0].kernel_size) for down in unet().down]
    assert levels == [((1, 3, 3),) * 2] * 2 + [((3, 3, 3),) * 2] * 2
    assert [merge[0].kernel_size for merge in unet().merge] == [(1, 3, 3), (1, 3, 3), (3, 3, 3)]


@pytest.mark.parametrize("fusion", ["concat", "gate", "mean"])
def test_every_parameter_gets_a_gradient(fusion):
    """Distributed training refuses parameters that the loss does not reach."""
    network = finenet(fusion=fusion, gate=True)
    with torch.no_grad():
        for source in network.sources:
            for adaptation in source.adaptations:
                adaptation.last.weight.normal_()
    fused, sources = network.training_logits(volume())
    label = torch.ones(1, 3, 32, 32, dtype=torch.long)
    parallel_loss(build_loss(parse(Loss, LOSS, "loss")), fused, sources, label, 0.5)["total"].backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_mean_fusion_is_the_mean_of_the_probabilities():
    fused, sources = finenet(fusion="mean").all_logits(volume())
    mean = torch.stack([logits.softmax(1) for logits in sources]).mean(0)
    torch.testing.assert_close(fused.softmax(1), mean)
    torch.testing.assert_close(fused.exp(), mean)


def test_gate_fusion_stays_between_the_sources():
    fused, (first, second) = finenet(fusion="gate").all_logits(volume())
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    assert (fused >= low - 1e-5).all()
    assert (fused <= high + 1e-5).all()
    assert (fused - (first + second) / 2).abs().max() > 1e-4


@pytest.mark.parametrize("fusion", ["concat", "gate", "mean"])
def test_every_fusion_sees_each_voxel_of_the_volume_at_full_resolution(fusion):
    """What the encoders say being equal, one voxel moves the logits around it, and those alone."""
    network, x = finenet(fusion=fusion), volume()
    with torch.no_grad():
        network.fusion.head.weight.normal_()
        features, pyramids = zip(*(source(x) for source in network.sources), strict=True)
        logits = [pyramid[0] for pyramid in pyramids]
        other = x.clone()
        other[..., 1, 9, 9] += 1
        moved = (network.fusion(other, features, logits) - network.fusion(x, features, logits)).abs().amax(dim=(0, 1))
    assert moved[1, 9, 9] > 1e-4
    moved[:, 7:12, 7:12] = 0  # 3 x 3 of the stem, then 3 x 3 x 3
    assert moved.max() < 1e-5


def test_concat_fusion_is_the_textbook_one():
    """1 x 1 x 1 before the upsampling equals the paper's order: concatenated at full resolution, then 1 x 1 x 1."""
    network = finenet().eval()
    fusion = network.fusion
    x = volume()
    with torch.no_grad():
        features = [source(x)[0] for source in network.sources]
        full = functional.interpolate(torch.cat(features, 1), size=(32, 32), mode="bilinear", align_corners=False)
        context = functional.conv2d(full, fusion.reduce.weight, fusion.reduce.bias)
        stem = functional.leaky_relu(
            functional.conv2d(x[0].transpose(0, 1), fusion.stem[0].weight, fusion.stem[0].bias, padding=1), LEAK
        )
        mixed = torch.cat([context, stem], 1).transpose(0, 1)[None]
        expected = fusion.head(fusion.mix(mixed))
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


def test_the_stem_sees_what_the_encoders_lose():
    """A pattern of single pixels has gone from the sources' logits, which are interpolated, but not from the fused ones."""
    torch.manual_seed(0)
    network = finenet().eval()
    board = (torch.arange(32).view(-1, 1) + torch.arange(32)).remainder(2).float() * 2 - 1
    with torch.no_grad():
        fused, sources = network.all_logits(board.expand(1, 1, 3, 32, 32).contiguous())

    def roughness(logits):
        inner = logits[..., 8:24, 8:24]
        return (inner[..., 1:] - inner[..., :-1]).diff(dim=-1).abs().mean() / inner.std()

    assert roughness(fused) > 5 * max(roughness(logits) for logits in sources)


@pytest.mark.parametrize("build", [unet, finenet])
def test_bfloat16_autocast_agrees_with_float32(build):
    network = build().eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = network(volume()).float()
    with torch.no_grad():
        high = network(volume())
    assert (low - high).abs().max() < 0.1 * high.abs().max()


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 1, 1), (1, 3, 3)])
def test_the_gradient_of_few_slices_in_bfloat16_is_that_in_float32(kernel, depth):
    torch.manual_seed(0)
    convolution = PaddedConv3d(16, 16, kernel, padding=tuple(size // 2 for size in kernel))
    channels_last(convolution)
    slices = torch.randn(1, 16, depth, 16, 16).contiguous(memory_format=torch.channels_last_3d)
    ahead = torch.randn(slices.shape)

    def gradient(dtype):
        convolution.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            found = convolution(slices)
        found.backward(ahead.to(dtype))
        return convolution.weight.grad.clone()

    exact = gradient(torch.float32)
    for _ in range(8):
        [torch.full((2**size,), torch.nan) for size in range(8, 21)]  # what is read without being written shows
        assert (gradient(torch.bfloat16) - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "own"])
def test_the_configured_network_is_built_as_its_file_says(name):
    model = configured(name)
    if name == "finenet":
        for source in model["sources"]:
            source["weights"] = None
    network = build_network(model, pretrained=True)
    assert isinstance(network, NETWORKS[name])
    assert build_network(model, pretrained=False).state_dict().keys() == network.state_dict().keys()


def test_a_checkpoint_needs_neither_weight_packages_nor_the_hub(monkeypatch):
    def refuse(*args):
        raise AssertionError("weights were looked for")

    monkeypatch.setattr(weights, "package_state", refuse)
    monkeypatch.setattr(weights, "_create_from_hub", refuse)
    model = configured("finenet")
    model["sources"][1]["weights"] = "hub"
    network = build_network(model, pretrained=False)
    assert len(network.sources) == 3
    with pytest.raises(AssertionError, match="weights were looked for"):
        build_network(model, pretrained=True)


REACHES = [
    ({"operator": "none"}, 1),
    *(({"operator": operator}, 2) for operator in ("p3d", "conv3d", "zconv", "tsm", "acs")),
    ({"gate": True}, 3),
    ({"input": "neighbors"}, 3),
    ({"fusion": "gate"}, 2),
    ({"fusion": "mean", "operator": "none", "input": "neighbors"}, 2),
]


def restless(network):
    """The network with no weight at zero, where some begin, and statistics of no particular kind."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not name.endswith((".mean", ".std")):
            noise = torch.randn(tensor.shape, generator=generator) * 0.1
            tensor.add_(noise.abs() if name.endswith("running_var") else noise)
    return network.eval()


@pytest.mark.parametrize(("options", "reach"), REACHES)
def test_a_slice_changes_logits_as_far_as_the_reach_and_no_farther(options, reach):
    network = restless(finenet(sources=1, **options)).double()
    assert network.reach == reach
    x = volume(depth=11).double()
    other = x.clone()
    other[:, :, 5] *= -1
    with torch.no_grad():
        changed = (network(other) - network(x)).abs().amax(dim=(0, 1, 3, 4)) > 1e-12
    assert changed.nonzero().flatten().tolist() == list(range(5 - reach, 5 + reach + 1))


@pytest.mark.parametrize("options", [{"norm": "group"}, {"plane": "coronal"}])
def test_a_network_that_sees_all_slices_has_no_reach(options):
    assert finenet(**options).reach is None


@pytest.mark.parametrize("fusion", ["concat", "gate", "mean"])
def test_the_fused_logits_alone_are_those_among_all(fusion):
    network = restless(finenet(fusion=fusion))
    with torch.no_grad():
        torch.testing.assert_close(network(volume()), network.all_logits(volume())[0])


@pytest.mark.parametrize("backbone", ["test_efficientnet", "tf_efficientnet_lite0", "test_resnet", "resnetv2_18", "densenet121"])
def test_folded_norms_leave_the_features_as_they_are(backbone):
    torch.manual_seed(0)
    features = restless(with_even_padding(timm.create_model(backbone, features_only=True, out_indices=(0, 1, 2))))
    before, image = copy.deepcopy(features), torch.rand(2, 3, 64, 96)
    after = fold_backbone(features, 64)
    assert count_of(after, nn.BatchNorm2d) < count_of(before, nn.BatchNorm2d)
    if "efficientnet" in backbone:
        assert count_of(after, nn.BatchNorm2d) == 0
    with torch.no_grad():
        for found, expected in zip(after(image), before(image), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


def count_of(network, kind):
    return sum(isinstance(module, kind) for module in network.modules())


class Twice(nn.Module):
    """What the convolution says is used beside the norm's: folding would change it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, image):
        convolved = self.conv(image)
        return [self.norm(convolved) + convolved]


def test_a_backbone_that_folding_would_change_stays_as_it_is():
    features = restless(Twice())
    assert fold_backbone(features, 64) is features


def test_a_network_is_folded_in_all_its_encoders():
    network = restless(finenet())
    with torch.no_grad():
        before = network(volume())
        after = fold_norms(network)(volume())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert count_of(network, nn.BatchNorm2d) == 0


def test_a_rebuilt_network_predicts_the_same():
    network = finenet().eval()
    torch.manual_seed(5)
    copy = build_network(
        configured(
            "finenet", sources=[{"backbone": TINY, "weights": "imagenet"}] * 2, widths=[6, 6, 8, 8], width=8, stem_width=4
        ),
        pretrained=False,
    ).eval()
    copy.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(copy(volume()), network(volume()))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"name": "torch.nn.Linear"},
            r"model\.name=torch.nn.Linear: is chosen as a whole; give model=\.\.\. with one of",
        ),
        ({"_target_": "os.system"}, r"model\.name=null"),
        (configured("unet3d", levels=3), r"model\.levels: no such key; did you mean"),
        (configured("finenet", pretrained=True), r"model\.pretrained: no such key"),
        (
            {"name": "unet3d", "classes": 1},
            r"model\.width: no value given; give a whole number of 1 or more, or null",
        ),
        (
            configured("unet3d", widths=[4], strides=[[1, 2, 2]] * 2, kernels=[[3, 3, 3]]),
            r"model\.strides: 2 entries for 1 levels",
        ),
        (configured("finenet", sources=[]), r"model\.sources=\[\]: give at least one"),
        (
            configured("finenet", sources=[{"backbone": TINY}]),
            r"model\.sources\[0\]\.weights: no value given",
        ),
        (configured("finenet", widths=[8, 8]), r"model\.widths=\[8,8\]: 2 widths for 4 scales"),
        (configured("finenet", fusion="vote"), r"model\.fusion=vote: give one of concat, gate, mean"),
        (configured("unet3d", norm="batch"), r"model\.norm=batch: give one of none, group"),
    ],
)
def test_a_wrong_configuration_is_named(model, message):
    with pytest.raises(KitsError, match=message):
        build_network(model, pretrained=False)


def test_strides_that_differ_along_the_sides_have_a_common_multiple():
    network = unet(widths=[4, 4], strides=[[1, 2, 3], [1, 2, 1]], kernels=[[1, 3, 3]] * 2)
    assert network.in_plane_multiple == 12
    assert network(volume(size=24)).shape == (1, 1, 3, 24, 24)
    with pytest.raises(KitsError, match="16 x 16 is not a multiple of 12"):
        network(volume(size=16))


def test_a_single_level_unet_is_allowed():
    assert unet(widths=[4], strides=[[1, 2, 2]], kernels=[[1, 3, 3]])(volume()).shape == (1, 1, 3, 32, 32)
    assert isinstance(unet(), UNet3d)


def blobs():
    """A bright ball with a darker one at its side, on noise: (image (1, 1, 8, 48, 48), label (1, 8, 48, 48))."""
    z, y, x = torch.meshgrid(torch.arange(8.0), torch.arange(48.0), torch.arange(48.0), indexing="ij")
    kidney = ((z - 4) / 3) ** 2 + ((y - 22) / 12) ** 2 + ((x - 20) / 9) ** 2 < 1
    tumor = ((z - 4) / 2) ** 2 + ((y - 30) / 6) ** 2 + ((x - 28) / 6) ** 2 < 1
    label = torch.zeros(8, 48, 48, dtype=torch.long)
    label[kidney], label[tumor] = 1, 2
    image = torch.tensor([-0.6, 0.6, 0.1])[label] + 0.15 * torch.randn(8, 48, 48, generator=torch.Generator().manual_seed(1))
    return image[None, None], label[None]


def overlap(found, truth):
    return (2 * (found & truth).sum() / (found.sum() + truth.sum())).item()


def fit(network, logits_of, steps):
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    image, label = blobs()
    for _ in range(steps):
        optimizer.zero_grad()
        fused, sources = logits_of(image)
        parallel_loss(build_loss(parse(Loss, LOSS, "loss")), fused, sources, label, 0.5)["total"].backward()
        optimizer.step()
    with torch.no_grad():
        return network.eval()(image), label


def test_unet_learns_a_blob_by_heart():
    network = unet(widths=[8, 8, 16, 16], norm="none")
    logits, label = fit(network, lambda image: (network(image), []), 60)
    assert overlap(logits[:, 0] > 0, label > 0) > 0.95


def test_finenet_learns_kidney_and_tumor_by_heart():
    network = finenet(sources=1)
    logits, label = fit(network, network.training_logits, 50)
    found = logits.argmax(1)
    assert overlap(found > 0, label > 0) > 0.95
    assert overlap(found == 2, label == 2) > 0.85


def test_timm_does_not_bring_wandb_which_can_be_imported_all_the_same() -> None:
    code = "import sys, kits.models; print('wandb' in sys.modules); import wandb; print(wandb.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False", "wandb"], done.stderr
