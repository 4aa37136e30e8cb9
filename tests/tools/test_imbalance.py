# SPDX-License-Identifier: Apache-2.0
"""The imbalance kit as users switch it on: trained, stopped, resumed bit for bit, tested; contradictions refused."""

import signal
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from tests.tools.runs import losses, refused, run, signal_self

RETINANET = {
    "DATA.SAMPLER.KIND": "repeat_factor",
    "DATA.SAMPLER.THRESHOLD": 1.0,
    "LOSS.CLASS_WEIGHTS.KIND": "square_root",
    "LOSS.BOX.KIND": "giou",
    "LIBRA.BALANCED_L1.ON": False,
    "ASSIGNER.KIND": "atss",
}
FASTER_RCNN = {
    "MODEL.TYPE": "generalized_rcnn",
    "MODEL.FASTER_RCNN": True,
    "RETINANET.RETINANET_ON": False,
    "FPN.MULTILEVEL_ROIS": True,
    "FPN.RPN_MIN_LEVEL": 2,
    "FPN.RPN_ANCHOR_START_SIZE": 8,
    "FPN.ROI_MAX_LEVEL": 5,
    "FAST_RCNN.MLP_HEAD_DIM": 16,
    "FAST_RCNN.ROI_XFORM_METHOD": "RoIAlign",
    "FAST_RCNN.ROI_BOX_HEAD": "fast_rcnn_heads.add_roi_2mlp_head",
    "TRAIN.RPN_PRE_NMS_TOP_N": 50,
    "TRAIN.RPN_POST_NMS_TOP_N": 50,
    "TEST.RPN_PRE_NMS_TOP_N": 50,
    "TEST.RPN_POST_NMS_TOP_N": 20,
}
SEESAW = {"LOSS.CLASSIFIER.KIND": "seesaw"}


def words(pairs):
    return [str(word) for pair in pairs.items() for word in pair]


def train(config, folder, pairs, **options):
    return run("train_net.py", "--cfg", config, "--skip-test", *words(pairs), "OUTPUT_DIR", folder, **options)


@pytest.mark.parametrize(
    ("pairs", "kind", "said", "state"),
    [
        (RETINANET, "retinanet", "class weights square_root", "class_loss.class_weight"),
        (FASTER_RCNN | SEESAW, "generalized_rcnn", "classifier seesaw", "regions.class_loss.counts"),
    ],
    ids=["retinanet", "faster_rcnn"],
)
def test_a_stopped_run_goes_on_bit_for_bit_and_the_weights_keep_what_the_loss_counted(
    config, tmp_path, pairs, kind, said, state
):
    """Repetitions of images are drawn from seed and epoch; counts of classes are part of a checkpoint."""
    whole, parted = (tmp_path / name / "train/tiny_train" / kind for name in ("whole", "parted"))
    done = train(config, tmp_path / "whole", pairs)
    assert done.code == 0 and said in done.out, done.err
    stop = partial(signal_self, signal.SIGTERM)
    assert train(config, tmp_path / "parted", pairs, after=(4, stop)).code == 143
    assert train(config, tmp_path / "parted", pairs).code == 0
    expected, found = (load_file(f / "model_final.safetensors") for f in (whole, parted))
    assert expected.keys() == found.keys() and state in found
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert losses(whole) == losses(parted) and len(losses(whole)) == 8
    assert (found[state] > 0).any()
    kept = torch.load(parted / "model_iter7.pt", weights_only=True)["model"]
    assert torch.equal(kept[state], found[state])
    tested = [
        run("test_net.py", "--cfg", config, *words(p), "TEST.WEIGHTS", parted / "model_final.safetensors")
        for p in (pairs, {k: v for k, v in pairs.items() if not k.startswith(("LOSS", "DATA", "ASSIGNER"))})
    ]
    assert [t.code for t in tested] == [0, 0], tested[1].err


def test_a_run_with_weighted_classes_begins_with_weights_of_a_plain_one(trained, config, tmp_path):
    pairs = {"LOSS.CLASS_WEIGHTS.KIND": "inverse", "TRAIN.WEIGHTS": trained.weights, "SOLVER.MAX_ITER": 1}
    done = train(config, tmp_path / "out", pairs)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("pairs", "keys"),
    [
        ({"LOSS.BOX.KIND": "giou"}, ("LOSS.BOX.KIND", "LIBRA.BALANCED_L1.ON")),
        (SEESAW, ("LOSS.CLASSIFIER.KIND", "LOSS.CLASS_WEIGHTS.KIND")),
    ],
)
def test_two_losses_of_one_thing_are_refused_by_both_keys(config, tmp_path, pairs, keys):
    """The tiny configuration is a RetinaNet with balanced L1."""
    refused(train(config, tmp_path / "out", pairs), 2, *keys)
