"""The losses against closed forms, finite differences and MONAI."""

import math

import pytest
import torch
from monai.losses import TverskyLoss
from torch.nn import functional

from kits.config import choices_of
from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.loss import Loss
from kits.core.errors import KitsError
from kits.training import losses
from kits.training.losses import LOSSES, deep_supervision, nearest_labels, parallel_loss

COMMON = {"smooth": 1e-5, "per_sample": False, "class_weights": None, "over": "classes"}
ALL = {
    "bias_dice": {"bias": 3.0, **COMMON},
    "dice": COMMON,
    "dice_ce": {"bias": 3.0, "dice_weight": 0.5, "ce_weight": 2.0, **COMMON},
    "tversky": {"alpha": 0.3, "beta": 0.7, **COMMON},
    "focal_tversky": {"alpha": 0.3, "beta": 0.7, "gamma": 4 / 3, **COMMON},
}


def build_loss(options):
    return losses.build_loss(parse(Loss, options, "loss"))


def bias_dice(bias, **options):
    return build_loss({"name": "bias_dice", "bias": bias, **COMMON, **options})


def example(classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 3, 4, 5, generator=generator)
    label = torch.randint(0, max(2, classes), (2, 3, 4, 5), generator=generator)
    return logits, label


def sure(mask):
    """Logits of one foreground channel that are certain of `mask`."""
    return torch.where(torch.as_tensor(mask), 50.0, -50.0).view(1, 1, 1, 1, -1)


def row(values):
    return torch.tensor(values).view(1, 1, 1, -1)


@pytest.mark.parametrize("bias", [1.0, 3.0])
def test_bias_dice_of_a_hand_made_mask_is_its_closed_form(bias):
    # TP 2, FP 1, FN 3
    logits = sure([True, True, True, False, False, False, False])
    label = row([1, 1, 0, 2, 1, 1, 0])
    expected = 1 - 4 / (4 + 1 + bias * 3)
    assert bias_dice(bias, smooth=0.0)(logits, label).item() == pytest.approx(expected, abs=1e-6)


def test_smooth_enters_numerator_and_denominator_as_written():
    logits, label = sure([True, True, False]), row([1, 0, 1])  # TP 1, FP 1, FN 1
    assert bias_dice(3.0, smooth=2.0)(logits, label).item() == pytest.approx(1 - (2 + 2) / (2 + 1 + 3 + 2), abs=1e-6)


def test_a_missed_voxel_costs_more_than_a_false_one_only_with_bias():
    missed = sure([True, True, True, False]), row([1, 1, 1, 1])
    false = sure([True, True, True, True]), row([1, 1, 1, 0])
    assert bias_dice(3.0)(*missed) > bias_dice(3.0)(*false) + 0.1
    plain = bias_dice(1.0)
    assert plain(*missed).item() == pytest.approx(plain(*false).item(), abs=1e-5)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("bias", [1.0, 3.0])
def test_bias_dice_equals_monai_tversky_of_several_classes(bias, per_sample):
    logits, label = example(3)
    oracle = TverskyLoss(
        include_background=False,
        to_onehot_y=True,
        softmax=True,
        alpha=0.5,
        beta=bias / 2,
        smooth_nr=0.5e-5,
        smooth_dr=0.5e-5,
        batch=not per_sample,
    )
    ours = bias_dice(bias, per_sample=per_sample)(logits, label)
    torch.testing.assert_close(ours, oracle(logits, label.unsqueeze(1)))


def test_one_channel_is_a_sigmoid_of_kidney_and_tumor_together():
    logits, _ = example(1)
    label = example(3)[1]
    oracle = TverskyLoss(sigmoid=True, alpha=0.5, beta=1.5, smooth_nr=0.5e-5, smooth_dr=0.5e-5, batch=True)
    torch.testing.assert_close(bias_dice(3.0)(logits, label), oracle(logits, (label > 0).unsqueeze(1).float()))


