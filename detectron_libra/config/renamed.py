# SPDX-License-Identifier: Apache-2.0
"""Keys of older Detectron files. Source: its core/config.py, _DEPRECATED_KEYS and _RENAMED_KEYS."""

#: Keys that had an effect once; they are skipped with a warning.
DEPRECATED = frozenset(
    {
        "FINAL_MSG",
        "MODEL.DILATION",
        "ROOT_GPU_ID",
        "RPN.ON",
        "TRAIN.BBOX_NORMALIZE_TARGETS_PRECOMPUTED",
        "TRAIN.DROPOUT",
        "USE_GPU_NMS",
        "TEST.NUM_TEST_IMAGES",
    }
)

#: Keys that have another name now: old name -> (new name, hint on the value).
RENAMED = {
    "EXAMPLE.RENAMED.KEY": ("EXAMPLE.KEY", ""),
    "MODEL.PS_GRID_SIZE": ("RFCN.PS_GRID_SIZE", ""),
    "MODEL.ROI_HEAD": ("FAST_RCNN.ROI_BOX_HEAD", ""),
    "MRCNN.MASK_HEAD_NAME": ("MRCNN.ROI_MASK_HEAD", "e.g. mask_rcnn_heads.mask_rcnn_fcn_head_v1up4convs"),
    "TRAIN.DATASET": ("TRAIN.DATASETS", "a tuple, e.g. ('coco_2014_train',)"),
    "TRAIN.PROPOSAL_FILE": ("TRAIN.PROPOSAL_FILES", "a tuple of paths"),
    "TEST.SCALES": ("TEST.SCALE", "one whole number, e.g. 800"),
    "TEST.DATASET": ("TEST.DATASETS", "a tuple, e.g. ('coco_2014_minival',)"),
    "TEST.PROPOSAL_FILE": ("TEST.PROPOSAL_FILES", "a tuple of paths"),
}
