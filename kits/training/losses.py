"""Segmentation losses on logits (B, C, D, H, W) and labels (B, D, H, W), by name.

C == 1: the foreground (label > 0) by a sigmoid. C > 1: every class by a softmax; overlap losses leave the background class out
and, by their option `over`, score each class, all of the foreground as one, or both.
Everything is computed in float32, under autocast too: counts of a million voxels do not fit bfloat16's 8 bits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kits.config.own_parts import blame, build
from kits.config.schema.loss import DiceCeOptions, Loss, LossOptions
from kits.config.schema.own import Own
from kits.core.ranks import global_sum


def at_least_float32(logits: Tensor) -> Tensor:
    """Return `logits` in float32, or in float64 if they are."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def probabilities_and_targets(logits: Tensor, label: Tensor, over: str) -> tuple[Tensor, Tensor]:
    """Compute foreground probabilities and one-hot targets, both (B, K, D, H, W).

    K = 1 for C == 1. Else K = C - 1 classes (`over` classes), 1 (foreground: kidney and tumor together, KiTS19's "kidney"), or
    the C - 1 classes and then the foreground (both).
    """
    logits = at_least_float32(logits)
    if logits.shape[1] == 1:
        return logits.sigmoid(), (label > 0).unsqueeze(1).to(logits.dtype)
    probability = logits.softmax(dim=1)
    # From the background: the same as the sum of all other classes, in one pass.
    foreground = 1 - probability[:, :1]
    if over == "foreground":
        return foreground, (label > 0).unsqueeze(1).to(logits.dtype)
    classes = torch.arange(1, logits.shape[1], device=label.device).view(1, -1, 1, 1, 1)
    target = label.unsqueeze(1) == classes
    if over == "classes":
        return probability[:, 1:], target.to(logits.dtype)
    both = torch.cat([target, (label > 0).unsqueeze(1)], dim=1)
    return torch.cat([probability[:, 1:], foreground], dim=1), both.to(logits.dtype)


