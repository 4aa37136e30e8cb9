# SPDX-License-Identifier: Apache-2.0
"""Advice says the number it rests on, changes sides at its threshold, and its YAML is what it says."""

import pytest
import yaml

from detectron_libra.analysis import advice
from detectron_libra.analysis.advice import Advice


def negatives(hard, random):
    ways = {"hard": hard, "random": random, "iou_balanced": 0.7}
    return {"above_iou": 0.05} | {way: {"above": above} for way, above in ways.items()}


def part(norm, weight=1.0):
    return {"gradient_norm": norm, "weight": weight, "weighted_gradient_norm": norm * weight}


KEYS = {"cls": ("LOSS.WEIGHTS.CLS", 1.0), "bbox": ("LOSS.WEIGHTS.BBOX", 1.0)}


def test_yaml_nests_the_keys_and_any_parser_reads_it():
    found = Advice("data", "x", 1.0, {"A.B.ON": True, "A.B.C": 0.5, "A.D": [1.0, 2.0]}).yaml
    assert yaml.safe_load(found) == {"A": {"B": {"ON": True, "C": 0.5}, "D": [1.0, 2.0]}}
    assert Advice("data", "x", None).yaml == ""


def test_another_anchor_size_is_advised_where_it_covers_clearly_more():
    better = advice.on_anchors("K.SCALE", 4, {4: 0.8, 2: 0.9, 3: 0.85}, 0.5)
    assert better.values == {"K.SCALE": 2} and better.number == 0.8
    assert "80.0%" in better.finding and "90.0%" in better.finding and "K.SCALE 2" in better.finding
    same = advice.on_anchors("K.SCALE", 4, {4: 0.8, 2: 0.81}, 0.5)
    assert same.values == {"K.SCALE": 4} and "stays" in same.finding
    assert advice.on_anchors("K.SIZES", (8.0,), {(8.0,): 0.1, (16.0,): 0.9}, 0.5).values == {
        "K.SIZES": [16.0]
    }


@pytest.mark.parametrize(("hard", "random", "wanted"), [(0.6, 0.3, True), (0.35, 0.3, False)])
def test_iou_balanced_sampling_is_advised_where_hard_negatives_lie_elsewhere(hard, random, wanted):
    found = advice.on_negatives(negatives(hard, random), dense=False, switch=True, on=False)
    assert found.values == {"LIBRA.IOU_SAMPLING.ON": wanted} and found.number == hard
    assert f"{hard:.0%}" in found.finding and f"{random:.0%}" in found.finding


def test_a_retinanet_needs_the_number_of_negatives_too():
    told = negatives(0.6, 0.3)
    key = "LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM"
    assert advice.on_negatives(told, dense=True, switch=True, on=False).values[key] == advice.NEGATIVES
    assert advice.on_negatives(told, dense=True, switch=True, on=True, per_image=77).values[key] == 77
    assert advice.on_negatives(told, dense=False, switch=False, on=False).values == {}
    nothing = advice.on_negatives(negatives(None, None), dense=False, switch=True, on=False)
    assert (nothing.number, nothing.values) == (None, {})


@pytest.mark.parametrize(("top", "wanted"), [(0.5, True), (0.12, False)])
def test_instance_balanced_sampling_is_advised_where_few_objects_have_most_positives(top, wanted):
    found = advice.on_positives({"drawn": {"top_tenth_share": top}})
    assert found.values == {"LIBRA.INSTANCE_SAMPLING.ON": wanted} and found.number == top
    assert advice.on_positives({"drawn": {"top_tenth_share": None}}).values == {}


@pytest.mark.parametrize(
    ("before", "by", "wanted"), [(0.1, "nobody", True), (0.9, "nobody", False), (0.9, "the model", True)]
)
def test_the_balanced_pyramid_is_advised_where_levels_differ_and_stays_where_it_is(before, by, wanted):
    feature = {
        "mean_similarity": {"before": before, "after": 0.8},
        "balanced_by": by,
        "integrated_at": "P4",
    }
    found = advice.on_pyramid(feature)
    assert found.values["LIBRA.PYRAMID.ON"] is wanted and found.number == before
    assert found.values.get("LIBRA.PYRAMID.REFINE_LEVEL") == (4 if wanted else None)
    assert advice.on_pyramid(None).values == {}


def test_weights_are_those_that_make_the_pulls_equal():
    found = advice.on_weights({"cls": part(8.0), "bbox": part(2.0, 0.5)}, "cls", KEYS)
    assert found.values == {"LOSS.WEIGHTS.BBOX": 4.0} and found.number == pytest.approx(1 / 8)
    assert "bbox pulls 0.12 times as hard as cls" in found.finding


def test_a_factor_beside_the_weight_is_taken_into_account():
    keys = KEYS | {"bbox": ("LOSS.WEIGHTS.BBOX", 10.0)}
    assert advice.on_weights({"cls": part(8.0), "bbox": part(0.1, 10.0)}, "cls", keys).values == {
        "LOSS.WEIGHTS.BBOX": 8.0
    }


def test_weights_that_are_near_enough_stay():
    found = advice.on_weights({"cls": part(3.0), "bbox": part(4.0, 0.5)}, "cls", KEYS)
    assert found.values == {"LOSS.WEIGHTS.BBOX": 0.5} and "stay" in found.finding
    assert advice.on_weights({"cls": part(3.0), "bbox": part(0.0)}, "cls", KEYS).values == {}


@pytest.mark.parametrize(("then", "wanted"), [(0.5, True), (0.22, False)])
def test_balanced_l1_is_advised_where_it_listens_to_inliers_more(then, wanted):
    gradients = {
        "smooth_l1": {"inlier_gradient": 0.2},
        "balanced_l1": {"inlier_gradient": then, "beta": 0.11},
    }
    found = advice.on_box_loss(gradients)
    assert found.values["LIBRA.BALANCED_L1.ON"] is wanted and found.number == 0.2
    assert found.values.get("LIBRA.BALANCED_L1.BETA") == (0.11 if wanted else None)
    kept = advice.on_box_loss(gradients, kept="it stays")
    assert kept.values == {} and kept.finding.endswith("it stays.")
    nothing = {name: {"inlier_gradient": None, "beta": 1.0} for name in gradients}
    assert advice.on_box_loss(nothing).values == {}


@pytest.mark.parametrize(("rare", "wanted"), [(5, "inverse"), (50, "none")])
def test_classes_are_weighted_where_one_is_clearly_rarer(rare, wanted):
    found = advice.on_classes({"a": 100, "b": rare, "c": 0}, {"K": "inverse"})
    assert found.values == {"K": wanted} and found.number == 100 / rare
    assert all(word in found.finding for word in ("a", "b", "c: none at all", f"{100 / rare:g} times"))
    treated = advice.on_classes({"a": 100, "b": rare}, {"K": "inverse"}, treated="it is weighted")
    assert treated.values == {} and "it is weighted" in treated.finding
    assert advice.on_classes({"a": 0}, {"K": "inverse"}).number is None
