"""TensorFlow's padding, which some pretrained encoders want, for sizes that the strides divide."""

from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional


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
