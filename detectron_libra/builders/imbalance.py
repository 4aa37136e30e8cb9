# SPDX-License-Identifier: Apache-2.0
"""Configuration to what goes into the slots of the imbalance kit; docs/imbalance.md tells how to add to one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from detectron_libra.builders.rules import box_loss, crowd_threshold, geometry_of
from detectron_libra.config.schema import Config
from detectron_libra.data.coco import Dataset
from detectron_libra.data.image_sampling import ImageSampler, RepeatFactor, count_boxes
from detectron_libra.modeling.atss import ATSS
from detectron_libra.modeling.class_losses import CrossEntropyLoss, FocalLoss
from detectron_libra.modeling.class_weights import class_weights
from detectron_libra.modeling.giou import GIoULoss
from detectron_libra.modeling.sampling import InstanceSampling, IoUSampling, UniformSampling
from detectron_libra.modeling.seesaw import SeesawLoss
from detectron_libra.modeling.slots import AnchorAssigner, BoxSampler, RegionClassLoss

#: What each name of a slot's KIND makes. None: what the detector does by itself.
IMAGE_SAMPLERS: dict[str, Callable[[Config], ImageSampler | None]] = {
    "plain": lambda cfg: None,
    "repeat_factor": lambda cfg: RepeatFactor(threshold=cfg.DATA.SAMPLER.THRESHOLD),
}
ASSIGNERS: dict[str, Callable[[Config], AnchorAssigner | None]] = {
    "iou": lambda cfg: None,
    "atss": lambda cfg: ATSS(
        top_k=cfg.ASSIGNER.TOP_K, extent=geometry_of(cfg).extent, crowd_threshold=crowd_threshold(cfg)
    ),
}
#: Of the negatives, and of the positives, that the final classes are learned from.
NEGATIVE_SAMPLERS: dict[str, Callable[[Config], BoxSampler]] = {
    "uniform": lambda cfg: UniformSampling(),
    "iou_balanced": lambda cfg: IoUSampling(
        bins=cfg.LIBRA.IOU_SAMPLING.BINS,
        floor=cfg.LIBRA.IOU_SAMPLING.FLOOR,
        floor_fraction=cfg.LIBRA.IOU_SAMPLING.FLOOR_FRACTION,
        form=cfg.LIBRA.IOU_SAMPLING.FORM,
    ),
}
POSITIVE_SAMPLERS: dict[str, Callable[[Config], BoxSampler]] = {
    "uniform": lambda cfg: UniformSampling(),
    "instance_balanced": lambda cfg: InstanceSampling(form=cfg.LIBRA.INSTANCE_SAMPLING.FORM),
}
#: Of the final boxes, given the beta of smooth L1.
BOX_LOSSES: dict[str, Callable[[Config, float], nn.Module]] = {
    "plain": box_loss,
    "giou": lambda cfg, beta: GIoULoss(
        clip=cfg.BBOX_XFORM_CLIP, clip_shrinking=geometry_of(cfg).clip_shrinking
    ),
}
#: Of a RetinaNet's classes and of the Fast R-CNN head's, given their number without background, and their weights.
#: A name that only one of them has is refused for the other by ``config.checks``.
DENSE_CLASS_LOSSES: dict[str, Callable[[Config, int, Tensor | None], nn.Module]] = {
    "plain": lambda cfg, classes, weights: FocalLoss(
        alpha=cfg.RETINANET.LOSS_ALPHA,
        gamma=cfg.RETINANET.LOSS_GAMMA,
        num_classes=classes,
        softmax=cfg.RETINANET.SOFTMAX,
        class_weight=weights,
    ),
}
REGION_CLASS_LOSSES: dict[str, Callable[[Config, int, Tensor | None], RegionClassLoss]] = {
    "plain": lambda cfg, classes, weights: CrossEntropyLoss(class_weight=weights),
    "seesaw": lambda cfg, classes, weights: SeesawLoss(
        num_classes=classes, p=cfg.LOSS.CLASSIFIER.P, q=cfg.LOSS.CLASSIFIER.Q
    ),
}
#: Names that switch nothing on.
PLAIN = ("plain", "none", "iou")


def image_sampler(cfg: Config) -> ImageSampler | None:
    """How often an epoch has each image; None: once."""
    return IMAGE_SAMPLERS[cfg.DATA.SAMPLER.KIND](cfg)


def anchor_assigner(cfg: Config) -> AnchorAssigner | None:
    """Which anchors learn what, of a RetinaNet or an RPN; None: the thresholds of IoU say."""
    return ASSIGNERS[cfg.ASSIGNER.KIND](cfg)


def negative_sampler(cfg: Config) -> BoxSampler:
    """How negatives are chosen where not all are learned from."""
    return NEGATIVE_SAMPLERS["iou_balanced" if cfg.LIBRA.IOU_SAMPLING.ON else "uniform"](cfg)


def positive_sampler(cfg: Config) -> BoxSampler:
    """How the second stage's positives are chosen."""
    return POSITIVE_SAMPLERS["instance_balanced" if cfg.LIBRA.INSTANCE_SAMPLING.ON else "uniform"](cfg)


