"""One source of the fine network: a 2D encoder in some plane, adaptations, a decoder and a head."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from kits.config.schema.model import FineNetOptions
from kits.core.errors import KitsError
from kits.models.adaptation import OPERATORS, Adaptation
from kits.models.channels import InputMapping
from kits.models.encoder2d import Encoder2d
from kits.models.layers import conv_block, fold, unfold, upsample

# By plane: the axis of (B, C, D, H, W) along which its slices lie. It changes places with D, which is its own way back.
PLANES = {"axial": 2, "coronal": 3, "sagittal": 4}


class Decoder2d(nn.Module):
    """A light decoder of features (B D, widths[k], h_k, w_k), finest first; it upsamples in-plane."""

    def __init__(self, widths: Sequence[int], *, norm: str) -> None:
        super().__init__()
        self.merge = nn.ModuleList(
            conv_block(widths[k] + widths[k + 1], widths[k], kernel=3, norm=norm) for k in range(len(widths) - 1)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        decoded = [features[-1]]
        for k in reversed(range(len(self.merge))):
            decoded.append(self.merge[k](torch.cat([features[k], upsample(decoded[-1], features[k].shape[-2:])], dim=1)))
        return decoded[::-1]


class SubNetwork(nn.Module):
    """A network of (B, 1, D, H, W) -> features and logits in the volume's axes, whatever its plane.

    Features are at the encoder's finest scale. Other planes than the axial have D among the sides of their images: it is filled
    up to the encoder's next multiple with repeats of the last slice. So any D works there too, but most of an image is repeats
    where D is much smaller.

    Args:
        encoder: a new `Encoder2d`. mapping: what it sees of the volume.
        plane: axial, coronal or sagittal.
        options: of the fine network: `widths` are channels of each scale after adaptation, and `deep_supervision` of the coarser
            scales have heads too.
    """

    def __init__(self, encoder: Encoder2d, mapping: InputMapping, plane: str, options: FineNetOptions) -> None:
        super().__init__()
        widths, operator, gate, norm = options.widths, options.operator, options.gate, options.norm
        if encoder.fixed_size and plane != "axial":
            raise KitsError(f"model.plane: {plane} images have no fixed size; take another backbone for them")
        self.encoder, self.mapping = encoder, mapping
        self.axis = PLANES[plane]
        self.adaptations = nn.ModuleList(
            Adaptation(channels, width, operator=operator, gate=gate, norm=norm)
            for channels, width in zip(encoder.out_channels, widths, strict=True)
        )
        self.decoder = Decoder2d(widths, norm=norm)
        # How many slices away a voxel's features may depend on; None is any number.
        self.reach: int | None = None
        if plane == "axial":
            # One slice each for the operator and the gate; all scales have theirs side by side, so it does not add up over them.
            # A plug-in's may see any number.
            self.reach = mapping.reach + (operator != "none") + gate if operator in OPERATORS else None
        self.head = nn.Conv2d(widths[0], options.classes, 1)
        self.coarser_heads = nn.ModuleList(
            nn.Conv2d(width, options.classes, 1) for width in widths[1 : options.deep_supervision + 1]
        )

    def forward(self, volume: Tensor, heads: int | None = 1) -> tuple[Tensor, list[Tensor]]:
        """Compute features (B D, widths[0], h, w) and a pyramid of logits of so many heads, finest first.

        The first logits are (B, classes, D, H, W). Those of the deep supervision follow, at the in-plane resolution of their
        scales; None is all.
        """
        turned = volume
        if self.axis != 2:
            # Its slices run along the third axis then, and D is a side of images, which have the encoder's multiples as sides.
            lacking = -volume.shape[2] % self.encoder.multiple
            turned = functional.pad(volume, (0, 0, 0, 0, 0, lacking), mode="replicate").transpose(2, self.axis)
        scales, depth = self.encoder(self.mapping(turned)), turned.shape[2]
        # The decoder's features in this source's plane, (N, widths[k], h, w), finest first.
        decoded = self.decoder([adapt(scale, depth) for adapt, scale in zip(self.adaptations, scales, strict=True)])
        reductions = self.encoder.reductions
        pyramid = [
            self.turn_back(head(decoded[k]), volume, reductions[k] if k else 1)
            for k, head in enumerate([self.head, *self.coarser_heads][:heads])
        ]
        return fold(self.turn_back(decoded[0], volume, reductions[0])), pyramid

    def turn_back(self, slices: Tensor, volume: Tensor, reduction: int) -> Tensor:
        """Bring maps of the turned slices, (N, C, h, w), back to the volume's axes."""
        depth, height, width = volume.shape[2:]
        in_plane = (height // reduction, width // reduction)
        if self.axis == 2:
            return unfold(slices if slices.shape[-2:] == in_plane else upsample(slices, in_plane), depth)
        filled = depth + -depth % self.encoder.multiple
        # D was reduced as a side of the images, and the axis along which they lie was not: both get the axial sources' sizes.
        found = unfold(slices, volume.shape[self.axis]).transpose(2, self.axis)
        return functional.interpolate(found, size=(filled, *in_plane), mode="trilinear", align_corners=False)[:, :, :depth]
