# SPDX-License-Identifier: Apache-2.0
"""Keys of the model: detector, backbone, pyramid, heads."""

from dataclasses import dataclass

from detectron_libra.config.fields import key


@dataclass(frozen=True)
class Model:
    """Which detector."""

    TYPE: str = key(
        "", "retinanet, generalized_rcnn or one of Detectron's older names; names the output folder."
    )
    CONV_BODY: str = key("", "Backbone and pyramid, e.g. FPN.add_fpn_ResNet50_conv5_body.")
    NUM_CLASSES: int = key(-1, "Classes with the background; -1: from the training set's categories.", min=-1)
    CLS_AGNOSTIC_BBOX_REG: bool = key(False, "One box for all classes (Fast R-CNN).")
    BBOX_REG_WEIGHTS: tuple[float, ...] = key(
        (10.0, 10.0, 5.0, 5.0), "Factors of the box deltas (Fast R-CNN).", of=float, length=4, above=0
    )
    FASTER_RCNN: bool = key(False, "Proposals come from an RPN that is trained with the head.")
    MASK_ON: bool = key(False, "Masks: not available here, must be False.")
    KEYPOINTS_ON: bool = key(False, "Keypoints: not available here, must be False.")
    RPN_ONLY: bool = key(False, "Only proposals.")
    EXECUTION_TYPE: str = key("dag", "Caffe2's scheduler.", unused=True)
    BOX_GEOMETRY: str = key(
        "detectron",
        "Box width: detectron x2-x1+1, as released Detectron weights need; continuous x2-x1; torchvision x2-x1 "
        "with the anchors and RoIAlign of its detectors.",
        choices=("detectron", "continuous", "torchvision"),
    )


@dataclass(frozen=True)
class Retinanet:
    """RetinaNet: anchors, head, losses."""

    RETINANET_ON: bool = key(False, "The detector is a RetinaNet.")
    ASPECT_RATIOS: tuple[float, ...] = key(
        (0.5, 1.0, 2.0), "Height over width; the order is that of the output channels.", of=float, above=0
    )
    SCALES_PER_OCTAVE: int = key(3, "Anchor sizes per level and ratio.", min=1)
    ANCHOR_SCALE: int = key(4, "Smallest anchor of a level over its stride.", min=1)
    NUM_CONVS: int = key(4, "Convolutions of each tower.", min=0)
    BBOX_REG_WEIGHT: float = key(1.0, "Factor of the box loss; multiplies with LOSS.WEIGHTS.BBOX.", min=0)
    BBOX_REG_BETA: float = key(0.11, "Where smooth L1 turns linear.", above=0)
    PRE_NMS_TOP_N: int = key(1000, "Best scores kept per level before NMS.", min=1)
    POSITIVE_OVERLAP: float = key(0.5, "An anchor is positive from this IoU on.", min=0, max=1)
    NEGATIVE_OVERLAP: float = key(0.4, "An anchor is negative below this IoU.", min=0, max=1)
    LOSS_ALPHA: float = key(0.25, "Weight of positives in the focal loss.", min=0, max=1)
    LOSS_GAMMA: float = key(2.0, "Exponent of the focal loss.", min=0)
    PRIOR_PROB: float = key(0.01, "Score that an untrained head gives.", above=0, max=0.999)
    SHARE_CLS_BBOX_TOWER: bool = key(False, "One tower for scores and boxes.")
    CLASS_SPECIFIC_BBOX: bool = key(False, "A box per class.")
    SOFTMAX: bool = key(False, "Softmax over classes and background instead of sigmoids.")
    INFERENCE_TH: float = key(
        0.05, "Scores below are dropped, but at the coarsest level of geometry `detectron`.", min=0, max=1
    )
    HEAD_NORM: str = key("none", "Normalisation in the towers.", choices=("none", "group", "batch"))
    HEAD_DIM: int = key(0, "Channels of the towers; 0: FPN.DIM.", min=0)


@dataclass(frozen=True)
class FastRcnn:
    """The Fast R-CNN head."""

    ROI_BOX_HEAD: str = key("", "Head, e.g. fast_rcnn_heads.add_roi_2mlp_head.")
    MLP_HEAD_DIM: int = key(1024, "Width of its fully connected layers.", min=1)
    CONV_HEAD_DIM: int = key(256, "Channels of its convolutions.", min=1)
    NUM_STACKED_CONVS: int = key(4, "Number of its convolutions.", min=0)
    ROI_XFORM_METHOD: str = key("RoIPoolF", "How features are cut out.", choices=("RoIPoolF", "RoIAlign"))
    ROI_XFORM_SAMPLING_RATIO: int = key(0, "Samples per bin and axis; 0: by the size of the box.", min=0)
    ROI_XFORM_RESOLUTION: int = key(14, "Bins per axis.", min=1)