def test_a_loss_of_ones_own_gets_the_foreground_as_one_where_there_is_one_channel():
    logits, label = example(1)[0], example(3)[1]
    own = build_loss({"_target_": "monai.losses.TverskyLoss", "channel": True, "sigmoid": True, "alpha": 0.3, "beta": 0.7})
    expected = TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7)(logits, (label > 0).unsqueeze(1).float())
    assert label.max() == 2
    torch.testing.assert_close(own(logits, label), expected)


def test_foreground_is_kidney_and_tumor_as_one():
    # Kidney called tumor is no error of the foreground: TP 2, FP 1, FN 1.
    label = row([1, 2, 0, 1])
    logits = 50.0 * functional.one_hot(row([2, 2, 1, 0]), 3).movedim(-1, 1).float()
    loss = bias_dice(3.0, smooth=0.0, over="foreground")(logits, label)
    assert loss.item() == pytest.approx(1 - 4 / (4 + 1 + 3 * 1), abs=1e-6)


def test_the_foreground_of_several_classes_equals_monai_on_the_merged_ones():
    logits, label = example(3)
    oracle = TverskyLoss(alpha=0.5, beta=1.5, smooth_nr=0.5e-5, smooth_dr=0.5e-5, batch=True)
    foreground = logits.softmax(1)[:, 1:].sum(1, keepdim=True)
    expected = oracle(foreground, (label > 0).unsqueeze(1).float())
    torch.testing.assert_close(bias_dice(3.0, over="foreground")(logits, label), expected)


def test_both_is_the_mean_over_the_classes_and_the_foreground():
    logits, label = example(3)
    classes, foreground, both = (bias_dice(3.0, over=over)(logits, label) for over in ("classes", "foreground", "both"))
    torch.testing.assert_close(both, (2 * classes + foreground) / 3)
    alone = bias_dice(3.0, over="both", class_weights=[0.0, 0.0, 1.0])(logits, label)
    torch.testing.assert_close(alone, foreground)


def test_dice_is_bias_dice_without_bias():
    logits, label = example(3)
    torch.testing.assert_close(build_loss({"name": "dice", **COMMON})(logits, label), bias_dice(1.0)(logits, label))


def test_focal_tversky_is_a_power_of_tversky():
    logits, label = example(3)
    # One class, where the mean over classes and the power commute.
    logits, label = logits[:, :1], label
    tversky = build_loss({"name": "tversky", **ALL["tversky"]})(logits, label)
    focal = build_loss({"name": "focal_tversky", **ALL["focal_tversky"]})(logits, label)
    torch.testing.assert_close(focal, tversky**0.75)


def test_dice_ce_is_the_weighted_sum_of_its_parts():
    logits, label = example(3)
    expected = 0.5 * bias_dice(3.0)(logits, label) + 2.0 * functional.cross_entropy(logits, label)
    torch.testing.assert_close(build_loss({"name": "dice_ce", **ALL["dice_ce"]})(logits, label), expected)


def test_class_weights_choose_between_kidney_and_tumor():
    logits, label = example(3)
    kidney = bias_dice(3.0, class_weights=[1.0, 0.0])(logits, label)
    tumor = bias_dice(3.0, class_weights=[0.0, 5.0])(logits, label)
    both = bias_dice(3.0, class_weights=[1.0, 3.0])(logits, label)
    assert abs(kidney - tumor) > 1e-3
    torch.testing.assert_close(both, (kidney + 3 * tumor) / 4)