def final_box_loss(cfg: Config, smooth_l1_beta: float) -> nn.Module:
    """The loss of the detector's final boxes."""
    return BOX_LOSSES[cfg.LOSS.BOX.KIND](cfg, smooth_l1_beta)


def dense_class_loss(cfg: Config, num_classes: int, class_counts: Tensor | None) -> nn.Module:
    """The loss of a RetinaNet's classes; arguments as for ``weights_of_classes``."""
    weights = weights_of_classes(cfg, num_classes, class_counts)
    return DENSE_CLASS_LOSSES[cfg.LOSS.CLASSIFIER.KIND](cfg, num_classes, weights)


def region_class_loss(cfg: Config, num_classes: int, class_counts: Tensor | None) -> RegionClassLoss:
    """The loss of the Fast R-CNN head's classes; arguments as for ``weights_of_classes``."""
    weights = weights_of_classes(cfg, num_classes, class_counts)
    return REGION_CLASS_LOSSES[cfg.LOSS.CLASSIFIER.KIND](cfg, num_classes, weights)


def weights_of_classes(cfg: Config, num_classes: int, class_counts: Tensor | None) -> Tensor | None:
    """Factor of each class in the classification loss.

    Args:
        num_classes: K, without background.
        class_counts: (K,) int64 boxes of each class in the training sets; None where the model is not going to be
            trained on any: the factors are then 1, or come with a checkpoint.

    Returns:
        (K,) float32; None where classes are not weighted.
    """
    keys = cfg.LOSS.CLASS_WEIGHTS
    if keys.KIND == "none":
        return None
    if class_counts is None:
        return torch.ones(num_classes)
    return class_weights(class_counts, keys.KIND, beta=keys.BETA)


def counts_of_classes(cfg: Config, datasets: Sequence[Dataset]) -> Tensor | None:
    """(K,) int64 boxes of each class in the sets, where something is weighted by them."""
    if cfg.LOSS.CLASS_WEIGHTS.KIND == "none":
        return None
    return torch.from_numpy(count_boxes(datasets))


def switched_on(cfg: Config) -> list[str]:
    """Names of what is in a slot beside the plain, for the log."""
    kinds = {
        "sampler": cfg.DATA.SAMPLER.KIND,
        "assigner": cfg.ASSIGNER.KIND,
        "class weights": cfg.LOSS.CLASS_WEIGHTS.KIND,
        "classifier": cfg.LOSS.CLASSIFIER.KIND,
        "box loss": cfg.LOSS.BOX.KIND,
    }
    return [f"{slot} {kind}" for slot, kind in kinds.items() if kind not in PLAIN]
