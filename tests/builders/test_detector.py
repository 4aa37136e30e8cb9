# SPDX-License-Identifier: Apache-2.0
"""Configuration to detector: Libra off is the plain model, each switch changes its part, refusals name a key."""

import math

import pytest
import torch

from detectron_libra.builders.detector import build_detector, loss_weights
from detectron_libra.errors import UsageError
from detectron_libra.geometry import GEOMETRIES
from detectron_libra.modeling.heads.fast_rcnn import TwoMLPHead, XConvFCHead
from detectron_libra.modeling.losses import BalancedL1Loss, SmoothL1Loss
from detectron_libra.modeling.sampling import InstanceSampling, IoUSampling, UniformSampling
from tests.builders.small import KINDS, config, libra
from tests.modeling.scenes import batch, targets


def build(kind, **changes):
    torch.manual_seed(0)
    cfg = config(kind, **changes)
    return build_detector(cfg, cfg.MODEL.NUM_CLASSES)


def parts(model):
    """What the Libra keys may change, by name."""
    two_stage = hasattr(model, "regions")
    owner = model.regions if two_stage else model
    dense = getattr(model, "rule", None)
    return {
        "box loss": repr(getattr(owner, "box_loss", SmoothL1Loss(beta=1.0))),
        "pyramid": repr(model.balance),
        "sampling of negatives": model.regions.sampling.negatives if two_stage else dense and dense.negatives,
        "sampling of positives": model.regions.sampling.positives if two_stage else None,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_libra_is_off_by_default_and_the_model_is_detectrons(kind):
    found = parts(build(kind))
    assert found["box loss"].startswith("SmoothL1Loss") and found["pyramid"] == "None"
    assert found["sampling of negatives"] in (None, UniformSampling())
    assert found["sampling of positives"] in (None, UniformSampling())


@pytest.mark.parametrize(
    ("kind", "changes", "part"),
    [
        ("retinanet", {"LIBRA__BALANCED_L1__ON": True}, "box loss"),
        ("retinanet", {"LIBRA__PYRAMID__ON": True}, "pyramid"),
        (
            "retinanet",
            {"LIBRA__IOU_SAMPLING__ON": True, "LIBRA__IOU_SAMPLING__NEGATIVES_PER_IM": 9},
            "sampling of negatives",
        ),
        ("faster_rcnn", {"LIBRA__BALANCED_L1__ON": True}, "box loss"),
        ("faster_rcnn", {"LIBRA__PYRAMID__ON": True}, "pyramid"),
        ("faster_rcnn", {"LIBRA__IOU_SAMPLING__ON": True}, "sampling of negatives"),
        ("faster_rcnn", {"LIBRA__INSTANCE_SAMPLING__ON": True}, "sampling of positives"),
    ],
)
def test_each_switch_changes_exactly_its_part(kind, changes, part):
    plain, changed = build(kind), build(kind, **changes)
    before, after = parts(plain), parts(changed)
    assert [name for name in before if before[name] != after[name]] == [part]
    names = {name for name in changed.state_dict() if not name.startswith("balance.")}
    assert names == set(plain.state_dict())


def test_keys_of_the_parts_arrive():
    model = build(
        "faster_rcnn",
        LIBRA__BALANCED_L1__ON=True,
        LIBRA__BALANCED_L1__ALPHA=0.25,
        LIBRA__BALANCED_L1__GAMMA=1.0,
        LIBRA__BALANCED_L1__BETA=0.5,
        LIBRA__BALANCED_L1__FORM="released",
        LIBRA__IOU_SAMPLING__ON=True,
        LIBRA__IOU_SAMPLING__BINS=5,
        LIBRA__IOU_SAMPLING__FLOOR=0.1,
        LIBRA__IOU_SAMPLING__FLOOR_FRACTION=0.2,
        LIBRA__IOU_SAMPLING__FORM="released",
        LIBRA__INSTANCE_SAMPLING__ON=True,
        LIBRA__INSTANCE_SAMPLING__FORM="released",
    )
    loss, sampling = model.regions.box_loss, model.regions.sampling
    assert isinstance(loss, BalancedL1Loss)
    assert (loss.alpha, loss.gamma, loss.beta, loss.form) == (0.25, 1.0, 0.5, "released")
    assert sampling.negatives == IoUSampling(bins=5, floor=0.1, floor_fraction=0.2, form="released")
    assert sampling.positives == InstanceSampling(form="released")


def test_the_proposal_network_keeps_smooth_l1_whatever_libra_says():
    """Also in the published models: its beta is Detectron's 1/9."""
    for changes in ({}, {"LIBRA__BALANCED_L1__ON": True}):
        loss = build("faster_rcnn", **changes).rpn_box_loss
        assert isinstance(loss, SmoothL1Loss) and loss.beta == 1 / 9


def test_betas_of_smooth_l1_are_detectrons():
    assert build("retinanet").box_loss.beta == 0.11
    assert build("retinanet", RETINANET__BBOX_REG_BETA=0.3).box_loss.beta == 0.3
    assert build("faster_rcnn").regions.box_loss.beta == 1.0


def test_positives_learn_boxes_from_their_own_overlap_on():
    """The rule: positive from FG_THRESH on, boxes from BBOX_THRESH on, which are 0.5 both where nothing is said."""
    scene = batch([(64, 96)], targets([(8, 8, 40, 40, 1), (30, 4, 90, 60, 2)]))
    positive = {"TRAIN__FG_THRESH": 0.05, "TRAIN__BG_THRESH_HI": 0.05}
    losses = {}
    for threshold in (0.05, 0.99):
        model = build("faster_rcnn", TRAIN__BBOX_THRESH=threshold, **positive)
        losses[threshold], metrics = model(scene)
        assert metrics["num_fg"] > 2
    assert build("faster_rcnn").regions.box_threshold == 0.5
    assert losses[0.05]["cls"] == losses[0.99]["cls"]
    assert losses[0.99]["bbox"] < 0.9 * losses[0.05]["bbox"]


def test_negatives_per_image_arrive():
    cfg = libra("retinanet")
    negatives = build_detector(cfg, 4).rule.negatives
    assert negatives.per_image == 50 and negatives.sampler == IoUSampling()


@pytest.mark.parametrize("prior", [0.01, 0.2])
def test_class_biases_start_at_the_prior(prior):
    """-log((1 - p) / p): an untrained head scores p everywhere (-4.595 for 0.01)."""
    head = build("retinanet", RETINANET__PRIOR_PROB=prior).head
    torch.testing.assert_close(head.cls_pred.bias.sigmoid(), torch.full((27,), prior))
    assert not head.box_pred.bias.any()


def test_softmax_biases_only_the_background():
    """log(C' (1 - p) / p) for the background, 0 for the others: p is shared by all classes."""
    bias = build("retinanet", RETINANET__SOFTMAX=True).head.cls_pred.bias.view(9, 4)
    assert bias[:, 0].tolist() == pytest.approx([math.log(3 * 0.99 / 0.01)] * 9) and not bias[:, 1:].any()
    torch.testing.assert_close(bias.softmax(1)[:, 1:].sum(1), torch.full((9,), 0.01))


def test_head_weights_are_drawn_as_detectron_does():
    """The rules: towers, RPN and cls_score N(0, 0.01), bbox_pred N(0, 0.001); fc6 XavierFill, +-sqrt(3 / fan_in);
    convolutions of a head on regions MSRAFill, N(0, sqrt(2 / fan_out)).
    """
    head = build("retinanet", FPN__DIM=64).head
    for layer in (head.cls_pred, head.box_pred, head.cls_tower[0], head.box_tower[0]):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
    model = build("faster_rcnn", FAST_RCNN__MLP_HEAD_DIM=256, FPN__DIM=64)
    fc6, predictor = model.regions.head.fc6, model.regions.predictor
    assert fc6.weight.abs().max().item() == pytest.approx(math.sqrt(3 / fc6.in_features), rel=0.01)
    assert predictor.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert predictor.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert model.rpn.conv.weight.std().item() == pytest.approx(0.01, rel=0.1)
    convs = {
        "FAST_RCNN__ROI_BOX_HEAD": "fast_rcnn_heads.add_roi_Xconv1fc_head",
        "FAST_RCNN__CONV_HEAD_DIM": 64,
    }
    conv = build("faster_rcnn", FPN__DIM=64, **convs).regions.head.convs[0]
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.1)


