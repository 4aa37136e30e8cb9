# SPDX-License-Identifier: Apache-2.0
"""What is wrong is named by file, line and key, with the remedy, and all of it at once."""

from itertools import pairwise

import pytest

from detectron_libra.config import load_config, parse_config
from detectron_libra.errors import UsageError

RETINANET = ["RETINANET.RETINANET_ON", "True", "FPN.FPN_ON", "True", "FPN.MULTILEVEL_RPN", "True"]
P3_P7 = [*RETINANET, "FPN.RPN_MIN_LEVEL", "3", "FPN.RPN_MAX_LEVEL", "7", "LIBRA.PYRAMID.ON", "True"]


def faults(text="", opts=()):
    with pytest.raises(UsageError) as e:
        parse_config(text, "a.yaml") if text else load_config(None, opts)
    assert e.value.exit_code == 2
    return str(e.value).splitlines()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER:\n  BASE_LRR: 1\n", "a.yaml:2: SOLVER.BASE_LRR: unknown key (did you mean SOLVER.BASE_LR?)"),
        ("BASE_LR: 1\n", "a.yaml:1: BASE_LR: unknown key (did you mean SOLVER.BASE_LR?)"),
        ("solver: {BASE_LR: 1}\n", "a.yaml:1: solver: unknown key (did you mean SOLVER?)"),
        ("QQQQQQQQ: 1\n", "a.yaml:1: QQQQQQQQ: unknown key"),
        ("SOLVER: 5\n", "a.yaml:1: SOLVER: 5 is a value; SOLVER is a section of keys"),
        ("TRAIN: {USE_FLIPPED: 1}\n", "USE_FLIPPED: 1 is of type int; it must be True or False"),
        ("TRAIN: {MAX_SIZE: 5.0}\n", "TRAIN.MAX_SIZE: 5.0 is of type float; it must be a whole number"),
        ("TRAIN: {MAX_SIZE: True}\n", "TRAIN.MAX_SIZE: True is of type bool; it must be a whole number"),
        (f"TRAIN: {{MAX_SIZE: {10**400}}}\n", "does not fit into 64 bits"),
        ("EXPECTED_RESULTS: [2001-01-01]\n", "of type date; it must be text, a number or a list"),
        ("TRAIN: {MAX_SIZE: }\n", "TRAIN.MAX_SIZE: there is no value; it must be a whole number"),
        ("TRAIN: {MAX_SIZE: big}\n", "TRAIN.MAX_SIZE: 'big' is of type str; it must be a whole number"),
        ("TRAIN: {DATASETS: coco}\n", "'coco' is of type str; it must be a tuple; write ('coco',)"),
        ("TRAIN: {SCALES: [600, a]}\n", "an element is wrong: 'a' is of type str; it must be a whole number"),
        ("TRAIN: {SCALES: [0]}\n", "TRAIN.SCALES: 0 is too small; it must be at least 1"),
        ("TRAIN: {DATASETS: [1]}\n", "an element is wrong: 1 is of type int; it must be text"),
        ("MODEL: {TYPE: [a]}\n", "MODEL.TYPE: ['a'] is of type list; it must be text"),
        ("MODEL: {BBOX_REG_WEIGHTS: [1, 2]}\n", "has 2 elements; it must have 4"),
        ("PIXEL_MEANS: [1, 2]\n", "PIXEL_MEANS: [1, 2] is of type list; it must be 3 numbers"),
        ("PIXEL_STDS: [1, 2, 0]\n", "PIXEL_STDS: 0.0 is too small; it must be greater than 0"),
        ("SOLVER: {BASE_LR: -1}\n", "SOLVER.BASE_LR: -1.0 is too small; it must be greater than 0"),
        ("SOLVER: {BASE_LR: .nan}\n", "SOLVER.BASE_LR: nan is no finite number"),
        ("SOLVER: {BASE_LR: 1e999}\n", "SOLVER.BASE_LR: inf is no finite number"),
        ("TRAIN: {IMS_PER_BATCH: 0}\n", "TRAIN.IMS_PER_BATCH: 0 is too small; it must be at least 1"),
        ("TRAIN: {PRECISION: fp16}\n", "'fp16' is not a choice; it must be one of 'fp32', 'bf16'"),
        ("TEST: {SCALES: 800}\n", "a.yaml:1: TEST.SCALES: the key is called TEST.SCALE now"),
        ("DEVICE: cpu\nDEVICE: cuda\n", "a.yaml:2: DEVICE was set before, at a.yaml:1; remove one"),
        ("? [1, 2]\n: 3\n", "a.yaml:1: a key must be a word"),
        ("- 1\n", "a.yaml: the file holds a list; it must hold keys and values (KEY: value)"),
        ("just text", "a.yaml: the file holds a str"),
        ("A: [1,\nB: 2\n", "a.yaml:3: not plain YAML"),
        ("A: \x00\n", "a.yaml: not plain YAML"),
        ("a: 1\n---\nb: 1\n", "not plain YAML"),
        ("DEVICE: !!python/object/apply:os.system [ls]\n", "a.yaml:1: not plain YAML: could not determine"),
        ("X: &a {DEVICE: cpu}\n<<: *a\n", "merge keys (<<) are not read; use _BASE_"),
        ("X: &a [*a]\n", "not plain YAML"),
        ("X: " + "[" * 5000 + "\n", "not plain YAML"),
        ("_BASE_: 5\n", "a.yaml:1: _BASE_: 5 is no path"),
        ("MODEL: {MASK_ON: True}\n", "a.yaml:1: MODEL.MASK_ON: masks and keypoints are not available"),
        ("MODEL: {KEYPOINTS_ON: True}\n", "set MODEL.KEYPOINTS_ON False"),
        ("MODEL: {NUM_CLASSES: 0}\n", "MODEL.NUM_CLASSES: 0 leaves no class beside the background"),
        ("MODEL: {TYPE: retinanet}\n", "set RETINANET.RETINANET_ON True or another MODEL.TYPE"),
        (
            "SOLVER: {LR_POLICY: steps_with_decay, STEPS: [10, 20]}\n",
            "SOLVER.STEPS: [10, 20] must begin with 0",
        ),
        ("SOLVER: {LR_POLICY: steps_with_decay}\n", "must begin with 0 for steps_with_decay"),
        ("SOLVER: {LR_POLICY: steps_with_decay, STEPS: [0, 9, 5]}\n", "must grow from step to step"),
        ("SOLVER: {LR_POLICY: steps_with_lrs, STEPS: [0, 5], LRS: [1]}\n", "1 learning rates for 2 steps"),
        ("TRAIN: {BG_THRESH_LO: 0.6}\n", "TRAIN.BG_THRESH_LO: 0.6 is above TRAIN.BG_THRESH_HI 0.5"),
        ("LIBRA: {PYRAMID: {ON: True}}\n", "there is no pyramid to balance; set FPN.FPN_ON True"),
    ],
)
def test_one_fault_is_one_line(text, message):
    lines = faults(text)
    assert len(lines) == 1
    assert message in lines[0]


