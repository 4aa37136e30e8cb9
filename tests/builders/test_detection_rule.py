# SPDX-License-Identifier: Apache-2.0
"""Keys of suppression and voting arrive in the detector."""

import pytest

from detectron_libra.builders.detector import build_detector
from detectron_libra.modeling.suppression import BoxVoting, SoftNMS
from tests.builders.small import config


def rule(kind, **changes):
    return build_detector(config(kind, **changes), 4).detection


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", "fast_rcnn"])
def test_keys_of_suppression_arrive(kind):
    found = rule(
        kind,
        TEST__NMS=0.4,
        TEST__SOFT_NMS__ENABLED=True,
        TEST__SOFT_NMS__METHOD="gaussian",
        TEST__SOFT_NMS__SIGMA=0.7,
        TEST__BBOX_VOTE__ENABLED=True,
        TEST__BBOX_VOTE__VOTE_TH=0.9,
        TEST__BBOX_VOTE__SCORING_METHOD="QUASI_SUM",
        TEST__BBOX_VOTE__SCORING_METHOD_BETA=0.5,
    )
    assert found.nms_threshold == 0.4 and found.soft == SoftNMS("gaussian", 0.7)
    assert found.voting == BoxVoting(0.9, "QUASI_SUM", 0.5)


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", "fast_rcnn"])
def test_all_of_it_is_off_by_default(kind):
    plain = rule(kind)
    assert plain.soft is None and plain.voting is None and plain.regress


def test_ties_are_kept_where_detectron_keeps_them():
    """Its R-CNN cuts at a score, its RetinaNet at a number; the other geometry does as mmdetection, at a number."""
    assert rule("faster_rcnn").keep_ties and not rule("retinanet").keep_ties
    assert not rule("faster_rcnn", MODEL__BOX_GEOMETRY="continuous").keep_ties
