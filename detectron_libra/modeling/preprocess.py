# SPDX-License-Identifier: Apache-2.0
"""From uint8 RGB images of a batch to the network's input, on the device."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detectron_libra.structures import Batch


class Preprocess(nn.Module):
    """Channel order, means and standard deviations, then zeros in the padding.

    Args:
        means: three numbers in 0..255, in the order of the network's input channels.
        stds: three numbers in 0..255, same order.
        order: "BGR" (Detectron's weights) or "RGB".
        channels_last: hand the image on in NHWC memory, the faster layout of today's convolutions.
    """

    means: Tensor
    stds: Tensor

    def __init__(self, means: Sequence[float], stds: Sequence[float], *, order: str, channels_last: bool):
        super().__init__()
        self.register_buffer("means", torch.tensor(means).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("stds", torch.tensor(stds).view(1, 3, 1, 1), persistent=False)
        self.reverse = order == "BGR"
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def forward(self, batch: Batch) -> Tensor:
        """(N, 3, H, W) float32; zero outside each image, so that padding is the mean colour."""
        images = batch.images.to(torch.float32)
        if self.reverse:
            images = images.flip(1)
        images = (images - self.means) / self.stds
        height, width = images.shape[-2:]
        inside_y = torch.arange(height, device=images.device) < batch.sizes[:, :1]
        inside_x = torch.arange(width, device=images.device) < batch.sizes[:, 1:]
        inside = inside_y[:, None, :, None] & inside_x[:, None, None, :]
        # where, not a product: a NaN pixel in the padding must not survive
        images = torch.where(inside, images, images.new_zeros(()))
        return images.contiguous(memory_format=self.memory_format)
