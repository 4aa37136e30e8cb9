# SPDX-License-Identifier: Apache-2.0
"""What follows from the measurements: one sentence with its number, and the YAML lines that act on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

#: Recall that another anchor size must add before it is advised.
RECALL_GAIN = 0.02
#: By how much more of the hard negatives than of random ones must lie above the paper's IoU.
HARD_GAP = 0.1
#: Share of the positives that a tenth of the objects has, above which they are shared out unevenly.
UNEVEN = 0.2
#: Cosine between levels below which they are taken to hold different things.
ALIKE = 0.5
#: Parts of the loss whose pulls differ by less than this factor are left alone.
NEAR_ENOUGH = 2.0
#: By how much balanced L1 must raise the inliers' share of the gradient.
INLIER_GAIN = 0.05
#: Boxes of the most frequent class over those of the rarest from which classes are weighted.
RARE = 10.0
#: Negatives per image that are advised for a RetinaNet; its key has no other default.
NEGATIVES = 512
COMPARE = "tools/ablate.py shows whether it helps"


@dataclass(frozen=True)
class Advice:
    """One piece of advice.

    Attributes:
        section: "data", "sample", "feature" or "objective".
        finding: one plain sentence.
        number: the number it rests on; None where nothing could be measured.
        values: configuration key -> value; empty where there is nothing to set.
    """

    section: str
    finding: str
    number: float | None
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def yaml(self) -> str:
        """The values as lines of a configuration file; "" without any."""
        tree: dict[str, Any] = {}
        for name, value in self.values.items():
            *sections, key = name.split(".")
            place = tree
            for section in sections:
                place = place.setdefault(section, {})
            place[key] = value
        return yaml.safe_dump(tree, sort_keys=False) if tree else ""


def on_anchors(key: str, current: Any, recalls: Mapping[Any, float], positive: float) -> Advice:
    """Whether another size of the anchors covers more objects.

    Args:
        key: of the size; current: its value.
        recalls: value -> share of the boxes covered at IoU ``positive``, mean over the classes; ``current`` among them.
    """
    now, best = recalls[current], max(recalls, key=lambda value: recalls[value])
    covers = f"The anchors can cover {now:.1%} of the boxes (mean over the classes) at the positive IoU {positive:g}"
    if recalls[best] >= now + RECALL_GAIN:
        shown = list(best) if isinstance(best, tuple) else best
        return Advice(
            "data", f"{covers}; with {key} {shown} it would be {recalls[best]:.1%}.", now, {key: shown}
        )
    shown = list(current) if isinstance(current, tuple) else current
    return Advice(
        "data",
        f"{covers}, and none of the other sizes that were tried more than {recalls[best]:.1%}: {key} stays.",
        now,
        {key: shown},
    )


def on_classes(boxes: Mapping[str, int], values: Mapping[str, Any], *, treated: str = "") -> Advice:
    """Whether rare classes should count more.

    Args:
        boxes: of each class; values: keys that weigh the classes.
        treated: what the configuration does about rare classes already, or why it cannot; "" for nothing.
    """
    there = {name: count for name, count in boxes.items() if count}
    if not there:
        return Advice("data", "There are no boxes, so no class is rarer than another.", None)
    most, least = max(there, key=lambda n: there[n]), min(there, key=lambda n: there[n])
    ratio = there[most] / there[least]
    told = f"The most frequent class, {most}, has {ratio:.3g} times as many boxes as the rarest, {least}"
    missing = [name for name, count in boxes.items() if not count]
    told += f" ({', '.join(missing)}: none at all)" if missing else ""
    if treated:
        return Advice("data", f"{told}; {treated}.", ratio)
    if ratio >= RARE:
        return Advice("data", f"{told}: try class weights; {COMPARE}.", ratio, values)
    return Advice("data", f"{told}: class weights are not needed.", ratio, dict.fromkeys(values, "none"))


def on_negatives(
    negatives: Mapping[str, Any], *, dense: bool, switch: bool, on: bool, per_image: int = 0
) -> Advice:
    """Whether negatives should be chosen by IoU.

    Args:
        negatives: from ``sampling.NegativeCounts.tables``.
        dense: the detector is a RetinaNet; switch: it has IoU-balanced sampling; on: and uses it.
        per_image: negatives of a RetinaNet; 0: as many as an R-CNN samples boxes.
    """
    above = {name: negatives[name]["above"] for name in ("hard", "random", "iou_balanced")}
    if None in above.values():
        return Advice("sample", "There are no negatives in these images, so none were compared.", None)
    told = (
        f"Of the hard negatives {above['hard']:.0%} overlap an object with an IoU above {negatives['above_iou']:g}, "
        f"of random ones {above['random']:.0%} and of IoU-balanced ones {above['iou_balanced']:.0%}"
    )
    if not switch:
        return Advice("sample", f"{told}; a proposal network alone has no such choice.", above["hard"])
    values: dict[str, Any] = {"LIBRA.IOU_SAMPLING.ON": True}
    if dense:
        values["LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM"] = per_image or NEGATIVES
    if above["hard"] - above["random"] >= HARD_GAP:
        what = "IoU-balanced sampling stays" if on else "try IoU-balanced sampling"
        note = ", although the focal loss weighs negatives by itself" if dense and not on else ""
        return Advice("sample", f"{told}: {what}{note}; {COMPARE}.", above["hard"], values)
    return Advice(
        "sample",
        f"{told}: random negatives are about as hard, and IoU-balanced sampling is not needed.",
        above["hard"],
        {"LIBRA.IOU_SAMPLING.ON": False},
    )


def on_positives(per_instance: Mapping[str, Any]) -> Advice:
    """Whether the positives of a second stage should be shared out between the objects."""
    top = per_instance["drawn"]["top_tenth_share"]
    if top is None:
        return Advice("sample", "There are no positives in these images.", None)
    uneven = top >= UNEVEN
    follows = f"try instance-balanced sampling; {COMPARE}" if uneven else "they are shared out evenly enough"
    return Advice(
        "sample",
        f"A tenth of the objects has {top:.0%} of the positives that a step draws: {follows}.",
        top,
        {"LIBRA.INSTANCE_SAMPLING.ON": uneven},
    )


def on_pyramid(feature: Mapping[str, Any] | None) -> Advice:
    """Whether the pyramid should be balanced."""
    if feature is None:
        return Advice("feature", "The heads see one level, so there is no pyramid to balance.", None)
    before, after = (feature["mean_similarity"][when] for when in ("before", "after"))
    if before is None or after is None:
        return Advice("feature", "The levels are zero, so nothing can be said of them.", None)
    on = feature["balanced_by"] == "the model"
    told = (
        f"Two levels are alike to {before:.2f} on average (cosine; 1 is equal) before the balanced pyramid and to "
        f"{after:.2f} behind it"
    )
    wanted = on or before < ALIKE
    follows = "it stays" if on else f"try it; {COMPARE}" if wanted else "they share enough without it"
    values: dict[str, Any] = {"LIBRA.PYRAMID.ON": wanted}
    if wanted:
        values["LIBRA.PYRAMID.REFINE_LEVEL"] = int(feature["integrated_at"].removeprefix("P"))
    return Advice("feature", f"{told}: {follows}.", before, values)


def on_weights(parts: Mapping[str, Any], reference: str, keys: Mapping[str, tuple[str, float]]) -> Advice:
    """Which weights would make the parts of the loss pull equally hard.

    Args:
        parts: from ``objective.PartGradients.tables``; reference: the part whose weight stays.
        keys: part -> (its key, what else its weight is multiplied by).
    """
    base = parts[reference]["weighted_gradient_norm"]
    others = {name: part for name, part in parts.items() if name != reference and part["gradient_norm"]}
    if not base or not others:
        return Advice(
            "objective", "A part of the loss has no gradient in these images: nothing to compare.", None
        )
    ratios = {name: part["weighted_gradient_norm"] / base for name, part in others.items()}
    listed = ", ".join(f"{name} pulls {ratio:.2g} times" for name, ratio in ratios.items())
    told = f"At the shared features {listed} as hard as {reference}"
    values, near = {}, True
    for name, part in others.items():
        key, factor = keys[name]
        near &= 1 / NEAR_ENOUGH <= ratios[name] <= NEAR_ENOUGH
        if factor > 0:
            values[key] = float(f"{base / part['gradient_norm'] / factor:.2g}")
    number = min(ratios.values(), key=lambda r: min(r, 1 / r) if r else 0)
    if near:
        stay = {
            keys[name][0]: part["weight"] / keys[name][1] for name, part in others.items() if keys[name][1]
        }
        return Advice("objective", f"{told}: near enough, the weights stay.", number, stay)
    return Advice("objective", f"{told}: these weights would make them equal; {COMPARE}.", number, values)


def on_box_loss(gradients: Mapping[str, Any], *, kept: str = "") -> Advice:
    """Whether the box loss should be balanced.

    Args:
        gradients: from ``objective.box_gradients``; kept: why the detector's box loss stays; "" where it need not.
    """
    smooth, balanced = gradients["smooth_l1"], gradients["balanced_l1"]
    now, then = smooth["inlier_gradient"], balanced["inlier_gradient"]
    if now is None or then is None:
        return Advice("objective", "There are no positives whose box could be compared.", None)
    told = f"Inliers give {now:.0%} of the box gradient under smooth L1 and {then:.0%} under balanced L1"
    if kept:
        return Advice("objective", f"{told}; {kept}.", now)
    wanted = then - now >= INLIER_GAIN
    values: dict[str, Any] = {"LIBRA.BALANCED_L1.ON": wanted}
    if wanted:
        values["LIBRA.BALANCED_L1.BETA"] = balanced["beta"]
    follows = f"balanced L1 listens to them more; {COMPARE}" if wanted else "balanced L1 changes little"
    return Advice("objective", f"{told}: {follows}.", now, values)
