# SPDX-License-Identifier: Apache-2.0
"""Keys of the imbalance kit (docs/imbalance.md): one switch, KIND, per slot; the defaults are plain Detectron."""

from dataclasses import dataclass

from detectron_libra.config.fields import key


@dataclass(frozen=True)
class Sampler:
    """How often an epoch has each image."""

    KIND: str = key(
        "plain",
        "plain: once; repeat_factor: more often where a class is rare (arXiv:1908.03195).",
        choices=("plain", "repeat_factor"),
    )
    THRESHOLD: float = key(0.001, "repeat_factor: share of images that a class should be in.", above=0, max=1)


@dataclass(frozen=True)
class Assigner:
    """Which anchors learn which ground truth, in a RetinaNet and in an RPN."""

    KIND: str = key(
        "iou",
        "iou: by thresholds of IoU; atss: by a threshold of each ground truth's own (arXiv:1912.02424).",
        choices=("iou", "atss"),
    )
    TOP_K: int = key(9, "atss: nearest cells per level whose anchors are candidates.", min=1)


@dataclass(frozen=True)
class ClassWeights:
    """Factors of the classes in the classification loss, counted from the boxes of the training sets."""

    KIND: str = key(
        "none",
        "Weight of a class with n boxes: 1 / n, 1 / sqrt(n) or (1 - BETA) / (1 - BETA^n) (arXiv:1901.05555); "
        "their mean is 1.",
        choices=("none", "inverse", "square_root", "effective_number"),
    )
    BETA: float = key(0.999, "effective_number: the larger, the closer to 1 / n.", min=0, max=0.9999999)


@dataclass(frozen=True)
class Classifier:
    """The loss of the classes."""

    KIND: str = key(
        "plain",
        "plain: focal loss of a RetinaNet, cross entropy of the Fast R-CNN head; seesaw: the head's, for long-tailed "
        "classes (arXiv:2008.10032).",
        choices=("plain", "seesaw"),
    )
    P: float = key(0.8, "seesaw: how much rarer classes are spared by more frequent ones.", min=0)
    Q: float = key(2.0, "seesaw: how much classes that score too high are held down all the same.", min=0)


@dataclass(frozen=True)
class Box:
    """The loss of the final boxes; that of an RPN stays smooth L1."""

    KIND: str = key(
        "plain",
        "plain: smooth L1, or balanced L1 where LIBRA.BALANCED_L1.ON; giou: 1 - generalised IoU (arXiv:1902.09630).",
        choices=("plain", "giou"),
    )
