# SPDX-License-Identifier: Apache-2.0
"""Where the parts of our detectors begin and end."""

from __future__ import annotations

from torch import nn

from detectron_libra.builders.benchmark.ranges import Place
from detectron_libra.modeling import retinanet_loss, rpn_loss
from detectron_libra.modeling.detectors import fast_rcnn, faster_rcnn, proposing, regions, retinanet

#: Child of a detector -> part.
MODULES = {
    "backbone": "backbone",
    "neck": "fpn",
    "balance": "fpn",
    "head": "head",
    "rpn": "rpn_head",
    "regions.head": "box_head",
    "regions.predictor": "box_head",
}
#: Functions as the detectors call them; what is none of the inner parts of `losses` of a region head is its choice of
#: boxes to learn from.
FUNCTIONS = (
    Place(retinanet, "retinanet_losses", "losses"),
    Place(retinanet_loss, "assign_anchors", "matching"),
    Place(retinanet_loss, "choose_background", "matching"),
    Place(retinanet, "retinanet_candidates", "postprocess"),
    Place(retinanet, "best_detections", "postprocess"),
    Place(proposing, "make_proposals", "proposals"),
    Place(proposing, "rpn_losses", "losses"),
    Place(rpn_loss, "match_anchors", "matching"),
    Place(rpn_loss, "sample_rpn", "matching"),
    Place(regions, "roi_align", "roi_align"),
    Place(regions, "fast_rcnn_losses", "losses"),
    Place(regions, "fast_rcnn_candidates", "postprocess"),
    Place(faster_rcnn, "best_detections", "postprocess"),
    Place(fast_rcnn, "best_detections", "postprocess"),
)


def places_of(model: nn.Module) -> list[Place]:
    """The functions of a detector's parts, without those of the training around it."""
    named = dict(model.named_modules())
    found = [Place(named[name], "forward", part) for name, part in MODULES.items() if name in named]
    if "regions" in named:
        found.append(Place(named["regions"], "losses", "matching"))
    return [*FUNCTIONS, *found]
