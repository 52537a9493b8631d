"""BatchNorm in evaluation, a factor and a sum, as a part of the convolution before it."""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from kits.models.encoder2d import PROBE, Encoder2d, EvenPadding

# Largest difference of a feature map to its spread, by float32's rounding alone.
TOLERANCE = 1e-3


def fold_norms(network: nn.Module) -> nn.Module:
    """Fold a network's BatchNorm into its convolutions, for prediction; outputs are equal to rounding.

    Returns the network itself. Which convolution a norm follows is seen as an image passes, whatever the backbone; one that does
    not give the same features after it is left as it was.
    """
    for encoder in network.modules():
        if isinstance(encoder, Encoder2d):
            encoder.features = fold_backbone(encoder.features, encoder.fixed_size or PROBE)
    return network


@torch.no_grad()
def fold_backbone(features: nn.Module, size: int) -> nn.Module:
    """Return a copy of a backbone without the BatchNorm that its convolutions can do, or itself."""
    device = next(features.parameters()).device
    image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    result = copy.deepcopy(features).eval()
    names = {module: name for name, module in result.named_modules()}
    for norm, convolution in convolutions_before(result, image).items():
        statistics = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, *statistics, norm.eps, norm.weight, norm.bias
        )
        parent, _, name = names[norm].rpartition(".")
        # timm's BatchNorm has the activation in it.
        setattr(result.get_submodule(parent), name, getattr(norm, "act", nn.Identity()))
    before, after = features(image), result(image)
    same = all(float((a - b).abs().max()) <= TOLERANCE * float(b.std()) for a, b in zip(after, before, strict=True))
    return result if same else features


def convolutions_before(features: nn.Module, image: Tensor) -> dict[nn.BatchNorm2d, nn.Conv2d]:
    """Map each norm to the convolution whose output it takes as it is."""
    outputs: list[tuple[Tensor, nn.Conv2d]] = []  # kept, so that no two have the same address
    found: dict[nn.BatchNorm2d, nn.Conv2d] = {}

    def passed(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if type(module) in (nn.Conv2d, EvenPadding):
            outputs.append((output, module))  # type: ignore[arg-type]
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            found.update((module, convolution) for made, convolution in outputs if made is given[0])

    hooks = [module.register_forward_hook(passed) for module in features.modules()]
    features(image)
    for hook in hooks:
        hook.remove()
    return found
