# SPDX-License-Identifier: Apache-2.0
"""Keys of masks, keypoints and Caffe2: they parse, so that Detectron's files do, and have no effect."""

from dataclasses import dataclass

from detectron_libra.config.fields import key


def _unused(default):
    """A key that is accepted without effect."""
    return key(default, "Accepted, without effect.", unused=True)


@dataclass(frozen=True)
class MaskAug:
    """Masks from several versions of the image."""

    ENABLED: bool = _unused(False)
    HEUR: str = _unused("SOFT_AVG")
    H_FLIP: bool = _unused(False)
    SCALES: tuple = _unused(())
    MAX_SIZE: int = _unused(4000)
    SCALE_H_FLIP: bool = _unused(False)
    SCALE_SIZE_DEP: bool = _unused(False)
    AREA_TH: int = _unused(32400)
    ASPECT_RATIOS: tuple = _unused(())
    ASPECT_RATIO_H_FLIP: bool = _unused(False)


@dataclass(frozen=True)
class KpsAug:
    """Keypoints from several versions of the image."""

    ENABLED: bool = _unused(False)
    HEUR: str = _unused("HM_AVG")
    H_FLIP: bool = _unused(False)
    SCALES: tuple = _unused(())
    MAX_SIZE: int = _unused(4000)
    SCALE_H_FLIP: bool = _unused(False)
    SCALE_SIZE_DEP: bool = _unused(False)
    AREA_TH: int = _unused(32400)
    ASPECT_RATIOS: tuple = _unused(())
    ASPECT_RATIO_H_FLIP: bool = _unused(False)


@dataclass(frozen=True)
class Mrcnn:
    """Mask R-CNN."""

    ROI_MASK_HEAD: str = _unused("")
    RESOLUTION: int = _unused(14)
    ROI_XFORM_METHOD: str = _unused("RoIAlign")
    ROI_XFORM_RESOLUTION: int = _unused(7)
    ROI_XFORM_SAMPLING_RATIO: int = _unused(0)
    DIM_REDUCED: int = _unused(256)
    DILATION: int = _unused(2)
    UPSAMPLE_RATIO: int = _unused(1)
    USE_FC_OUTPUT: bool = _unused(False)
    CONV_INIT: str = _unused("GaussianFill")
    CLS_SPECIFIC_MASK: bool = _unused(True)
    WEIGHT_LOSS_MASK: float = _unused(1.0)
    THRESH_BINARIZE: float = _unused(0.5)


@dataclass(frozen=True)
class Krcnn:
    """Keypoints."""

    ROI_KEYPOINTS_HEAD: str = _unused("")
    HEATMAP_SIZE: int = _unused(-1)
    UP_SCALE: int = _unused(-1)
    USE_DECONV: bool = _unused(False)
    DECONV_DIM: int = _unused(256)
    USE_DECONV_OUTPUT: bool = _unused(False)
    DILATION: int = _unused(1)
    DECONV_KERNEL: int = _unused(4)
    NUM_KEYPOINTS: int = _unused(-1)
    NUM_STACKED_CONVS: int = _unused(8)
    CONV_HEAD_DIM: int = _unused(256)
    CONV_HEAD_KERNEL: int = _unused(3)
    CONV_INIT: str = _unused("GaussianFill")
    NMS_OKS: bool = _unused(False)
    KEYPOINT_CONFIDENCE: str = _unused("bbox")
    ROI_XFORM_METHOD: str = _unused("RoIAlign")
    ROI_XFORM_RESOLUTION: int = _unused(7)
    ROI_XFORM_SAMPLING_RATIO: int = _unused(0)
    MIN_KEYPOINT_COUNT_FOR_VALID_MINIBATCH: int = _unused(20)
    INFERENCE_MIN_SIZE: int = _unused(0)
    LOSS_WEIGHT: float = _unused(1.0)
    NORMALIZE_BY_VISIBLE_KEYPOINTS: bool = _unused(True)


@dataclass(frozen=True)
class Rfcn:
    """R-FCN."""

    PS_GRID_SIZE: int = _unused(3)


@dataclass(frozen=True)
class Cluster:
    """A cluster of Caffe2 machines."""

    ON_CLUSTER: bool = _unused(False)
