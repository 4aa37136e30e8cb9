# SPDX-License-Identifier: Apache-2.0
"""RetinaNet: backbone, feature pyramid, balanced pyramid if asked for, dense head."""

from collections.abc import Sequence

from torch import Tensor, nn

from detectron_libra.modeling.anchors import AnchorGrid
from detectron_libra.modeling.detectors.trunk import Trunk
from detectron_libra.modeling.postprocess import retinanet_candidates
from detectron_libra.modeling.retinanet_loss import RetinaNetRule, retinanet_losses
from detectron_libra.modeling.suppression import Candidates, DetectionRule, best_detections
from detectron_libra.structures import Batch, Detections


class RetinaNet(Trunk):
    """One-stage detector.

    Args:
        preprocess, backbone, neck, balance: see ``Trunk``.
        head: list of levels to raw scores and deltas.
        anchors: the anchors of every level.
        rule, box_loss, class_loss: what is learned; class_loss None: the focal loss of the rule.
        pre_nms_top_n, detection: what is reported.
    """

    def __init__(
        self,
        *,
        preprocess: nn.Module,
        backbone: nn.Module,
        neck: nn.Module,
        balance: nn.Module | None,
        head: nn.Module,
        anchors: AnchorGrid,
        rule: RetinaNetRule,
        box_loss: nn.Module,
        pre_nms_top_n: int,
        detection: DetectionRule,
        class_loss: nn.Module | None = None,
    ):
        super().__init__(preprocess=preprocess, backbone=backbone, neck=neck, balance=balance)
        self.head, self.anchors = head, anchors
        self.box_loss, self.class_loss = box_loss, class_loss
        self.rule, self.pre_nms_top_n, self.detection = rule, pre_nms_top_n, detection

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]] | list[Detections]:
        """Raw losses and metrics in training, detections of each image otherwise."""
        if not self.training:
            return [best_detections(found, self.detection) for found in self.candidates(batch)]
        return self.losses(self.features(batch), batch)

    def losses(self, levels: Sequence[Tensor], batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Raw losses and metrics on the features of a training batch."""
        assert batch.targets is not None, "a training batch has targets"
        return retinanet_losses(
            *self.score_anchors(levels),
            batch.targets,
            rule=self.rule,
            box_loss=self.box_loss,
            class_loss=self.class_loss,
        )

    def score_anchors(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Raw scores and deltas of the head, and the anchors, per level."""
        logits, deltas = self.head(levels)
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        return logits, deltas, self.anchors(sizes, levels[0].device)

    def candidates(self, batch: Batch) -> list[Candidates]:
        """What may be a detection of each image, before suppression."""
        return retinanet_candidates(
            *self.score_anchors(self.features(batch)),
            batch,
            num_classes=self.rule.num_classes,
            softmax=self.rule.softmax,
            pre_nms_top_n=self.pre_nms_top_n,
            rule=self.detection,
        )
