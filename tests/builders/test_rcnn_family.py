# SPDX-License-Identifier: Apache-2.0
"""The models of Detectron's R-CNN family beside Faster R-CNN on a pyramid, rule by rule."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from detectron_libra.builders.backbone import architecture, norm_arguments
from detectron_libra.builders.data import preparation
from detectron_libra.builders.detector import build_detector, loss_weights
from detectron_libra.config import load_config
from detectron_libra.modeling.backbones.resnet import ResNet
from detectron_libra.modeling.detectors.fast_rcnn import FastRCNN
from detectron_libra.modeling.detectors.rpn_only import RPNOnly
from detectron_libra.modeling.rpn_loss import rpn_losses
from tests.builders.small import config
from tests.modeling.scenes import batch, targets

R50 = {"RESNETS__WIDTH": 0, "RESNETS__STAGE_BLOCKS": "()", "FPN__DIM": 256, "MODEL__NUM_CLASSES": 81}
C4_BODY = {"MODEL__CONV_BODY": "ResNet.add_ResNet50_conv4_body", "RPN__SIZES": "(32, 64, 128, 256, 512)"}
FPN_BODY = {"MODEL__CONV_BODY": "FPN.add_fpn_ResNet50_conv5_body"}


def build(kind, **changes):
    torch.manual_seed(0)
    cfg = config(kind, **changes)
    return build_detector(cfg, cfg.MODEL.NUM_CLASSES)


def counted(model):
    """Values that a file of weights holds."""
    return sum(t.numel() for t in model.state_dict().values())


@pytest.mark.parametrize(
    ("kind", "changes", "values"),
    [
        ("c4", C4_BODY, 33_852_960),
        (
            "faster_rcnn",
            FPN_BODY | {"FAST_RCNN__ROI_XFORM_RESOLUTION": 7, "FAST_RCNN__MLP_HEAD_DIM": 1024},
            41_757_156,
        ),
    ],
)
def test_a_model_has_as_many_values_as_detectrons(kind, changes, values):
    """Counted from Detectron's graph: R-50-C4 has 33,852,960 values, Faster R-CNN R-50-FPN 41,757,156."""
    with torch.device("meta"):
        assert counted(build(kind, **R50, **changes)) == values


def test_anchors_of_one_level_are_all_sizes_ratio_by_ratio():
    """Stride 16, RPN.SIZES all on one level: 15 anchors, order ratio-major; the first five have ratio 0.5."""
    (base,) = build("c4", **C4_BODY).anchors.bases
    first = [
        [-15, -4, 30, 19],
        [-38, -16, 53, 31],
        [-84, -40, 99, 55],
        [-176, -88, 191, 103],
        [-360, -184, 375, 199],
    ]
    assert base.shape == (15, 4) and base[:5].tolist() == first


def test_the_rpn_of_one_level_keeps_the_width_of_its_features():
    """conv_rpn_w of R-50-C4 is (1024, 1024, 3, 3), rpn_cls_logits_w (15, 1024, 1, 1)."""
    with torch.device("meta"):
        rpn = build("c4", **R50, **C4_BODY).rpn
    assert rpn.conv.weight.shape == (1024, 1024, 3, 3) and rpn.objectness.weight.shape == (15, 1024, 1, 1)
    assert rpn.deltas.weight.shape == (60, 1024, 1, 1)


@pytest.mark.parametrize("body", ["resnet18", "ResNet50"])
def test_the_head_of_a_c4_model_is_the_backbones_fifth_stage(body):
    """RoIAlign 14, the res5 stage with stride 2 in its first block, then the mean over 7 x 7 cells."""
    changes = {"MODEL__CONV_BODY": f"ResNet.add_{body}_conv4_body"}
    head = build("c4", **changes).regions.head
    cfg = config("c4", **changes)
    whole = ResNet(**architecture(cfg), **norm_arguments(cfg), freeze_at=0)
    whole.res5.load_state_dict(head.res5.state_dict())
    x = torch.rand(3, whole.out_channels[4], 14, 14)
    expected = whole.res5(x)
    assert expected.shape[-2:] == (7, 7)
    torch.testing.assert_close(head(x), nn.AvgPool2d(7)(expected).flatten(1))
    assert all(not p.requires_grad for n, p in head.named_parameters() if "norm" in n)
    assert all(p.requires_grad for n, p in head.named_parameters() if "conv" in n)


def test_smaller_regions_are_not_made_smaller_in_the_head():
    """int(ROI_XFORM_RESOLUTION / 7) is the stride: 7 cells stay 7."""
    head = build("c4", FAST_RCNN__ROI_XFORM_RESOLUTION=7).regions.head
    assert head.res5[0].conv1.stride == (1, 1)
    assert build("c4").regions.head.res5[0].conv1.stride == (2, 2)


