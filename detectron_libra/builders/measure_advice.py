# SPDX-License-Identifier: Apache-2.0
"""Advice in the configuration's keys."""

from collections.abc import Mapping
from typing import Any

from detectron_libra.analysis import advice
from detectron_libra.analysis.advice import Advice
from detectron_libra.builders.measure_anchors import NO_ANCHORS, AnchorRecall
from detectron_libra.config import Config

PART_KEYS = {
    "cls": "LOSS.WEIGHTS.CLS",
    "bbox": "LOSS.WEIGHTS.BBOX",
    "rpn_cls": "LOSS.WEIGHTS.RPN_CLS",
    "rpn_bbox": "LOSS.WEIGHTS.RPN_BBOX",
}


def advise(cfg: Config, sections: Mapping[str, Any], recall: AnchorRecall) -> list[Advice]:
    """What follows from the measurements, in the order of the sections.

    Args:
        sections: as in imbalance.json.
    """
    dense, alone = cfg.RETINANET.RETINANET_ON, cfg.MODEL.RPN_ONLY
    sample, objective = sections["sample"], sections["objective"]
    boxes = {name: one["boxes"] for name, one in sections["data"]["classes"].items()}
    found = [
        anchor_advice(recall),
        advice.on_classes(boxes, {"LOSS.CLASS_WEIGHTS.KIND": "square_root"}, treated=class_treatment(cfg)),
    ]
    found.append(
        advice.on_negatives(
            sample["negatives"],
            dense=dense,
            switch=not alone,
            on=cfg.LIBRA.IOU_SAMPLING.ON,
            per_image=cfg.LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM,
        )
    )
    if not dense and not alone:
        found.append(advice.on_positives(sample["per_instance"]))
    found.append(advice.on_pyramid(None if "missing" in sections["feature"] else sections["feature"]))
    factors = {"bbox": cfg.RETINANET.BBOX_REG_WEIGHT} if dense else {}
    keys = {name: (key, factors.get(name, 1.0)) for name, key in PART_KEYS.items()}
    found.append(advice.on_weights(objective["parts"], objective["equal_to"], keys))
    found.append(advice.on_box_loss(objective["box_gradient"], kept=box_loss_kept(cfg)))
    return found


def class_treatment(cfg: Config) -> str:
    """What the configuration does about rare classes already, or why it cannot; "" for nothing."""
    if cfg.MODEL.RPN_ONLY:
        return "a proposal network alone knows no classes"
    kinds = {
        "LOSS.CLASS_WEIGHTS.KIND": cfg.LOSS.CLASS_WEIGHTS.KIND,
        "LOSS.CLASSIFIER.KIND": cfg.LOSS.CLASSIFIER.KIND,
        "DATA.SAMPLER.KIND": cfg.DATA.SAMPLER.KIND,
    }
    treated = [f"{key} {kind}" for key, kind in kinds.items() if kind not in ("none", "plain")]
    return f"{' and '.join(treated)} is there for that" if treated else ""


def box_loss_kept(cfg: Config) -> str:
    """Why the box loss stays what it is; "" where it could be balanced L1."""
    if cfg.MODEL.RPN_ONLY:
        return "a proposal network keeps smooth L1"
    kind = cfg.LOSS.BOX.KIND
    return "" if kind == "plain" else f"LOSS.BOX.KIND {kind} takes their place"


def anchor_advice(recall: AnchorRecall) -> Advice:
    """About the size of the anchors."""
    if not recall.key:
        return Advice("data", f"{NO_ANCHORS}.", None)
    if not recall.recalls:
        return Advice("data", "There are no boxes that anchors could cover.", None)
    return advice.on_anchors(recall.key, recall.current, recall.recalls, recall.positive)
