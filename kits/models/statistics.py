"""Batch statistics over all processes of a training."""

from timm.layers import convert_sync_batchnorm
from torch import nn


def with_synchronized_statistics(network: nn.Module) -> nn.Module:
    """Replace BatchNorm by SyncBatchNorm; weights and statistics keep their tensors and names.

    timm's conversion: torch's own would put a bare SyncBatchNorm for timm's BatchNormAct2d and so drop its activation.
    """
    return convert_sync_batchnorm(network)
