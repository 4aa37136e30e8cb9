# SPDX-License-Identifier: Apache-2.0
"""The recall of the configured anchors, and of other sizes of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from detectron_libra.analysis.anchor_recall import best_overlaps, recall_tables
from detectron_libra.analysis.inventory import Inventory
from detectron_libra.builders.anchors import anchor_levels, retinanet_anchors, rpn_anchors
from detectron_libra.builders.backbone import Features
from detectron_libra.config import Config, with_values
from detectron_libra.modeling.anchors import AnchorGrid

#: Sizes that are tried beside the configured one.
SCALES = (1, 2, 3, 4, 5, 6, 8)
START_SIZES = (8, 12, 16, 24, 32, 48, 64)
FACTORS = (0.25, 0.5, 2.0)
LEVEL_OF_C4 = 4
NO_ANCHORS = "Fast R-CNN has no anchors: its boxes are the stored proposals"


@dataclass(frozen=True)
class AnchorRecall:
    """What was found about anchors.

    Attributes:
        cfg: the configuration.
        key: of the anchors' size; "" where the detector has no anchors.
        current: its value.
        positive: IoU from which an anchor is positive.
        recalls: value -> share of the boxes covered at that IoU, mean over the classes.
    """

    cfg: Config
    key: str
    current: Any
    positive: float
    recalls: dict[Any, float]

    def tables(self, inventory: Inventory) -> dict[str, Any]:
        """See ``analysis.anchor_recall.recall_tables``; ``missing`` says why there are none."""
        if not self.key:
            return {"missing": NO_ANCHORS}
        return recall_tables(inventory, overlaps(self.cfg, inventory), self.positive)


def measure_anchors(cfg: Config, inventory: Inventory) -> AnchorRecall:
    """The recall of the configured size and of those beside it."""
    key, current, others = sizes_to_try(cfg)
    dense = cfg.RETINANET.RETINANET_ON
    positive = cfg.RETINANET.POSITIVE_OVERLAP if dense else cfg.TRAIN.RPN_POSITIVE_OVERLAP
    recalls: dict[Any, float] = {}
    values = (current, *others) if key and len(inventory.boxes) else ()
    for value in tqdm(values, desc="trying anchors", unit="size", delay=1, disable=None):
        covered = overlaps(with_values(cfg, {key: value}), inventory) >= positive
        recalls[value] = mean_over_classes(covered, inventory.classes)
    return AnchorRecall(cfg, key, current, positive, recalls)


def mean_over_classes(covered: np.ndarray, classes: np.ndarray) -> float:
    """Mean over the classes there are of their share of covered (M,) boxes, so that rare ones count as much."""
    return float(np.mean([covered[classes == c].mean() for c in np.unique(classes)]))


def sizes_to_try(cfg: Config) -> tuple[str, Any, tuple[Any, ...]]:
    """The key of the anchors' size, its value, and other values; "" where there are no anchors."""
    if cfg.RETINANET.RETINANET_ON:
        return "RETINANET.ANCHOR_SCALE", cfg.RETINANET.ANCHOR_SCALE, SCALES
    if not cfg.RPN.RPN_ON:
        return "", None, ()
    if cfg.FPN.FPN_ON:
        return "FPN.RPN_ANCHOR_START_SIZE", cfg.FPN.RPN_ANCHOR_START_SIZE, START_SIZES
    sizes = tuple(cfg.RPN.SIZES)
    return "RPN.SIZES", sizes, tuple(tuple(factor * size for size in sizes) for factor in FACTORS)


def overlaps(cfg: Config, inventory: Inventory) -> np.ndarray:
    """(M,) largest IoU of each box with an anchor of the configuration."""
    return best_overlaps(inventory, grid(cfg), cfg.FPN.COARSEST_STRIDE if cfg.FPN.FPN_ON else 1)


def grid(cfg: Config) -> AnchorGrid:
    """The anchors of the detector that the configuration describes."""
    if cfg.RETINANET.RETINANET_ON:
        return retinanet_anchors(cfg, anchor_levels(cfg))
    if cfg.FPN.FPN_ON:
        low, high = anchor_levels(cfg)
        levels = tuple(range(low, high + 1))
        return rpn_anchors(cfg, Features(0, levels, tuple(2**level for level in levels)))
    return rpn_anchors(cfg, Features(0, (LEVEL_OF_C4,), (cfg.RPN.STRIDE,)))
