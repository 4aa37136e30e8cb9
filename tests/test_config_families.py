# SPDX-License-Identifier: Apache-2.0
"""Detectron's settings as files of ours: none is missing, and what a file's name says is what its keys do."""

import re
from itertools import product
from pathlib import Path

import pytest

from detectron_libra.config import diff, load_config

CONFIGS = Path(__file__).parents[1] / "configs"
FPN_NETS = ("R-50-FPN", "R-101-FPN", "X-101-32x8d-FPN", "X-101-64x4d-FPN")
NETS = ("R-50-C4", *FPN_NETS)
BOTH = ("1x", "2x")
#: The zoo of Detectron without masks and keypoints.
ZOO = [
    *(f"retinanet_{net}_{schedule}" for net, schedule in product(FPN_NETS, BOTH)),
    *(
        f"{kind}_{net}_{schedule}"
        for kind, net, schedule in product(("faster_rcnn", "fast_rcnn"), NETS, BOTH)
    ),
    *(f"rpn_{net}_1x" for net in NETS),
    *(f"rpn_person_only_{net}_1x" for net in FPN_NETS),
]
TUTORIAL = {n: f"tutorial_{n}gpu_faster_rcnn_R-50-FPN" for n in (1, 2, 4, 8)}
GN = [
    f"faster_rcnn_{net}_{schedule}_gn" for net, schedule in product(("R-50-FPN", "R-101-FPN"), ("2x", "3x"))
]
SCRATCH = [f"faster_rcnn_{net}_3x_scratch" for net in ("R-50-FPN", "R-101-FPN")]
#: Images of the COCO training set that a schedule of 1x sees: 90,000 steps of 16.
IMAGES_OF_1X = 1_440_000
IMAGENET = {
    "R-50": "MSRA/R-50.pkl",
    "R-101": "MSRA/R-101.pkl",
    "X-101-32x8d": "20171220/X-101-32x8d.pkl",
    "X-101-64x4d": "FBResNeXt/X-101-64x4d.pkl",
}


def load(folder, name):
    return load_config(str(CONFIGS / folder / f"{name}.yaml"))


def first_lines(folder, name):
    return (CONFIGS / folder / f"{name}.yaml").read_text().splitlines()[:2]


def images(cfg):
    """Images that the whole schedule sees."""
    return cfg.SOLVER.MAX_ITER * cfg.NUM_GPUS * cfg.TRAIN.IMS_PER_BATCH


def test_every_setting_of_detectrons_that_has_boxes_only_is_there():
    """41 files: 37 of the zoo and 4 of the tutorial; and nothing else lies beside them."""
    assert len(ZOO) + len(TUTORIAL) == 41
    assert {p.stem for p in (CONFIGS / "baselines").iterdir()} == set(ZOO)
    assert {p.stem for p in (CONFIGS / "getting_started").iterdir()} == set(TUTORIAL.values())
    assert {p.stem for p in (CONFIGS / "gn").iterdir()} == set(GN)
    assert {p.stem for p in (CONFIGS / "scratch").iterdir()} == set(SCRATCH)


@pytest.mark.parametrize("name", ZOO)
def test_the_head_of_a_file_says_what_it_is_and_whose_figure_is_given(name):
    what, figure = first_lines("baselines", name)
    assert what.startswith("# ") and re.search(r"for 8 processes of [12] images?\.$", what)
    assert "Detectron" in figure and figure.endswith("not trained here.")
    assert re.search(r"(box AP|AR@1000) of \d\d\.\d", figure) or "person_only" in name


@pytest.mark.parametrize("name", [n for n in ZOO if n.endswith("_2x")])
def test_2x_is_1x_with_twice_the_steps(name):
    once, twice = load("baselines", name.replace("_2x", "_1x")), load("baselines", name)
    assert twice.SOLVER.MAX_ITER == 2 * once.SOLVER.MAX_ITER
    assert [2 * step for step in once.SOLVER.STEPS] == twice.SOLVER.STEPS
    keys = {line.split(":")[0] for line in diff(once, twice)}
    assert keys == {"SOLVER.MAX_ITER", "SOLVER.STEPS", "OUTPUT_DIR"}