class SegmentationLoss(nn.Module):
    """A loss of logits (B, C, D, H, W) and labels (B, D, H, W)."""

    def parts(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Compute `total`, and without its weight each term of a loss that is a sum."""
        raise NotImplementedError

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        return self.parts(logits, label)["total"]


class Tversky(SegmentationLoss):
    """The Tversky loss, 1 - (TP + e) / (TP + alpha FP + beta FN + e), averaged over regions.

    Regions are those of `over` (Salehi et al., arXiv 1706.05721, eq. 3). Soft counts are over the whole batch, of all processes
    where several train together, or over each sample with `per_sample`. `class_weights` weights the mean over the regions; None
    means equally. `gamma` is the focal exponent 1 / gamma of Abraham and Khan (arXiv 1810.07842, eq. 4).
    """

    def __init__(self, options: LossOptions, *, alpha: float, beta: float, smooth: float, gamma: float = 1.0) -> None:
        super().__init__()
        self.over, self.per_sample = options.over, options.per_sample
        self.alpha, self.beta, self.smooth, self.gamma = alpha, beta, smooth, gamma
        self.class_weights = options.class_weights

    def parts(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Compute the loss alone."""
        with torch.autocast(logits.device.type, enabled=False):
            probability, target = probabilities_and_targets(logits, label, self.over)
            axes = (2, 3, 4) if self.per_sample else (0, 2, 3, 4)
            counts = torch.stack([(probability * target).sum(axes), probability.sum(axes), target.sum(axes)])
            if not self.per_sample:
                # The mean of the ranks' ratios is not the ratio of their sums: two GPUs with batch 1 would learn another loss
                # than one with batch 2.
                counts = global_sum(counts)
            true_positive, predicted, true = counts
            # Two passes over the volume fewer than the products.
            false_positive, false_negative = predicted - true_positive, true - true_positive
            denominator = true_positive + self.alpha * false_positive + self.beta * false_negative + self.smooth
            loss = 1 - (true_positive + self.smooth) / denominator
            if self.gamma != 1:
                # At 0 the power's slope is infinite, and infinity times the 0 that the chain rule meets it with is no number.
                loss = loss.clamp_min(1e-6) ** (1 / self.gamma)
            if self.class_weights is None:
                return {"total": loss.mean()}
            weights = loss.new_tensor(self.class_weights)
            return {"total": ((loss * weights).sum(-1) / weights.sum()).mean()}


def bias_dice(options: LossOptions, bias: float) -> Tversky:
    """Build the paper's bias-dice as we read it: 1 - (2 TP + e) / (2 TP + FP + b FN + e).

    b >= 1; b = 1 is soft Dice. Half of numerator and denominator makes it Tversky's with alpha = 1/2, beta = b/2 and e/2.
    """
    return Tversky(options, alpha=0.5, beta=bias / 2, smooth=options.smooth / 2)


class DiceCe(SegmentationLoss):
    """The sum dice_weight * bias-dice + ce_weight * cross entropy, background included."""

    def __init__(self, options: DiceCeOptions) -> None:
        super().__init__()
        self.dice = bias_dice(options, options.bias)
        self.dice_weight, self.ce_weight = options.dice_weight, options.ce_weight

    def parts(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Compute the weighted sum, and the two losses in it."""
        dice = self.dice(logits, label)
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            if logits.shape[1] == 1:
                ce = functional.binary_cross_entropy_with_logits(logits[:, 0], (label > 0).to(logits.dtype))
            else:
                ce = functional.cross_entropy(logits, label.long())
        return {"total": self.dice_weight * dice + self.ce_weight * ce, "dice": dice, "ce": ce}


# Each from its options of conf/loss/. Soft Dice: Milletari et al., arXiv 1606.04797.
LOSSES: dict[str, Callable[[Any], SegmentationLoss]] = {
    "bias_dice": lambda options: bias_dice(options, options.bias),
    "dice": lambda options: bias_dice(options, bias=1.0),
    "dice_ce": DiceCe,
    "tversky": lambda options: Tversky(options, alpha=options.alpha, beta=options.beta, smooth=options.smooth),
    "focal_tversky": lambda options: Tversky(
        options, alpha=options.alpha, beta=options.beta, smooth=options.smooth, gamma=options.gamma
    ),
}


class OwnLoss(SegmentationLoss):
    """A user's own loss of logits (B, C, D, H, W) float32 and labels (B, D, H, W) int64, a scalar.

    Where C is 1, as in the coarse stage, labels are 0 and 1, the foreground.

    Args:
        own: its `_target_`, its arguments, and `channel`: labels are (B, 1, D, H, W) then, as MONAI's losses take them.
    """

    def __init__(self, own: Own) -> None:
        super().__init__()
        self.own = own
        self.loss = build({key: value for key, value in own.items() if key != "channel"}, "loss")

    def parts(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Compute the loss alone."""
        with torch.autocast(logits.device.type, enabled=False):
            label = label > 0 if logits.shape[1] == 1 else label
            label = label.unsqueeze(1) if self.own.get("channel") else label
            return {"total": self.loss(at_least_float32(logits), label.long())}

    def try_on(self, classes: int) -> None:
        """Refuse a loss that does not come to a scalar that learns.

        Raises:
            KitsError: it does not.
        """
        logits = torch.zeros(1, classes, 2, 4, 4, requires_grad=True)
        label = torch.arange(32, dtype=torch.uint8).view(1, 2, 4, 4) % max(classes, 2)  # a single channel is the foreground's
        with blame(self.own, "loss"):
            found = self(logits, label)
            if not isinstance(found, Tensor) or found.dim() or not found.requires_grad:
                raise TypeError("it comes to no scalar with a gradient of logits (B, C, D, H, W) and labels (B, D, H, W)")


def build_loss(options: Loss) -> SegmentationLoss:
    """Build the loss that `options` name, or one of the user's own."""
    return OwnLoss(options) if isinstance(options, dict) else LOSSES[options.name](options)


def nearest_labels(label: Tensor, size: Sequence[int]) -> Tensor:
    """Bring labels (B, D, H, W) to a coarser grid `size` (d, h, w) by the voxel nearest a center.

    Both grids span the same extent. Of two equally near the later one, as `nearest-exact` of torch does; integers throughout, so
    that no label is invented.
    """
    for axis, new in enumerate(size, start=1):
        old = label.shape[axis]
        if new != old:
            # Center of new cell k: (k + 1/2) old / new in edges of old voxels; its floor is the voxel that the center lies in.
            center = (2 * torch.arange(new, device=label.device) + 1) * old // (2 * new)
            label = label.index_select(axis, center)
    return label


def deep_supervision(loss: SegmentationLoss, pyramid: Sequence[Tensor], label: Tensor) -> dict[str, Tensor]:
    """Average the losses of one prediction at several resolutions, finest first, weights halving.

    Coarse logits meet labels of the nearest voxel (Lee et al., arXiv 1409.5185; halving weights as in nnU-Net, 1904.08128).

    Returns:
        The mean as `total`, and the terms of the finest prediction's loss.
    """
    parts = loss.parts(pyramid[0], label)
    weights = [0.5**k for k in range(len(pyramid))]
    total = parts["total"]
    for weight, logits in zip(weights[1:], pyramid[1:], strict=True):
        total = total + weight * loss(logits, nearest_labels(label, logits.shape[2:]))
    return {**parts, "total": total / sum(weights)}


def parallel_loss(
    loss: SegmentationLoss, fused: Tensor | None, sources: Sequence[Sequence[Tensor]], label: Tensor, weight: float
) -> dict[str, Tensor]:
    """Compute L_fused + weight * sum over sources of L_k: the parallel training's loss.

    Each source is a pyramid of logits for `deep_supervision`. Without `fused` (staged training, each source alone) it is the sum
    of the sources' own losses: they share no parameter, so the gradient of each is that of its own training.

    Returns:
        The sum as `total`; `fused` with its terms, and `source0`, `source1`, ... without their weight.
    """
    own = [deep_supervision(loss, pyramid, label)["total"] for pyramid in sources]
    named = {f"source{k}": part for k, part in enumerate(own)}
    if fused is None:
        return {"total": torch.stack(own).sum(), **named}
    parts = loss.parts(fused, label)
    fused_loss = parts.pop("total")
    return {"total": sum((weight * part for part in own), fused_loss), "fused": fused_loss, **parts, **named}
