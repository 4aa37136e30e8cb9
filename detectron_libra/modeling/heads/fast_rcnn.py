# SPDX-License-Identifier: Apache-2.0
"""Fast R-CNN's heads: from pooled regions to class scores and box deltas."""

from torch import Tensor, nn

from detectron_libra.modeling.convolution import Conv2d, through
from detectron_libra.modeling.init import kaiming_normal_, normal_, xavier_fill_
from detectron_libra.modeling.norm import Groups, make_norm

CLASS_STD, BOX_STD = 0.01, 0.001  # Detectron's fast_rcnn_heads.py


class TwoMLPHead(nn.Module):
    """Two fully connected layers with ReLU: ``add_roi_2mlp_head``."""

    def __init__(self, *, channels: int, resolution: int, dim: int):
        super().__init__()
        self.fc6 = nn.Linear(channels * resolution * resolution, dim)
        self.fc7 = nn.Linear(dim, dim)
        self.out_dim = dim
        self.relu = nn.ReLU(inplace=True)
        for layer in (self.fc6, self.fc7):
            xavier_fill_(layer)

    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, S, S) to (R, dim); channel-major flatten, as the released weights expect."""
        return self.relu(self.fc7(self.relu(self.fc6(regions.flatten(1)))))


class XConvFCHead(nn.Module):
    """Stacked 3x3 convolutions and one fully connected layer: ``add_roi_Xconv1fc[_gn]_head``."""

    def __init__(
        self,
        *,
        channels: int,
        resolution: int,
        dim: int,
        conv_dim: int,
        num_convs: int,
        norm: str,
        norm_groups: Groups = 32,
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(num_convs):
            conv = Conv2d(channels if i == 0 else conv_dim, conv_dim, 3, padding=1, bias=norm == "none")
            kaiming_normal_(conv)
            layers += [
                conv,
                make_norm(norm, conv_dim, groups=norm_groups, eps=norm_eps),
                nn.ReLU(inplace=True),
            ]
        self.convs = nn.Sequential(*layers)
        self.fc6 = nn.Linear(conv_dim * resolution * resolution, dim)
        self.relu = nn.ReLU(inplace=True)
        self.out_dim = dim
        xavier_fill_(self.fc6)

    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, S, S) to (R, dim)."""
        return self.relu(self.fc6(through(self.convs, [regions])[0].flatten(1)))


class FastRCNNPredictor(nn.Module):
    """Class logits and box deltas of each region.

    Args:
        dim: features per region.
        num_classes: C, with background.
        class_agnostic: one box for all classes; Detectron then has two outputs, the second being used.
    """

    def __init__(self, *, dim: int, num_classes: int, class_agnostic: bool = False):
        super().__init__()
        self.class_agnostic = class_agnostic
        self.cls_score = nn.Linear(dim, num_classes)
        self.bbox_pred = nn.Linear(dim, 4 * (2 if class_agnostic else num_classes))
        normal_(self.cls_score, CLASS_STD)
        normal_(self.bbox_pred, BOX_STD)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, dim) to logits (R, C) and deltas (R, C or 2, 4), both float32."""
        deltas = self.bbox_pred(features).float()
        return self.cls_score(features).float(), deltas.view(len(features), -1, 4)
