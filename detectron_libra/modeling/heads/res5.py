# SPDX-License-Identifier: Apache-2.0
"""The head of a C4 model: the backbone's last stage, run on every region. Source: Detectron's modeling/ResNet.py."""

from torch import Tensor, nn

from detectron_libra.modeling.backbones.resnet import init_weights


class Res5Head(nn.Module):
    """Stage 5 on each region, then the mean over its cells: ``add_ResNet_roi_conv5_head``.

    Args:
        res5: (R, channels, S, S) to (R, dim, s, s).
        out_dim: dim.
        from_scratch: see ``init_weights``.
    """

    def __init__(self, *, res5: nn.Module, out_dim: int, from_scratch: bool):
        super().__init__()
        self.res5, self.out_dim = res5, out_dim
        init_weights(res5, from_scratch=from_scratch, zero_init_residual=False)

    def forward(self, regions: Tensor) -> Tensor:
        """(R, channels, S, S) to (R, dim)."""
        return self.res5(regions).mean((2, 3))
