# SPDX-License-Identifier: Apache-2.0
"""Values that do not go together are refused before anything is built, by key and with the remedy."""

import pytest

from detectron_libra.config import load_config, with_options
from detectron_libra.errors import UsageError

AUG = ["TEST.BBOX_AUG.ENABLED", "True"]
MEAN = [*AUG, "TEST.BBOX_AUG.SCORE_HEUR", "AVG"]
RETINANET = ["FPN.FPN_ON", "True", "RETINANET.RETINANET_ON", "True"]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["LIBRA.BALANCED_L1.ALPHA", "0.01"], "LIBRA.BALANCED_L1.ALPHA: GAMMA / ALPHA is 150"),
        (["LIBRA.BALANCED_L1.BETA", "2.0", "LIBRA.BALANCED_L1.FORM", "released"], "BETA: 2.0 pushes boxes"),
        ([*RETINANET, "LOSS.WEIGHTS.RPN_CLS", "2.0"], "LOSS.WEIGHTS.RPN_CLS: a RetinaNet has no RPN"),
        (["LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM", "100"], "NEGATIVES_PER_IM: it is for RetinaNet"),
        ([*RETINANET, "LIBRA.IOU_SAMPLING.ON", "True"], "NEGATIVES_PER_IM: 0 leaves a RetinaNet nothing"),
        (
            ["LOSS.BOX.KIND", "giou", "LIBRA.BALANCED_L1.ON", "True"],
            "LOSS.BOX.KIND: giou and LIBRA.BALANCED_L1.ON True are two losses .* LIBRA.BALANCED_L1.ON False",
        ),
        (
            [*RETINANET, "LOSS.CLASSIFIER.KIND", "seesaw"],
            "CLASSIFIER.KIND: seesaw is a loss of the Fast R-CNN",
        ),
        (
            ["LOSS.CLASSIFIER.KIND", "seesaw", "LOSS.CLASS_WEIGHTS.KIND", "inverse"],
            "CLASSIFIER.KIND: seesaw and LOSS.CLASS_WEIGHTS.KIND inverse both balance",
        ),
        *(
            (["MODEL.RPN_ONLY", "True", key, kind], f"{key}: {kind} has no part in a proposal network")
            for key, kind in (
                ("LOSS.BOX.KIND", "giou"),
                ("LOSS.CLASSIFIER.KIND", "seesaw"),
                ("LOSS.CLASS_WEIGHTS.KIND", "inverse"),
            )
        ),
        (["ASSIGNER.KIND", "atss"], "ASSIGNER.KIND: atss assigns anchors, and this detector has none"),
        (["GROUP_NORM.DIM_PER_GP", "16"], "DIM_PER_GP: 16 goes with GROUP_NORM.NUM_GROUPS -1, not 32"),
        (["GROUP_NORM.NUM_GROUPS", "-1"], "DIM_PER_GP: -1 goes with GROUP_NORM.NUM_GROUPS 1 or more, not -1"),
    ],
)
def test_a_contradiction_names_its_key(opts, message):
    with pytest.raises(UsageError, match=message):
        load_config(None, opts)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (MEAN, r"SCORE_HEUR: AVG does not go with TEST\.BBOX_AUG\.COORD_HEUR UNION"),
        ([*AUG, "TEST.BBOX_AUG.COORD_HEUR", "ID"], r"SCORE_HEUR: UNION does not go with .*COORD_HEUR ID"),
        (
            [*MEAN, "TEST.BBOX_AUG.COORD_HEUR", "ID", "MODEL.FASTER_RCNN", "True"],
            r"SCORE_HEUR: AVG and TEST\.BBOX_AUG\.COORD_HEUR ID need the same stored proposals",
        ),
        ([*MEAN, "TEST.BBOX_AUG.COORD_HEUR", "AVG", *RETINANET], "need the same stored proposals"),
        ([*AUG, "TEST.BBOX_AUG.SCALE_SIZE_DEP", "True"], r"TEST\.BBOX_AUG\.SCALE_SIZE_DEP: .*not available"),
        ([*AUG, "MODEL.RPN_ONLY", "True"], r"TEST\.BBOX_AUG\.ENABLED: a proposal network alone"),
    ],
)
def test_augmentation_that_cannot_be_is_refused_by_its_keys(opts, message):
    """Detectron's assertions in im_detect_bbox_aug, before anything is built."""
    with pytest.raises(UsageError, match=message) as error:
        load_config(None, opts)
    assert "\n" not in str(error.value)


def test_means_of_stored_proposals_and_keys_of_augmentation_that_is_off_are_taken():
    load_config(None, [*MEAN, "TEST.BBOX_AUG.COORD_HEUR", "ID"])
    load_config(None, ["TEST.BBOX_AUG.SCORE_HEUR", "AVG", "TEST.BBOX_AUG.SCALE_SIZE_DEP", "True"])


def test_options_on_top_of_a_configuration_keep_the_rest():
    cfg = load_config(None, [*RETINANET, "TEST.SCALE", "240"])
    changed = with_options(cfg, ["DEVICE", "cpu"])
    assert (changed.DEVICE, changed.TEST.SCALE, changed.RETINANET.RETINANET_ON) == ("cpu", 240, True)
    with pytest.raises(UsageError, match=r"TEST\.SCALLE.*TEST\.SCALE"):
        with_options(cfg, ["TEST.SCALLE", "1"])
