"""TensorFlow's padding, which some pretrained encoders want, for sizes that the strides divide."""

from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional


class EvenPadding(nn.Conv2d):
    """timm's convolution with TensorFlow's padding, for sizes that its stride divides: the padding does not depend on them."""

    def forward(self, slices: Tensor) -> Tensor:
        rows, columns = (
            max(0, dilation * (kernel - 1) + 1 - stride)
            for kernel, stride, dilation in zip(self.kernel_size, self.stride, self.dilation, strict=True)
        )
        edges = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        padded = functional.pad(slices, edges)
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def with_even_padding(network: nn.Module) -> nn.Module:
    """The network itself, its convolutions padded without a formula of the image's size, which would keep a tracer busy."""
    for module in network.modules():
        if isinstance(module, Conv2dSame):
            module.__class__ = EvenPadding  # type: ignore[assignment]
    return network