@pytest.mark.parametrize("name", ZOO)
def test_every_schedule_has_detectrons_rate_per_image_and_its_number_of_images(name):
    """0.02 for 16 images a step (RetinaNet 0.01); 1x is 90,000 such steps with decays at 2/3 and 8/9."""
    cfg = load("baselines", name)
    s, per_step = cfg.SOLVER, cfg.NUM_GPUS * cfg.TRAIN.IMS_PER_BATCH
    assert s.BASE_LR / per_step == pytest.approx((0.01 if "retinanet" in name else 0.02) / 16)
    assert images(cfg) == IMAGES_OF_1X * int(name[-2])
    assert (s.LR_POLICY, s.GAMMA, s.WEIGHT_DECAY) == ("steps_with_decay", 0.1, 1e-4)
    assert [step / s.MAX_ITER for step in s.STEPS] == pytest.approx([0, 2 / 3, 8 / 9])
    # images of 800 pixels on one card: a pyramid of leaves room for two of them
    single = name.startswith("fast") and ("C4" in name or "X-101" in name)
    assert (cfg.TRAIN.IMS_PER_BATCH == 1) == single and cfg.NUM_GPUS == 8


@pytest.mark.parametrize("name", ZOO)
def test_the_network_is_the_one_of_the_name(name):
    cfg = load("baselines", name)
    net = re.search(r"(R-50|R-101|X-101-32x8d|X-101-64x4d)-(FPN|C4)", name)
    depth = "50" if net[1] == "R-50" else "101"
    bodies = {"FPN": f"FPN.add_fpn_ResNet{depth}_conv5_body", "C4": f"ResNet.add_ResNet{depth}_conv4_body"}
    assert bodies[net[2]] == cfg.MODEL.CONV_BODY and (net[2] == "FPN") == cfg.FPN.FPN_ON
    groups = {"X-101-32x8d": (32, 8), "X-101-64x4d": (64, 4)}.get(net[1], (1, 64))
    assert groups == (cfg.RESNETS.NUM_GROUPS, cfg.RESNETS.WIDTH_PER_GROUP)
    assert ("X-101" in name) != cfg.RESNETS.STRIDE_1X1
    assert cfg.TRAIN.WEIGHTS.endswith(f"/detectron/ImageNetPretrained/{IMAGENET[net[1]]}")


@pytest.mark.parametrize("name", ZOO)
def test_the_detector_is_the_one_of_the_name(name):
    cfg = load("baselines", name)
    kind = name[: re.search(r"_[RX]-", name).start()]
    assert (kind == "retinanet") == cfg.RETINANET.RETINANET_ON
    assert (kind == "faster_rcnn") == cfg.MODEL.FASTER_RCNN
    assert kind.startswith("rpn") == cfg.MODEL.RPN_ONLY
    assert (kind == "fast_rcnn") == cfg.TEST.PRECOMPUTED_PROPOSALS
    other = {"retinanet": "retinanet"} | ({"rpn": "rpn"} if "C4" in name else {})
    assert other.get(kind, "generalized_rcnn") == cfg.MODEL.TYPE
    assert (2 if kind == "rpn_person_only" else 81) == cfg.MODEL.NUM_CLASSES
    assert cfg.TRAIN.SCALES == (cfg.TEST.SCALE,) == (800,)
    assert cfg.TRAIN.MAX_SIZE == cfg.TEST.MAX_SIZE == 1333


