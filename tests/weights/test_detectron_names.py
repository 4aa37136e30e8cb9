# SPDX-License-Identifier: Apache-2.0
"""Our parameters and Detectron's blobs belong together one to one, in every kind of model."""

import pytest

from detectron_libra.weights.detectron_names import OURS, blob_names, our_names
from tests.weights import detectors

FPN_GN = {
    "FPN.USE_GN": "True",
    "RESNETS.STEM_FUNC": "basic_gn_stem",
    "RESNETS.TRANS_FUNC": "bottleneck_gn_transformation",
    "RESNETS.SHORTCUT_FUNC": "basic_gn_shortcut",
    "FAST_RCNN.ROI_BOX_HEAD": "fast_rcnn_heads.add_roi_Xconv1fc_gn_head",
}
CONV_HEAD = {"FAST_RCNN.ROI_BOX_HEAD": "fast_rcnn_heads.add_roi_Xconv1fc_head"}
FAST_RCNN = {"MODEL.FASTER_RCNN": "False", "FPN.MULTILEVEL_RPN": "False"}
LIBRA = {"LIBRA.PYRAMID.ON": "True"}
BATCH = {"RESNETS.NORM": "batch", "FPN.NORM": "batch", "RETINANET.HEAD_NORM": "batch"}
BODY = "MODEL.CONV_BODY"

#: Models without a table: configuration, changes, and blobs that their names must include.
OTHERS = {
    "R-101": (
        "faster_rcnn_R-101-FPN_1x.yaml",
        {},
        ("fpn_inner_res4_22_sum_lateral_w", "res4_22_branch2c_bn_b"),
    ),
    "R-152": (
        "faster_rcnn_R-50-FPN_1x.yaml",
        {BODY: "FPN.add_fpn_ResNet152_conv5_body"},
        ("fpn_res4_35_sum_b", "fpn_inner_res3_7_sum_lateral_w"),
    ),
    "X-101": ("retinanet_X-101-64x4d-FPN_1x.yaml", {}, ("res5_2_branch2b_w",)),
    "R-18": (
        "retinanet_R-50-FPN_1x.yaml",
        {BODY: "FPN.add_fpn_ResNet18_conv5_body"},
        ("fpn_inner_res5_1_sum_w",),
    ),
    "GN": (
        "faster_rcnn_R-50-FPN_1x.yaml",
        FPN_GN,
        (
            "conv1_gn_s",
            "res2_0_branch1_gn_b",
            "fpn_inner_res5_2_sum_gn_s",
            "fpn_inner_res2_2_sum_lateral_gn_b",
            "fpn_res3_3_sum_gn_s",
            "head_conv4_gn_b",
            "head_conv1_w",
            "fc6_w",
        ),
    ),
    "conv head": ("faster_rcnn_R-50-FPN_1x.yaml", CONV_HEAD, ("head_conv1_b", "head_conv4_w", "fc6_b")),
    "Fast R-CNN": ("faster_rcnn_R-50-FPN_1x.yaml", FAST_RCNN, ("fc7_w", "cls_score_w")),
    "level 3": (
        "faster_rcnn_R-50-FPN_1x.yaml",
        {"FPN.RPN_MIN_LEVEL": "3", "FPN.ROI_MIN_LEVEL": "3"},
        ("conv_rpn_fpn3_w", "rpn_bbox_pred_fpn3_b"),
    ),
    "level 4": ("retinanet_R-50-FPN_1x.yaml", {"FPN.RPN_MIN_LEVEL": "4"}, ("retnet_bbox_pred_fpn4_b",)),
    "shared tower": ("retinanet_R-50-FPN_1x.yaml", {"RETINANET.SHARE_CLS_BBOX_TOWER": "True"}, ()),
    "softmax": ("retinanet_R-50-FPN_1x.yaml", {"RETINANET.SOFTMAX": "True"}, ("retnet_cls_pred_fpn3_w",)),
}