def test_all_faults_come_at_once_and_no_consequences_of_them():
    text = "SOLVER:\n  BASE_LR: a\n  LR_POLICY: steps_with_decay\n  STEPS: [0, x]\n"
    text += "MODEL: {MASK_ON: True}\nNO: 1\n"
    lines = faults(text)
    assert [line.split(": ")[1] for line in lines] == [
        "SOLVER.BASE_LR",
        "SOLVER.STEPS",
        "OFF",
        "MODEL.MASK_ON",
    ]


def test_a_huge_value_makes_a_short_message():
    assert len(faults(f"TRAIN: {{MAX_SIZE: {'x' * 100000}}}\n")[0]) < 300
    doubled = [f"{b.upper()}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrstuvwxy")]
    bomb = "A: &a [x, x]\n" + "".join(doubled)
    assert all(len(line) < 300 for line in faults(bomb + "DEVICE: *y\n"))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.BASE_LR"], "options must be pairs of KEY and VALUE: 'SOLVER.BASE_LR' is left over"),
        (
            ["DEVICE", "cpu", "DEVISE", "cpu"],
            "command line, option 2: DEVISE: unknown key (did you mean DEVICE?)",
        ),
        ([*RETINANET, "LIBRA.IOU_SAMPLING.ON", "True"], "set the negatives per image, e.g. 1000"),
        ([*RETINANET, "LIBRA.INSTANCE_SAMPLING.ON", "True"], "set LIBRA.INSTANCE_SAMPLING.ON False"),
        (
            [*RETINANET, "MODEL.FASTER_RCNN", "True"],
            "set RETINANET.RETINANET_ON False or MODEL.FASTER_RCNN False",
        ),
        (["RETINANET.RETINANET_ON", "True"], "a RetinaNet needs the pyramid; set FPN.FPN_ON True"),
        ([*P3_P7, "LIBRA.PYRAMID.REFINE_LEVEL", "2"], "the pyramid has no level 2; take one from 3 to 7"),
        (
            ["FPN.RPN_MIN_LEVEL", "5", "FPN.RPN_MAX_LEVEL", "4"],
            "FPN.RPN_MIN_LEVEL: 5 is above FPN.RPN_MAX_LEVEL 4; lower it",
        ),
    ],
)
def test_faults_of_options(opts, message):
    lines = faults(opts=opts)
    assert len(lines) == 1
    assert message in lines[0]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path, reason in ((tmp_path / "absent.yaml", "no such configuration file"), (tmp_path, "directory")):
        with pytest.raises(UsageError, match=reason) as e:
            load_config(path)
        assert str(path) in str(e.value)