def test_a_shared_tower_has_no_second():
    assert build("retinanet", RETINANET__SHARE_CLS_BBOX_TOWER=True).head.box_tower is None


def test_loss_weights_multiply_detectrons_own():
    """LOSS.WEIGHTS.BBOX x RETINANET.BBOX_REG_WEIGHT."""
    cfg = config("retinanet", LOSS__WEIGHTS__BBOX=3.0, RETINANET__BBOX_REG_WEIGHT=2.0, LOSS__WEIGHTS__CLS=0.5)
    assert loss_weights(cfg) == {"cls": 0.5, "bbox": 6.0}
    cfg = config("faster_rcnn", LOSS__WEIGHTS__RPN_CLS=4.0, LOSS__WEIGHTS__RPN_BBOX=5.0)
    assert loss_weights(cfg) == {"cls": 1.0, "bbox": 1.0, "rpn_cls": 4.0, "rpn_bbox": 5.0}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_geometry_reaches_every_part(name):
    model = build("faster_rcnn", MODEL__BOX_GEOMETRY=name)
    geometry = GEOMETRIES[name]
    for owner in (model.rpn_rule, model.train_proposals, model.test_proposals, model.regions.detection):
        assert owner.geometry is geometry
    assert model.rpn_rule.assignment == geometry.rules
    centre = model.anchors.bases[0].view(-1, 2, 2).mean(1)
    assert (centre == (1.5 if geometry.round_anchors else 0.0)).all()
    # Detectron trains crowds as background.
    assert (model.regions.crowd_threshold is None) == (name == "detectron")
    dense = build("retinanet", MODEL__BOX_GEOMETRY=name)
    assert dense.rule.geometry is geometry and dense.rule.assignment == geometry.rules
    assert (dense.rule.crowd_threshold is None) == (name == "detectron")


