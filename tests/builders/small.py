# SPDX-License-Identifier: Apache-2.0
"""Configurations of detectors that are small enough to run in a test."""

from detectron_libra.config import load_config

COMMON = {
    "MODEL.NUM_CLASSES": "4",
    "MODEL.CONV_BODY": "FPN.add_fpn_resnet18_conv5_body",
    "RESNETS.WIDTH": "8",
    "RESNETS.STAGE_BLOCKS": "(1, 1, 1, 1)",
    "FPN.FPN_ON": "True",
    "FPN.MULTILEVEL_RPN": "True",
    "FPN.DIM": "16",
}
RETINANET = COMMON | {
    "MODEL.TYPE": "retinanet",
    "RETINANET.RETINANET_ON": "True",
    "RETINANET.NUM_CONVS": "1",
    "FPN.RPN_MIN_LEVEL": "3",
    "FPN.RPN_MAX_LEVEL": "7",
    "FPN.EXTRA_CONV_LEVELS": "True",
}
FASTER_RCNN = COMMON | {
    "MODEL.TYPE": "generalized_rcnn",
    "MODEL.FASTER_RCNN": "True",
    "FPN.MULTILEVEL_ROIS": "True",
    "FAST_RCNN.ROI_BOX_HEAD": "fast_rcnn_heads.add_roi_2mlp_head",
    "FAST_RCNN.MLP_HEAD_DIM": "32",
    "FAST_RCNN.ROI_XFORM_METHOD": "RoIAlign",
    "FAST_RCNN.ROI_XFORM_RESOLUTION": "3",
    "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO": "2",
    "TRAIN.BATCH_SIZE_PER_IM": "32",
    "TRAIN.RPN_PRE_NMS_TOP_N": "100",
    "TRAIN.RPN_POST_NMS_TOP_N": "60",
    "TEST.RPN_PRE_NMS_TOP_N": "50",
    "TEST.RPN_POST_NMS_TOP_N": "20",
}
KINDS = {"retinanet": RETINANET, "faster_rcnn": FASTER_RCNN}
#: Every part of Libra that goes with the detector.
LIBRA = {
    "retinanet": {
        "LIBRA.BALANCED_L1.ON": "True",
        "LIBRA.PYRAMID.ON": "True",
        "LIBRA.IOU_SAMPLING.ON": "True",
        "LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM": "50",
    },
    "faster_rcnn": {
        "LIBRA.BALANCED_L1.ON": "True",
        "LIBRA.PYRAMID.ON": "True",
        "LIBRA.IOU_SAMPLING.ON": "True",
        "LIBRA.INSTANCE_SAMPLING.ON": "True",
    },
}


def config(kind, **changes):
    """The configuration of ``kind``; ``__`` in a name stands for a dot."""
    values = KINDS[kind] | {name.replace("__", "."): str(value) for name, value in changes.items()}
    return load_config(None, [part for pair in values.items() for part in pair])


def libra(kind, **changes):
    """As ``config``, with all parts of Libra."""
    return config(kind, **{name.replace(".", "__"): v for name, v in LIBRA[kind].items()}, **changes)
