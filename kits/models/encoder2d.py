"""A timm backbone as a 2D encoder of CT slices; depth is folded into the batch."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from timm.layers import Conv2dSame, Format, convert_sync_batchnorm
from timm.models import FeatureInfo
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from kits.core.errors import KitsError
from kits.models.weights import create_features

# Pixels of the image that tells which parameters a scale depends on; the least that every flexible backbone takes.
PROBE = 64


class Encoder2d(nn.Module):
    """An encoder of slices (N, 1 or 3, H, W) in [-1, 1] into a feature map per scale.

    Maps are (N, out_channels[k], H / reductions[k], W / reductions[k]). A single channel is replicated to three; they are
    normalized as the backbone was in its own training.

    Args:
        backbone, weights, out_indices: see `kits.models.weights.create_features`.
        freeze_statistics: keep BatchNorm in evaluation mode, through `.train()` too: the running statistics of the tf_ models
            move by 1 % a step, so that a short training would be evaluated with those of neither the old nor the new weights.
            Scale and offset of BatchNorm stay trainable.
        freeze_stages: so many of the first scales, or "all", do not learn, and their layers stay in evaluation mode.
        slices_at_once: slices that pass in one go; None is all. Unless its statistics are frozen, BatchNorm sees only these.
        checkpointing: keep no activations for the backward pass but compute them again, for less memory and a third more time.

    Attributes:
        multiple: H and W must be multiples of this. fixed_size: they must be this, where it is not None.

    Raises:
        KitsError: weights or scales cannot be had, or the options do not go together.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        backbone: str,
        weights: str | None,
        out_indices: Sequence[int],
        freeze_statistics: bool,
        freeze_stages: int | str,
        slices_at_once: int | None,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.features, self.fixed_size = create_features(backbone, weights, tuple(out_indices))
        info = cast(FeatureInfo, self.features.feature_info)
        self.out_channels: list[int] = info.channels()
        self.reductions: list[int] = info.reduction()
        self.multiple = self.fixed_size or self.reductions[-1]
        self.channels_at_the_end = getattr(self.features, "output_fmt", None) == Format.NHWC
        drop_unused_blocks(self.features, info.module_name()[-1])
        with_even_padding(self.features)
        self.freeze_statistics = freeze_statistics
        self.slices_at_once, self.checkpointing = slices_at_once, checkpointing
        config = cast(Any, self.features).pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1))
        if count := len(self.reductions) if freeze_stages == "all" else int(freeze_stages):
            stage = self.stages()
            for name, parameter in self.features.named_parameters():
                parameter.requires_grad_(stage[name] >= count)
        if checkpointing and any(isinstance(m, _BatchNorm) and m.training for m in self.train().modules()):
            raise KitsError(
                "model.checkpointing: every slice passes twice, and would move the statistics of BatchNorm twice;"
                " set model.freeze_statistics=true"
            )
        self.train()

    def stages(self) -> dict[str, int]:
        """Map each parameter's name in `features` to the first scale whose map depends on it.

        Read from the gradients of a small image, which holds for any backbone whatever its layers are called.
        """
        learning = {name: parameter.requires_grad for name, parameter in self.features.named_parameters()}
        self.features.eval().requires_grad_(True)
        size = self.fixed_size or PROBE
        with torch.enable_grad():
            maps = self.features(torch.zeros(1, 3, size, size, device=self.mean.device))
        parameters = dict(self.features.named_parameters())
        found: dict[str, int] = {}
        for k, scale in enumerate(maps):
            gradients = torch.autograd.grad(scale.sum(), list(parameters.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    found.setdefault(name, k)
        for name, parameter in parameters.items():
            parameter.requires_grad_(learning[name])
        self.train(self.training)  # with what is frozen in evaluation mode again
        return {name: found.get(name, len(self.reductions) - 1) for name in parameters}

    def train(self, mode: bool = True) -> "Encoder2d":
        super().train(mode)
        for module in self.features.modules():
            learning = [parameter.requires_grad for parameter in module.parameters()]
            frozen = bool(learning) and not any(learning)
            if frozen or (self.freeze_statistics and isinstance(module, _BatchNorm)):
                module.eval()
        return self

    def forward(self, slices: Tensor) -> list[Tensor]:
        """Compute the feature maps of `slices`, finest first."""
        parts = slices.split(self.slices_at_once) if self.slices_at_once else [slices]
        again = self.checkpointing and torch.is_grad_enabled()
        maps = [checkpoint(self._scales_of, part, use_reentrant=False) if again else self._scales_of(part) for part in parts]
        return maps[0] if len(maps) == 1 else [torch.cat(scale) for scale in zip(*maps, strict=True)]

    def _scales_of(self, slices: Tensor) -> list[Tensor]:
        # Back to [0, 1], and then as the images of its pretraining: the first layer expects their mean and deviation.
        image = ((slices + 1) / 2 - self.mean) / self.std
        maps = self.features(image.contiguous(memory_format=torch.channels_last))
        return [scale.permute(0, 3, 1, 2) for scale in maps] if self.channels_at_the_end else list(maps)


def drop_unused_blocks(features: nn.Module, last: str) -> None:
    """Remove the blocks after `last` ("blocks.4"), the module that gives the coarsest scale.

    timm does so itself, but for the EfficientNet family: there they would cost time, and have parameters without a gradient.
    """
    name, _, index = last.partition(".")
    blocks = getattr(features, "blocks", None)
    if name == "blocks" and isinstance(blocks, nn.Sequential):
        features.blocks = blocks[: int(index) + 1]


def with_synchronized_statistics(network: nn.Module) -> nn.Module:
    """Replace BatchNorm by SyncBatchNorm; weights and statistics keep their tensors and names."""
    # torch's own would put a bare SyncBatchNorm for timm's BatchNormAct2d and so drop its activation.
    return convert_sync_batchnorm(network)


class EvenPadding(nn.Conv2d):
    """A timm convolution with TensorFlow's padding, for sizes that its stride divides.

    For these the padding does not depend on the size. It often wants one row and one column more after the image than before it,
    which torch can only give by copying the image. A kernel with a row and a column of zeros before it says the same with even
    padding.
    """

    def forward(self, slices: Tensor) -> Tensor:
        rows, columns = (
            max(0, kernel - stride) for kernel, stride in zip(self.kernel_size, self.stride, strict=True)
        )  # padding in all
        kernel = functional.pad(self.weight, (columns % 2, 0, rows % 2, 0))
        padding = (-(-rows // 2), -(-columns // 2))
        return functional.conv2d(slices, kernel, self.bias, self.stride, padding, self.dilation, self.groups)


def with_even_padding(network: nn.Module) -> nn.Module:
    """Pad a network's convolutions without a formula of the image's size, which would slow a tracer.

    Returns the network itself.
    """
    for module in network.modules():
        if isinstance(module, Conv2dSame) and module.dilation == (1, 1):
            module.__class__ = EvenPadding  # type: ignore[assignment]
    return network