def test_the_batch_quirk_is_in_training_alone():
    model = build("faster_rcnn")
    assert model.train_proposals.per_batch and not model.test_proposals.per_batch
    assert (model.train_proposals.post_nms_top_n, model.test_proposals.post_nms_top_n) == (60, 20)


def test_the_padding_quirk_is_at_test_time_alone_and_of_pyramids():
    """The rule: without a pyramid nothing is padded, and in training boxes end at the image."""
    model = build("faster_rcnn")
    assert (model.train_proposals.frame_stride, model.test_proposals.frame_stride) == (1, 32)
    for other in (build("faster_rcnn", MODEL__BOX_GEOMETRY="continuous"), build("c4")):
        assert (other.train_proposals.frame_stride, other.test_proposals.frame_stride) == (1, 1)


def test_zero_means_every_box():
    model = build("faster_rcnn", TEST__DETECTIONS_PER_IM=0, TRAIN__RPN_PRE_NMS_TOP_N=0)
    assert model.regions.detection.detections_per_image > 10**6
    assert model.train_proposals.pre_nms_top_n > 10**6


@pytest.mark.parametrize("module", ["fast_rcnn_heads", "head_builder"])
def test_box_heads_by_detectrons_names_old_and_new(module):
    changes = {"FAST_RCNN__NUM_STACKED_CONVS": 2, "FAST_RCNN__CONV_HEAD_DIM": 8}
    for name, kind, norm in [
        ("add_roi_2mlp_head", TwoMLPHead, None),
        ("add_roi_Xconv1fc_head", XConvFCHead, torch.nn.Identity),
        ("add_roi_Xconv1fc_gn_head", XConvFCHead, torch.nn.GroupNorm),
    ]:
        head = build("faster_rcnn", FAST_RCNN__ROI_BOX_HEAD=f"{module}.{name}", **changes).regions.head
        assert isinstance(head, kind)
        assert head(torch.randn(5, 16, 3, 3)).shape == (5, 32)
        assert norm is None or isinstance(head.convs[1], norm)


def test_class_agnostic_boxes_have_two_columns():
    predictor = build("faster_rcnn", MODEL__CLS_AGNOSTIC_BBOX_REG=True).regions.predictor
    logits, deltas = predictor(torch.randn(5, 32))
    assert logits.shape == (5, 4) and deltas.shape == (5, 2, 4)


