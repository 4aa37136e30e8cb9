# SPDX-License-Identifier: Apache-2.0
"""The first stage of an R-CNN: features, and a network that proposes boxes on them."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from detectron_libra.modeling.anchors import AnchorGrid
from detectron_libra.modeling.detectors.trunk import Trunk
from detectron_libra.modeling.proposals import ProposalRule, make_proposals
from detectron_libra.modeling.rpn_loss import RPNRule, rpn_losses
from detectron_libra.structures import Batch, Proposals


class Proposed(NamedTuple):
    """Raw outputs of the proposal network: per level logits (N, A, H, W), deltas (N, A*4, H, W), and anchors."""

    logits: Sequence[Tensor]
    deltas: Sequence[Tensor]
    anchors: Sequence[Tensor]


class ProposingTrunk(Trunk):
    """Trunk with a region proposal network.

    Args:
        preprocess, backbone, neck, balance: see ``Trunk``.
        rpn: list of levels to raw objectness and deltas.
        anchors: the anchors of every level.
        rpn_rule, rpn_box_loss: what the network learns.
        train_proposals, test_proposals: how many of its boxes go on.
    """

    def __init__(
        self,
        *,
        preprocess: nn.Module,
        backbone: nn.Module,
        neck: nn.Module | None,
        balance: nn.Module | None,
        rpn: nn.Module,
        anchors: AnchorGrid,
        rpn_rule: RPNRule,
        rpn_box_loss: nn.Module,
        train_proposals: ProposalRule,
        test_proposals: ProposalRule,
    ):
        super().__init__(preprocess=preprocess, backbone=backbone, neck=neck, balance=balance)
        self.rpn, self.anchors, self.rpn_box_loss = rpn, anchors, rpn_box_loss
        self.rpn_rule, self.train_proposals, self.test_proposals = rpn_rule, train_proposals, test_proposals

    def score_anchors(self, levels: Sequence[Tensor]) -> Proposed:
        """What the proposal network says of every anchor."""
        logits, deltas = self.rpn(levels)
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        return Proposed(logits, deltas, self.anchors(sizes, levels[0].device))

    def choose_proposals(self, proposed: Proposed, batch: Batch) -> Proposals:
        """The boxes that go on, in pixels of the resized images."""
        rule = self.train_proposals if self.training else self.test_proposals
        return make_proposals(*proposed, batch.sizes, batch.scales, rule)

    def proposal_losses(
        self, proposed: Proposed, batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Raw losses and metrics of the proposal network."""
        assert batch.targets is not None, "a training batch has targets"
        return rpn_losses(
            *proposed, batch.targets, batch.sizes, rule=self.rpn_rule, box_loss=self.rpn_box_loss
        )
