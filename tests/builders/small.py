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
#: The same on stage 4, with stage 5 as the head.
C4 = FASTER_RCNN | {
    "MODEL.CONV_BODY": "ResNet.add_resnet18_conv4_body",
    "FPN.FPN_ON": "False",
    "RPN.SIZES": "(32, 64)",
    "FAST_RCNN.ROI_BOX_HEAD": "ResNet.add_ResNet_roi_conv5_head",
    "FAST_RCNN.ROI_XFORM_RESOLUTION": "14",
    "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO": "0",
}
RPN_ONLY = FASTER_RCNN | {
    "MODEL.FASTER_RCNN": "False",
    "MODEL.RPN_ONLY": "True",
    "FPN.MULTILEVEL_ROIS": "False",
}
FAST_RCNN = FASTER_RCNN | {"MODEL.FASTER_RCNN": "False", "FPN.MULTILEVEL_RPN": "False"}
KINDS = {
    "retinanet": RETINANET,
    "faster_rcnn": FASTER_RCNN,
    "c4": C4,
    "rpn_only": RPN_ONLY,
    "fast_rcnn": FAST_RCNN,
}
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
    "c4": {"LIBRA.BALANCED_L1.ON": "True", "LIBRA.IOU_SAMPLING.ON": "True"},
    "rpn_only": {"LIBRA.PYRAMID.ON": "True"},
    "fast_rcnn": {"LIBRA.BALANCED_L1.ON": "True", "LIBRA.PYRAMID.ON": "True"},
}


def config(kind, **changes):
    """The configuration of ``kind``; ``__`` in a name stands for a dot."""
    values = KINDS[kind] | {name.replace("__", "."): str(value) for name, value in changes.items()}
    return load_config(None, [part for pair in values.items() for part in pair])


def libra(kind, **changes):
    """As ``config``, with all parts of Libra."""
    return config(kind, **{name.replace(".", "__"): v for name, v in LIBRA[kind].items()}, **changes)
