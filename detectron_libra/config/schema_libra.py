# SPDX-License-Identifier: Apache-2.0
"""Keys of the Libra parts, all off unless switched on. Source: Pang et al., CVPR 2019, arXiv:1904.02701."""

from dataclasses import dataclass

from detectron_libra.config.fields import key, section
from detectron_libra.config.schema_imbalance import Box, Classifier, ClassWeights

FORMS = ("paper", "released")


@dataclass(frozen=True)
class BalancedL1:
    """Balanced L1 loss of box regression (Fast R-CNN and RetinaNet), section 3.3."""

    ON: bool = key(False, "Switch.")
    ALPHA: float = key(0.5, "Small values raise the gradient of inliers.", above=0)
    GAMMA: float = key(1.5, "Gradient of outliers.", above=0)
    BETA: float = key(1.0, "Where inliers end.", above=0)
    FORM: str = key("paper", "paper: smooth for any BETA; released: published code.", choices=FORMS)


@dataclass(frozen=True)
class Pyramid:
    """Balanced feature pyramid after the FPN, section 3.2."""

    ON: bool = key(False, "Switch.")
    REFINE: str = key(
        "non_local", "What refines the mean of the levels.", choices=("non_local", "conv", "none")
    )
    REFINE_LEVEL: int = key(4, "Level at which it is refined (4 is P4).", min=2)
    INIT: str = key(
        "zero",
        "zero: the refinement starts as identity; xavier: as published weights did.",
        choices=("zero", "xavier"),
    )
    ATTENTION: str = key(
        "auto", "How the non-local block is computed.", choices=("auto", "sdpa", "tiled", "explicit")
    )


@dataclass(frozen=True)
class IouSampling:
    """IoU-balanced choice of negatives, section 3.1."""

    ON: bool = key(False, "Switch.")
    BINS: int = key(3, "Intervals of IoU that get the same number of negatives.", min=1)
    FLOOR: float = key(
        -1.0, "Negatives below this IoU are a set of their own; -1: no such set.", min=-1, max=1
    )
    FLOOR_FRACTION: float = key(0.0, "Share of negatives from that set.", min=0, max=1)
    FORM: str = key(
        "paper", "paper: bins end at the negative threshold; released: published code.", choices=FORMS
    )
    NEGATIVES_PER_IM: int = key(0, "RetinaNet: negatives per image for the focal loss.", min=0)


@dataclass(frozen=True)
class InstanceSampling:
    """Positives shared evenly between ground-truth boxes (Fast R-CNN head)."""

    ON: bool = key(False, "Switch.")
    FORM: str = key("paper", "released: published code, which draws some positives twice.", choices=FORMS)


@dataclass(frozen=True)
class Libra:
    """Libra R-CNN, part by part."""

    BALANCED_L1: BalancedL1 = section(BalancedL1)
    PYRAMID: Pyramid = section(Pyramid)
    IOU_SAMPLING: IouSampling = section(IouSampling)
    INSTANCE_SAMPLING: InstanceSampling = section(InstanceSampling)


@dataclass(frozen=True)
class LossWeights:
    """Factors of the parts of the loss."""

    CLS: float = key(1.0, "Classification (focal loss, or the Fast R-CNN head's).", min=0)
    BBOX: float = key(1.0, "Box regression.", min=0)
    RPN_CLS: float = key(1.0, "Classification of the RPN.", min=0)
    RPN_BBOX: float = key(1.0, "Box regression of the RPN.", min=0)


@dataclass(frozen=True)
class Loss:
    """The loss."""

    WEIGHTS: LossWeights = section(LossWeights)
    CLASS_WEIGHTS: ClassWeights = section(ClassWeights)
    CLASSIFIER: Classifier = section(Classifier)
    BOX: Box = section(Box)
