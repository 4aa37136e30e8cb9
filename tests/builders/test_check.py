# SPDX-License-Identifier: Apache-2.0
"""A configuration is tried out without data: every kind of detector, every fault that a few steps can show."""

import pytest
import torch

from detectron_libra.builders import check
from detectron_libra.config import load_config, with_values
from detectron_libra.errors import RunError
from detectron_libra.geometry import GEOMETRIES
from tests.builders.small import KINDS, config, libra

NAMES = {
    "retinanet": "RetinaNet",
    "faster_rcnn": "FasterRCNN",
    "c4": "FasterRCNN",
    "rpn_only": "RPNOnly",
    "fast_rcnn": "FastRCNN",
}


@pytest.fixture(autouse=True)
def same_process():
    """A check sets threads and denormals of its process, which is not ours."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_detector_is_tried_in_one_line(kind, geometry):
    line = check.check(libra(kind, MODEL__BOX_GEOMETRY=geometry))
    assert line.startswith(f"{NAMES[kind]}, ") and "\n" not in line
    assert "4 classes with background; 2 training steps, losses " in line and "1 test step" in line


def test_classes_that_the_data_would_tell_are_background_and_one():
    assert "2 classes with background" in check.check(config("retinanet", MODEL__NUM_CLASSES=-1))


def test_what_is_computed_with_is_small_whatever_the_configuration_says():
    cfg = config(
        "faster_rcnn", TRAIN__IMS_PER_BATCH=16, TRAIN__BATCH_SIZE_PER_IM=512, TRAIN__RPN_POST_NMS_TOP_N=0
    )
    small = check.reduced(with_values(cfg, {"TRAIN.SCALES": (800,), "TRAIN.MAX_SIZE": 1333}))
    assert (small.TRAIN.IMS_PER_BATCH, small.TRAIN.BATCH_SIZE_PER_IM, small.TRAIN.RPN_POST_NMS_TOP_N) == (
        2,
        64,
        100,
    )
    batch = check.generate(small, 0, training=True)
    assert batch.images.shape[0] == 2 and max(batch.images.shape[2:]) <= 128
    assert batch.targets.valid.any(1).all() and batch.proposals is None


def test_the_same_configuration_gives_the_same_losses():
    first, second = (check.check(config("retinanet")).split("; 1 test step")[0] for _ in range(2))
    assert first == second


def test_a_rate_that_diverges_is_told_with_its_remedy():
    with pytest.raises(RunError, match=r"not finite at iteration 1 .*lower SOLVER\.BASE_LR"):
        check.check(config("retinanet", SOLVER__BASE_LR=1e30))


def test_a_deep_network_of_random_weights_stays_finite():
    """Blocks of a fixed normalisation add up: their share is lowered, since nothing pre-trained is read."""
    blocks = {"RESNETS__STAGE_BLOCKS": "(3, 4, 30, 3)", "RESNETS__BLOCK": "bottleneck"}
    assert "2 training steps" in check.check(config("faster_rcnn", SOLVER__BASE_LR=0.02, **blocks))


def test_bfloat16_is_tried_too():
    assert "RetinaNet" in check.check(config("retinanet", TRAIN__PRECISION="bf16"))


def test_a_default_configuration_has_no_detector():
    with pytest.raises(Exception, match=r"MODEL\.CONV_BODY|no detector"):
        check.check(load_config(None, []))