@dataclass(frozen=True)
class Rpn:
    """The RPN on a single level (C4)."""

    RPN_ON: bool = key(False, "Inferred: True for MODEL.FASTER_RCNN and MODEL.RPN_ONLY.")
    SIZES: tuple[float, ...] = key((64, 128, 256, 512), "Sides of the anchors.", unit="px", of=float, above=0)
    STRIDE: int = key(16, "Stride of the level.", unit="px", min=1)
    ASPECT_RATIOS: tuple[float, ...] = key(
        (0.5, 1, 2), "Height over width of the anchors.", of=float, above=0
    )


@dataclass(frozen=True)
class Fpn:
    """The feature pyramid; level l has stride 2^l."""

    FPN_ON: bool = key(False, "Switch.")
    DIM: int = key(256, "Channels of every level.", min=1)
    ZERO_INIT_LATERAL: bool = key(False, "Lateral convolutions start at zero.")
    COARSEST_STRIDE: int = key(32, "Batches are padded to a multiple of it.", unit="px", min=1)
    MULTILEVEL_ROIS: bool = key(False, "The head reads the level that suits the box.")
    ROI_CANONICAL_SCALE: int = key(
        224, "Side of a box that belongs to the canonical level.", unit="px", min=1
    )
    ROI_CANONICAL_LEVEL: int = key(4, "The canonical level.", min=2)
    ROI_MAX_LEVEL: int = key(5, "Coarsest level of the head.", min=2)
    ROI_MIN_LEVEL: int = key(2, "Finest level of the head.", min=2, max=5)
    MULTILEVEL_RPN: bool = key(False, "Anchors on every level.")
    RPN_MAX_LEVEL: int = key(6, "Coarsest level with anchors.", min=2)
    RPN_MIN_LEVEL: int = key(2, "Finest level with anchors.", min=2, max=5)
    RPN_ASPECT_RATIOS: tuple[float, ...] = key(
        (0.5, 1, 2), "Height over width of anchors.", of=float, above=0
    )
    RPN_ANCHOR_START_SIZE: int = key(32, "Side of the anchors on the finest level.", unit="px", min=1)
    EXTRA_CONV_LEVELS: bool = key(
        False, "P6 and P7 are convolutions (see EXTRA_SOURCE); otherwise P6 is a sub-sampled P5."
    )
    EXTRA_SOURCE: str = key(
        "C5", "What P6 of EXTRA_CONV_LEVELS is a convolution of; torchvision's has P5.", choices=("C5", "P5")
    )
    EXTRA_RELU: bool = key(
        True, "ReLU between P6 and P7 of EXTRA_CONV_LEVELS; the released Libra RetinaNet has none."
    )
    USE_GN: bool = key(False, "GroupNorm in the pyramid.")
    NORM: str = key(
        "", "Normalisation in the pyramid; empty: as USE_GN says.", choices=("", "none", "group", "batch")
    )


@dataclass(frozen=True)
class Resnets:
    """ResNet and ResNeXt backbones."""

    NUM_GROUPS: int = key(1, "Groups of the 3x3 convolutions; more than 1: ResNeXt.", min=1)
    WIDTH_PER_GROUP: int = key(64, "Channels per group in res2.", min=1)
    STRIDE_1X1: bool = key(True, "The stride is in the first 1x1 convolution (MSRA weights).")
    TRANS_FUNC: str = key("bottleneck_transformation", "Kind of block; *_gn_* means GroupNorm.")
    STEM_FUNC: str = key("basic_bn_stem", "Kind of stem; *_gn_* means GroupNorm.")
    SHORTCUT_FUNC: str = key("basic_bn_shortcut", "Kind of shortcut; *_gn_* means GroupNorm.")
    RES5_DILATION: int = key(1, "Dilation of res5.", min=1)
    BLOCK: str = key(
        "", "Kind of block; empty: as MODEL.CONV_BODY says.", choices=("", "basic", "bottleneck")
    )
    STAGE_BLOCKS: tuple[int, ...] = key(
        (),
        "Blocks of res2 to res5, e.g. (3, 4, 6, 3); empty: as MODEL.CONV_BODY says.",
        of=int,
        length=4,
        min=1,
    )
    WIDTH: int = key(0, "Channels of the stem; 0: as MODEL.CONV_BODY says.", min=0)
    NORM: str = key(
        "",
        "Normalisation; affine is frozen BatchNorm; empty: group where the functions say gn, else affine.",
        choices=("", "affine", "batch", "group"),
    )


@dataclass(frozen=True)
class GroupNorm:
    """GroupNorm."""

    DIM_PER_GP: int = key(-1, "Channels per group, with NUM_GROUPS -1; -1: use NUM_GROUPS.", min=-1)
    NUM_GROUPS: int = key(32, "Groups; fewer where the channels are few; -1: use DIM_PER_GP.", min=-1)
    EPSILON: float = key(1e-5, "Added to the variance.", above=0)