@pytest.mark.parametrize("name", [n for n in ZOO if n.startswith("fast_rcnn")])
def test_stored_proposals_come_from_the_network_of_the_name_one_file_a_set(name):
    cfg = load("baselines", name)
    for phase in (cfg.TRAIN, cfg.TEST):
        assert len(phase.PROPOSAL_FILES) == len(phase.DATASETS)
        for file, dataset in zip(phase.PROPOSAL_FILES, phase.DATASETS, strict=True):
            assert f"/rpn_{name.split('_')[2]}_1x.yaml" in file and f"/test/{dataset}/" in file
    assert cfg.TEST.PROPOSAL_LIMIT == 1000


@pytest.mark.parametrize("name", [n for n in ZOO if n.startswith("retinanet")])
def test_retinanet_has_the_levels_and_channel_order_of_released_weights(name):
    """ASPECT_RATIOS (1.0, 2.0, 0.5) fixes the order of the outputs; P3 to P7, padded to 128, no straddle rule."""
    cfg = load("baselines", name)
    assert cfg.RETINANET.ASPECT_RATIOS == (1.0, 2.0, 0.5)
    assert (cfg.FPN.RPN_MIN_LEVEL, cfg.FPN.RPN_MAX_LEVEL, cfg.FPN.COARSEST_STRIDE) == (3, 7, 128)
    assert cfg.FPN.EXTRA_CONV_LEVELS and cfg.TRAIN.RPN_STRADDLE_THRESH == -1


@pytest.mark.parametrize("processes", TUTORIAL)
def test_the_tutorial_scales_rate_and_steps_with_the_processes(processes):
    """0.0025 and 60,000 steps for one process; rate times, and steps by, the number of processes."""
    one, cfg = load("getting_started", TUTORIAL[1]), load("getting_started", TUTORIAL[processes])
    assert one.SOLVER.BASE_LR == 0.0025 and one.SOLVER.STEPS == [0, 30000, 40000] and one.NUM_GPUS == 1
    assert processes * one.SOLVER.BASE_LR == cfg.SOLVER.BASE_LR
    assert images(cfg) == images(one) == 120_000 and processes == cfg.NUM_GPUS
    assert [processes * step for step in cfg.SOLVER.STEPS] == one.SOLVER.STEPS
    assert one.TRAIN == cfg.TRAIN and one.TEST == cfg.TEST and cfg.TRAIN.SCALES == (500,)


@pytest.mark.parametrize("name", [*GN, *SCRATCH])
def test_group_norm_is_everywhere_and_the_only_difference(name):
    """Detectron's GroupNorm baselines have it in stem, blocks, shortcuts, pyramid and head."""
    cfg = load("scratch" if "scratch" in name else "gn", name)
    r = cfg.RESNETS
    assert all("_gn_" in function for function in (r.TRANS_FUNC, r.STEM_FUNC, r.SHORTCUT_FUNC))
    assert cfg.FPN.USE_GN and cfg.FAST_RCNN.ROI_BOX_HEAD.endswith("Xconv1fc_gn_head") and not r.STRIDE_1X1
    assert images(cfg) == IMAGES_OF_1X * int(re.search(r"_(\d)x", name)[1])
    plain = load("baselines", f"faster_rcnn_{re.search(r'R-[0-9]+-FPN', name)[0]}_1x")
    changed = {line.split(":")[0] for line in diff(plain, cfg)}
    scratch = {"TRAIN.FREEZE_AT"} if "scratch" in name else set()
    assert changed == scratch | {
        "FPN.USE_GN",
        "RESNETS.TRANS_FUNC",
        "RESNETS.STEM_FUNC",
        "RESNETS.SHORTCUT_FUNC",
        "RESNETS.STRIDE_1X1",
        "FAST_RCNN.ROI_BOX_HEAD",
        "SOLVER.MAX_ITER",
        "SOLVER.STEPS",
        "TRAIN.WEIGHTS",
        "OUTPUT_DIR",
    }
    assert (cfg.TRAIN.WEIGHTS == "" and cfg.TRAIN.FREEZE_AT == 0) == bool(scratch)
    assert scratch or cfg.TRAIN.WEIGHTS.endswith("-GN.pkl")