@pytest.mark.parametrize(("classes", "over"), [(1, "classes"), (3, "classes"), (4, "classes"), (3, "foreground"), (3, "both")])
@pytest.mark.parametrize("name", LOSSES)
def test_gradient_equals_finite_differences(name, classes, over):
    logits, label = example(classes)
    logits = logits[:, :, :1, :2, :3].double().requires_grad_()
    label = label[:, :1, :2, :3]
    torch.autograd.gradcheck(lambda x: build_loss({"name": name, **ALL[name], "over": over})(x, label), (logits,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [0, 1, 2])
@pytest.mark.parametrize("classes", [1, 3, 4])
@pytest.mark.parametrize("over", ["classes", "both"])
@pytest.mark.parametrize("name", LOSSES)
def test_empty_and_full_masks_stay_finite_at_half_precision(name, over, classes, value, dtype):
    logits = (100 * example(classes)[0]).to(dtype).requires_grad_()
    loss = build_loss({"name": name, **ALL[name], "over": over})(logits, torch.full((2, 3, 4, 5), value))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("found", [0, 1, 2])
@pytest.mark.parametrize("value", [0, 1, 2])
@pytest.mark.parametrize("name", LOSSES)
def test_certainty_of_a_whole_mask_stays_finite_at_half_precision(name, value, found, dtype):
    """The network calls everything one class, about as surely as float16 can say; the mask is all of one class, too."""
    logits = torch.full((2, 3, 3, 4, 5), -6e4, dtype=dtype)
    logits[:, found] = 6e4
    logits.requires_grad_()
    loss = build_loss({"name": name, **ALL[name]})(logits, torch.full((2, 3, 4, 5), value))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert found != value or loss < 0.6  # of a class that is nowhere and found nowhere the loss is 0


def test_counts_are_float32_under_autocast():
    # 100 000 voxels: bfloat16 would round the counts to steps of 512.
    label = torch.zeros(1, 1, 250, 400, dtype=torch.long)
    label[..., :201] = 1
    logits = torch.where(label.bool(), 50.0, -50.0).unsqueeze(1).to(torch.bfloat16)
    logits[0, 0, 0, 0, 201:301] = 50.0
    true_positive, false_positive = 250 * 201, 100
    with torch.autocast("cpu", torch.bfloat16):
        loss = bias_dice(3.0, smooth=0.0)(logits, label)
    assert loss.item() == pytest.approx(false_positive / (2 * true_positive + false_positive), rel=1e-3)


@pytest.mark.parametrize(("bias", "cut"), [(1.0, 0.45), (3.0, 0.237)])
def test_bias_lowers_the_best_threshold_as_the_theory_says(bias, cut):
    """At an attained score of 0.9 the best cut is a T / (1 - T (1 - a - c)): 0.45 for Dice, 0.237 for b = 3."""
    # 400 voxels of each calibrated probability, 1, 3, ... 399 of them foreground; certain foreground is added until the best
    # score is 0.9.
    positive = torch.arange(1, 400, 2, dtype=torch.float64)
    negative = 400 - positive
    probability = positive / 400

    def scores(certain):
        true_positive = certain + positive.flip(0).cumsum(0).flip(0)
        false_positive = negative.flip(0).cumsum(0).flip(0)
        false_negative = positive.sum() + certain - true_positive
        return 2 * true_positive / (2 * true_positive + false_positive + bias * false_negative)

    low, high = 0.0, 4e6
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if scores(middle).max() < 0.9 else (low, middle)
    certain = round(high)
    alpha, beta = 0.5, bias / 2
    assert cut == pytest.approx(alpha * 0.9 / (1 - 0.9 * (1 - alpha - beta)), abs=1e-3)
    assert probability[scores(certain).argmax()].item() == pytest.approx(cut, abs=0.006)

    # By brute force, of the loss itself: every cut of the same voxels.
    label = torch.cat([torch.arange(400) < count for count in positive] + [torch.ones(certain, dtype=torch.bool)])
    level = torch.cat([probability.repeat_interleave(400), torch.ones(certain)]).float()
    losses = [bias_dice(bias)(sure(level >= cut), label.view(1, 1, 1, -1)).item() for cut in probability.float()]
    assert min(losses) == pytest.approx(1 - 0.9, abs=1e-3)
    assert probability[min(range(200), key=losses.__getitem__)].item() == pytest.approx(cut, abs=0.006)


def test_training_of_one_logit_follows_the_bias():
    """The loss itself, not its formula: a voxel of probability 0.35 is worth predicting with b = 3 and not with plain Dice."""

    def gradient(bias):
        # 1000 voxels as uncertain as this: 35 of each 100 are foreground; the rest of the structure is certain.
        label = torch.cat([torch.ones(3000), torch.ones(350), torch.zeros(650)]).long().view(1, 1, 1, -1)
        certain = torch.full((3000,), 50.0)
        shared = torch.zeros((), requires_grad=True)
        bias_dice(bias)(torch.cat([certain, shared.expand(1000)]).view(1, 1, 1, 1, -1), label).backward()
        return shared.grad

    assert gradient(1.0) > 0
    assert gradient(3.0) < 0


def test_labels_of_a_coarser_grid_are_those_of_the_nearest_voxel():
    label = torch.randint(0, 3, (2, 3, 12, 10))
    for size in ((3, 6, 5), (3, 3, 4), (2, 5, 3)):
        expected = functional.interpolate(label[:, None].double(), size=size, mode="nearest-exact")[:, 0].long()
        assert torch.equal(nearest_labels(label, size), expected)
    assert nearest_labels(label, (3, 12, 10)) is label


def test_coarser_labels_are_never_a_mixture():
    """Between background and tumor linear interpolation would invent kidney."""
    label = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    label[..., 5:] = 2
    coarse = nearest_labels(label, (1, 4, 4))
    assert coarse.dtype == torch.uint8
    assert coarse.unique().tolist() == [0, 2]


def test_deep_supervision_weights_each_resolution_half_of_the_finer_one():
    loss = bias_dice(3.0)
    label = example(3)[1]
    fine = example(3)[0]
    coarse = torch.randn(2, 3, 3, 2, 2)
    expected = (loss(fine, label) + 0.5 * loss(coarse, nearest_labels(label, (3, 2, 2)))) / 1.5
    torch.testing.assert_close(deep_supervision(loss, [fine, coarse], label)["total"], expected)
    torch.testing.assert_close(deep_supervision(loss, [fine], label)["total"], loss(fine, label))


def test_parallel_loss_adds_the_weighted_losses_of_the_sources():
    loss = bias_dice(3.0)
    fused, label = example(3)
    sources = [[example(3, seed)[0]] for seed in (1, 2)]
    own = loss(sources[0][0], label) + loss(sources[1][0], label)
    torch.testing.assert_close(parallel_loss(loss, fused, sources, label, 0.5)["total"], loss(fused, label) + 0.5 * own)
    torch.testing.assert_close(parallel_loss(loss, fused, sources, label, 0.0)["total"], loss(fused, label))
    torch.testing.assert_close(parallel_loss(loss, fused, [], label, 0.5)["total"], loss(fused, label))
    torch.testing.assert_close(parallel_loss(loss, None, sources, label, 0.5)["total"], own)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_selected_by_its_name(name):
    assert choices_of("loss") == sorted([*LOSSES, "own"])
    options = compose("train", ["stage=fine", f"loss={name}"])["loss"]
    assert options["name"] == name
    assert build_loss(options)(*example(3)).isfinite()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"name": "os.system"}, r"loss\.name=os\.system: is chosen as a whole; give loss=\.\.\. with one of bias_dice"),
        ({}, r"loss\.name=null: is chosen"),
        (
            {"name": "dice", **COMMON, "bias": 3},
            r"loss\.bias: no such key; there are class_weights, name, over",
        ),
        ({"name": "bias_dice", **COMMON}, r"loss\.bias: no value given; give a number of at least 1"),
        ({"name": "bias_dice", **COMMON, "bias": 0.5}, r"loss\.bias=0\.5: give a number of at least 1"),
        ({"name": "dice", **COMMON, "over": "tumor"}, r"loss\.over=tumor: give one of classes, fore"),
    ],
)
def test_a_wrong_configuration_is_named(loss, message):
    with pytest.raises(KitsError, match=message):
        build_loss(loss)


def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_nearly_one():
    label = row([0, 1, 2, 1])
    logits = 50.0 * functional.one_hot(label, 3).movedim(-1, 1).float()
    assert bias_dice(3.0)(logits, label).item() == pytest.approx(0, abs=1e-6)
    assert bias_dice(3.0)(-logits, label).item() > 0.7
    assert math.isfinite(bias_dice(3.0)(logits, label))