def marks(model, names):
    """Blob -> (shape, mark) of a model, as the tables give it."""
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    parameters = {n for n, _ in model.named_parameters()}
    mark = {n: "t" if n in trained else "f" if n in parameters else "a" for n in names}
    return {names[n]: (tuple(t.shape), mark[n]) for n, t in model.state_dict().items()}


def shapes(model, names):
    return {names[n]: tuple(t.shape) for n, t in model.state_dict().items()}


def model_and_names(base, changes):
    model = detectors.build(base, changes)
    return model, blob_names(model.state_dict(), norm="gn" if changes is FPN_GN else "bn")


@pytest.mark.parametrize("name", detectors.LISTED)
def test_listed_models_have_exactly_the_blobs_of_detectron(name):
    """Names, shapes and what is trained are those of the table, and both ways lead back."""
    model, names = model_and_names(*detectors.LISTED[name])
    assert marks(model, names) == detectors.table(name)
    assert our_names(shapes(model, names)) == {blob: ours for ours, blob in names.items()}


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_of_detectron_map_one_to_one(name):
    base, changes, expected = OTHERS[name]
    model, names = model_and_names(base, changes)
    assert not [blob for blob in names.values() if blob.startswith(OURS)]
    assert set(expected) <= set(names.values())
    assert len(set(names.values())) == len(names)
    assert our_names(shapes(model, names)) == {blob: ours for ours, blob in names.items()}


@pytest.mark.parametrize(
    ("base", "changes", "part"),
    [
        ("faster_rcnn_R-50-FPN_1x.yaml", LIBRA, "balance."),
        ("retinanet_R-50-FPN_1x.yaml", BATCH, ("backbone.", "neck.", "head.")),
    ],
)
def test_what_detectron_does_not_have_keeps_our_names_behind_a_prefix(base, changes, part):
    """An affine of Detectron is no BatchNorm: such layers must not be taken for one."""
    model, names = model_and_names(base, changes)
    own = {ours: blob for ours, blob in names.items() if blob.startswith(OURS)}
    assert own and all(blob == OURS + ours and ours.startswith(part) for ours, blob in own.items())
    assert {n for n in names if "norm" in n and changes is BATCH} <= set(own)
    assert our_names(shapes(model, names)) == {blob: ours for ours, blob in names.items()}


def test_no_name_of_ours_has_a_slash_since_detectron_cuts_names_there():
    _, names = model_and_names("faster_rcnn_R-50-FPN_1x.yaml", LIBRA)
    assert not [blob for blob in names.values() if "/" in blob]


def test_imagenet_weights_are_a_whole_backbone():
    """Their conv biases, the classifier and blobs of other heads have no place in our models."""
    body = {b: s for b, (s, _) in detectors.table("rpn_R-50-FPN").items() if "fpn" not in b}
    extra = {
        "fc1000_w": (1000, 2048),
        "conv1_b": (64,),
        "res2_0_branch2a_b": (64,),
        "_[mask]_fcn1_w": (256, 256, 3, 3),
    }
    found = our_names(body | extra)
    assert set(found) == set(body)
    assert found["res5_2_branch2c_bn_s"] == "backbone.res5.2.norm3.weight"


def test_stage_5_of_a_proposal_network_on_stage_4_is_only_carried():
    blobs = {
        b: s
        for b, (s, _) in detectors.table("faster_rcnn_R-50-C4").items()
        if not b.startswith(("cls", "bbox"))
    }
    blobs["conv_rpn_w"] = (1024, 1024, 3, 3)
    found = our_names(blobs)
    assert "rpn.conv.weight" in found.values() and not [b for b in found if b.startswith("res5")]
    blobs["conv_rpn_w"] = (1024, 2048, 3, 3)
    assert our_names(blobs)["res5_0_branch1_w"] == "backbone.res5.0.shortcut.weight"


def test_a_name_cannot_ask_for_millions_of_layers():
    wild = (
        "res2_999999999_branch2a_w",
        "retnet_cls_conv_n999999999_fpn3_w",
        "head_conv999999999_w",
        "res9_1_branch1_w",
    )
    assert our_names(dict.fromkeys(("conv1_w", *wild), (1,))) == {"conv1_w": "backbone.stem.conv.weight"}