@pytest.mark.parametrize(
    ("kind", "changes", "key"),
    [
        ("faster_rcnn", {"FAST_RCNN__ROI_BOX_HEAD": "my.head"}, "FAST_RCNN.ROI_BOX_HEAD"),
        ("faster_rcnn", {"FAST_RCNN__ROI_XFORM_METHOD": "RoIPoolF"}, "FAST_RCNN.ROI_XFORM_METHOD"),
        ("faster_rcnn", {"FPN__RPN_MIN_LEVEL": 3}, "FPN.RPN_MIN_LEVEL"),
        ("faster_rcnn", {"FPN__MULTILEVEL_RPN": False}, "FPN.MULTILEVEL_RPN"),
        ("faster_rcnn", {"FPN__MULTILEVEL_ROIS": False}, "FPN.MULTILEVEL_ROIS"),
        ("retinanet", {"FPN__MULTILEVEL_ROIS": True}, "FPN.RPN_MIN_LEVEL"),
        ("faster_rcnn", {"FPN__ROI_MIN_LEVEL": 3}, "FPN.ROI_MIN_LEVEL"),
        ("faster_rcnn", {"FPN__FPN_ON": False}, "FPN.FPN_ON"),
        ("faster_rcnn", {"MODEL__FASTER_RCNN": False, "FAST_RCNN__ROI_BOX_HEAD": ""}, "MODEL.FASTER_RCNN"),
        ("faster_rcnn", {"MODEL__CONV_BODY": "FPN.add_fpn_resnet18_conv4_body"}, "MODEL.CONV_BODY"),
        ("faster_rcnn", {"MODEL__CONV_BODY": "FPN.add_fpn_resnet18_conv5_P2only_body"}, "MODEL.CONV_BODY"),
        ("c4", {"FPN__FPN_ON": True}, "FPN.FPN_ON"),
        ("c4", {"RPN__STRIDE": 32}, "RPN.STRIDE"),
        ("c4", {"FAST_RCNN__ROI_XFORM_RESOLUTION": 6}, "FAST_RCNN.ROI_XFORM_RESOLUTION"),
        ("faster_rcnn", {"FAST_RCNN__ROI_BOX_HEAD": "ResNet.add_ResNet_roi_conv5_head"}, "MODEL.CONV_BODY"),
        ("retinanet", {"RETINANET__CLASS_SPECIFIC_BBOX": True}, "RETINANET.CLASS_SPECIFIC_BBOX"),
    ],
)
def test_what_there_is_not_is_refused_by_its_key(kind, changes, key):
    with pytest.raises(UsageError, match=key.replace(".", r"\.")) as error:
        build(kind, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_norm_has_the_channels_per_group_that_are_asked_for(kind):
    """Detectron's rule (get_group_gn): DIM_PER_GP channels a group, or NUM_GROUPS groups; one of them is -1."""
    head = "fast_rcnn_heads.add_roi_Xconv1fc_gn_head"
    changes = {"RESNETS__NORM": "group", "FPN__USE_GN": True, "RETINANET__HEAD_NORM": "group"}
    changes |= {"FAST_RCNN__ROI_BOX_HEAD": head, "FAST_RCNN__CONV_HEAD_DIM": 12, "GROUP_NORM__EPSILON": 1e-3}
    sizes = {"GROUP_NORM__DIM_PER_GP": 4, "GROUP_NORM__NUM_GROUPS": -1}
    for more, size in ((sizes, lambda c: 4), ({"GROUP_NORM__NUM_GROUPS": 4}, lambda c: c // 4)):
        norms = [m for m in build(kind, **changes, **more).modules() if isinstance(m, torch.nn.GroupNorm)]
        assert len(norms) > 10 and {m.num_channels // m.num_groups for m in norms if m.eps == 1e-3} == {
            size(m.num_channels) for m in norms
        }


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (
            {"GROUP_NORM__DIM_PER_GP": 3, "GROUP_NORM__NUM_GROUPS": -1, "RESNETS__NORM": "group"},
            "GROUP_NORM.DIM_PER_GP: 3 does not divide 8 channels",
        ),
        ({"RESNETS__NUM_GROUPS": 32}, "RESNETS.NUM_GROUPS"),
        (
            {"MODEL__CONV_BODY": "FPN.add_fpn_ResNeXt101_32x8d_conv5_body", "RESNETS__NUM_GROUPS": 64},
            "RESNETS.NUM_GROUPS",
        ),
    ],
)
def test_what_a_backbone_cannot_be_is_refused_by_key(changes, key):
    with pytest.raises(UsageError, match=key):
        build_detector(config("retinanet", **changes), 4)


def test_a_frozen_body_is_frozen_up_to_the_pyramid():
    model = build_detector(libra("faster_rcnn", TRAIN__FREEZE_CONV_BODY=True), 4)
    parts = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert parts == {"balance", "rpn", "regions"}


def test_the_relu_between_p6_and_p7_can_be_left_out():
    assert build_detector(config("retinanet"), 4).neck.extra_relu
    assert not build_detector(config("retinanet", FPN__EXTRA_RELU=False), 4).neck.extra_relu