def test_a_backbone_may_end_with_its_fifth_stage_and_have_fully_connected_heads():
    changes = {
        "MODEL__CONV_BODY": "ResNet.add_resnet18_conv5_body",
        "FAST_RCNN__ROI_BOX_HEAD": "fast_rcnn_heads.add_roi_2mlp_head",
    }
    model = build("c4", RPN__STRIDE=32, **changes)
    assert model.regions.pooling.strides == (32,)
    dilated = build("c4", RPN__STRIDE=16, RESNETS__RES5_DILATION=2, **changes)
    assert dilated.regions.pooling.strides == (16,) and dilated.anchors.strides == [16]


def test_objectness_on_one_level_is_a_mean_over_labelled_anchors():
    """FPN: sum / 256 / images (fixed divisor). C4: mean over labelled anchors."""
    scene, found = [(64, 64)], targets([(8, 8, 40, 40, 1)])
    model = build("c4", TRAIN__RPN_BATCH_SIZE_PER_IM=1000, TRAIN__RPN_STRADDLE_THRESH=-1)
    b = batch(scene, found)
    proposed = model.score_anchors(model.features(b))
    options = {"box_loss": model.rpn_box_loss}
    assert model.rpn_rule.mean_over_labelled and not build("faster_rcnn").rpn_rule.mean_over_labelled
    rule = replace(model.rpn_rule, assignment="continuous")  # draws without replacement: the count is known
    mean, _ = rpn_losses(*proposed, found, b.sizes, rule=rule, **options)
    fixed, _ = rpn_losses(*proposed, found, b.sizes, rule=replace(rule, mean_over_labelled=False), **options)
    labelled = 1000 * (fixed["rpn_cls"] / mean["rpn_cls"]).item()
    assert labelled == pytest.approx(round(labelled), abs=1e-2) and 0 < labelled <= 4 * 4 * 6
    torch.testing.assert_close(mean["rpn_bbox"], fixed["rpn_bbox"])


def test_proposals_of_one_level_are_cut_image_by_image():
    """Only the operator that collects a pyramid's levels cuts over all images of a batch."""
    assert not build("c4").train_proposals.per_batch and build("faster_rcnn").train_proposals.per_batch


def test_images_are_padded_to_a_multiple_of_the_stride_only_for_a_pyramid():
    """Zero-padded to the largest of the batch, rounded up to COARSEST_STRIDE when FPN_ON."""
    assert preparation(config("c4")).stride == 0 and preparation(config("faster_rcnn")).stride == 32


def test_each_model_has_the_loss_weights_of_its_losses():
    assert set(loss_weights(config("rpn_only"))) == {"rpn_cls", "rpn_bbox"}
    assert set(loss_weights(config("fast_rcnn"))) == {"cls", "bbox"}
    assert set(loss_weights(config("c4"))) == {"cls", "bbox", "rpn_cls", "rpn_bbox"}


def test_proposals_alone_win_over_a_second_stage():
    """As in Detectron, RPN_ONLY leaves the second stage of a Faster R-CNN out."""
    assert isinstance(build("faster_rcnn", MODEL__RPN_ONLY=True), RPNOnly)


def test_proposals_are_reported_in_pixels_of_the_original_image():
    model = build("rpn_only").eval()
    (small,), (large,) = (model(batch([(128, 128)], scales=[scale])) for scale in (1.0, 2.0))
    assert 0 < len(small) <= 20 and (small.scores.diff() <= 0).all()
    torch.testing.assert_close(small.boxes, large.boxes * 2)


def test_fast_rcnn_classifies_the_boxes_it_is_given_and_no_others():
    model = build("fast_rcnn", TEST__SCORE_THRESH=0.0, TEST__NMS=1.0, TEST__DETECTIONS_PER_IM=0)
    assert isinstance(model, FastRCNN) and not hasattr(model, "rpn")
    nn.init.zeros_(model.regions.predictor.bbox_pred.weight)
    b = batch([(128, 128)])
    (found,) = model.eval()(b)
    given = b.proposals.boxes[0][b.proposals.valid[0]]
    apart = (found.boxes[:, None] - given).abs().amax(-1)
    assert (apart.amin(1) < 1e-3).all() and (apart.amin(0) < 1e-3).all()


def test_stored_proposals_in_crowds_are_left_out_as_the_key_says():
    """Crowd filter of precomputed proposals: more than 0.7 of a proposal's area inside a crowd."""
    assert build("fast_rcnn").regions.crowd_threshold == 0.7
    assert build("fast_rcnn", TRAIN__CROWD_FILTER_THRESH=0).regions.crowd_threshold is None
    assert build("faster_rcnn").regions.crowd_threshold is None


def test_a_user_may_leave_the_proposal_network_out_of_a_faster_rcnn_by_the_command_line():
    cfg = load_config(None, ["MODEL.RPN_ONLY", "True"])
    assert cfg.RPN.RPN_ON and not cfg.TEST.PRECOMPUTED_PROPOSALS
