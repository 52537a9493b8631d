"""The fine network: several pretrained 2D sub-networks with dimension adaptation modules, fused into one 3D prediction."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from kits.errors import KitsError
from kits.models.adaptation import Adaptation
from kits.models.decoder2d import Decoder2d
from kits.models.encoder2d import Encoder2d
from kits.models.fusion import build_fusion
from kits.models.layers import channels_last, check_in_plane, fold, unfold, upsample

SOURCE_KEYS = ("backbone", "weights")


class SubNetwork(nn.Module):
    """One source: 2D encoder, an adaptation module per scale, in-plane decoder, and a head of its own for parallel training."""

    def __init__(
        self,
        *,
        backbone: str,
        weights: str | None,
        classes: int,
        out_indices: Sequence[int],
        widths: Sequence[int],
        operator: str,
        gate: bool,
        norm: str,
        freeze_statistics: bool,
    ) -> None:
        super().__init__()
        self.encoder = Encoder2d(backbone=backbone, weights=weights, out_indices=out_indices, freeze_statistics=freeze_statistics)
        self.adaptations = nn.ModuleList(
            Adaptation(channels, width, operator=operator, gate=gate, norm=norm)
            for channels, width in zip(self.encoder.out_channels, widths, strict=True)
        )
        self.decoder = Decoder2d(widths, norm=norm)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, D, H, W) -> features (B D, widths[0], h, w) at the encoder's finest scale, own logits (B, classes, D, H, W)."""
        depth, in_plane = volume.shape[2], volume.shape[3:]
        scales = self.encoder(fold(volume))
        features = self.decoder([adapt(scale, depth) for adapt, scale in zip(self.adaptations, scales, strict=True)])
        return features, unfold(upsample(self.head(features), in_plane), depth)


class FineNet(nn.Module):
    """(B, 1, D, H, W) in [-1, 1] -> logits (B, classes, D, H, W).

    Any D >= 1 works. H and W must be multiples of `in_plane_multiple`; KitsError names the next valid size otherwise.

    Args:
        sources: list of {backbone, weights}, see `kits.models.weights.create_features`.
        out_indices: scales of each encoder, finest first. widths: channels of each scale after adaptation.
        operator, gate, norm: see `Adaptation`.
        fusion: concat, gate or mean. width, stem_width: channels of the fusion.
        freeze_statistics: see `Encoder2d`.
        pretrained: false leaves the sources' weights out, for a network whose own weights follow.
    """

    def __init__(
        self,
        *,
        classes: int,
        sources: Sequence[Mapping[str, Any]],
        out_indices: Sequence[int],
        widths: Sequence[int],
        operator: str,
        gate: bool,
        norm: str,
        fusion: str,
        width: int,
        stem_width: int,
        freeze_statistics: bool,
        pretrained: bool,
    ) -> None:
        super().__init__()
        check_sources(sources)
        if len(widths) != len(out_indices):
            raise KitsError(f"model.widths: {len(widths)} entries for {len(out_indices)} out_indices; give one width per scale")
        subnetworks = [
            SubNetwork(
                backbone=source["backbone"],
                weights=source["weights"] if pretrained else None,
                classes=classes,
                out_indices=out_indices,
                widths=widths,
                operator=operator,
                gate=gate,
                norm=norm,
                freeze_statistics=freeze_statistics,
            )
            for source in sources
        ]
        self.in_plane_multiple = max(source.encoder.reductions[-1] for source in subnetworks)
        self.sources = nn.ModuleList(subnetworks)
        finest = [widths[0]] * len(sources)
        self.fusion = build_fusion(fusion, finest, classes=classes, width=width, stem_width=stem_width, norm=norm)
        channels_last(self)

    def forward(self, volume: Tensor) -> Tensor:
        """Fused logits of every voxel of `volume`, (B, 1, D, H, W)."""
        return self.all_logits(volume)[0]

    def all_logits(self, volume: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Fused logits and each source's own, for the loss of the parallel training; all (B, classes, D, H, W)."""
        check_in_plane(volume, self.in_plane_multiple)
        features, logits = zip(*(source(volume) for source in self.sources), strict=True)
        return self.fusion(volume, features, logits), list(logits)


def check_sources(sources: Sequence[Mapping[str, Any]]) -> None:
    """Raise KitsError unless there is at least one source and each has exactly the keys in SOURCE_KEYS."""
    if not sources:
        raise KitsError("model.sources: the list is empty; name at least one {backbone, weights}")
    for source in sources:
        if set(source) != set(SOURCE_KEYS):
            raise KitsError(f"model.sources: an entry has the keys {', '.join(source)}; it needs {', '.join(SOURCE_KEYS)}")
