# SPDX-License-Identifier: Apache-2.0
"""Which runs an ablation has, and what a part switches in which detector."""

from pathlib import Path

import pytest

from detectron_libra.builders.ablate import plan
from detectron_libra.builders.part_list import parse_parts
from detectron_libra.builders.parts import (
    MODES,
    PARTS,
    RCNN,
    RETINANET,
    config_of,
    name_of,
    place_of,
    variants,
)
from detectron_libra.config import KEYS, diff, load_config
from detectron_libra.errors import UsageError

CONFIGS = Path(__file__).parents[2] / "configs"
THREE = [["sampling"], ["pyramid"], ["loss"]]
WITH_WEIGHTS = [["loss"], ["weights=0.25", "weights=0.5"]]


def load(name, *opts):
    return load_config(str(CONFIGS / f"{name}.yaml"), [str(o) for o in opts])


def names(parts, mode):
    return [name_of(v) for v in variants(parts, mode)]


@pytest.mark.parametrize(
    ("parts", "mode", "expected"),
    [
        (THREE, "single", ["baseline", "sampling", "pyramid", "loss", "sampling+pyramid+loss"]),
        (THREE, "cumulative", ["baseline", "sampling", "sampling+pyramid", "sampling+pyramid+loss"]),
        (
            THREE,
            "full",
            [
                "baseline",
                "sampling",
                "pyramid",
                "loss",
                "sampling+pyramid",
                "sampling+loss",
                "pyramid+loss",
                "sampling+pyramid+loss",
            ],
        ),
        ([["loss"]], "single", ["baseline", "loss"]),
        (
            WITH_WEIGHTS,
            "single",
            ["baseline", "loss", "weights=0.25", "weights=0.5", "loss+weights=0.25", "loss+weights=0.5"],
        ),
        (WITH_WEIGHTS, "cumulative", ["baseline", "loss", "loss+weights=0.25", "loss+weights=0.5"]),
        (
            WITH_WEIGHTS,
            "full",
            ["baseline", "loss", "weights=0.25", "weights=0.5", "loss+weights=0.25", "loss+weights=0.5"],
        ),
    ],
)
def test_the_combinations_of_every_mode(parts, mode, expected):
    assert names(parts, mode) == expected


@pytest.mark.parametrize("mode", MODES)
def test_the_baseline_comes_first_and_nothing_comes_twice(mode):
    found = names([*THREE, *WITH_WEIGHTS[1:]], mode)
    assert found[0] == "baseline" and len(set(found)) == len(found)


def test_runs_go_seed_by_seed_with_the_same_seeds_for_every_combination(tmp_path):
    cfg = load("bccd/retinanet", "RNG_SEED", 7)
    runs = plan(cfg, parts=THREE, mode="single", seeds=2, out=tmp_path)
    assert [run.seed for run in runs] == [7] * 5 + [8] * 5
    assert [run.variant for run in runs[:5]] == [run.variant for run in runs[5:]]
    assert [run.cfg.RNG_SEED for run in runs] == [run.seed for run in runs]
    assert runs[6].folder == tmp_path / "runs/sampling/seed8"
    assert len({run.folder for run in runs}) == 10


def test_more_seeds_and_other_modes_find_the_runs_that_are_there(tmp_path):
    cfg = load("bccd/retinanet")
    few = plan(cfg, parts=THREE, mode="single", seeds=1, out=tmp_path)
    many = {run.folder: run.cfg for run in plan(cfg, parts=THREE, mode="full", seeds=3, out=tmp_path)}
    assert len(many) == 24
    assert all(diff(run.cfg, many[run.folder]) == [] for run in few)


@pytest.mark.parametrize(
    ("name", "variant", "changed"),
    [
        ("bccd/retinanet", ("pyramid",), {"LIBRA.PYRAMID.ON"}),
        ("bccd/retinanet", ("loss",), {"LIBRA.BALANCED_L1.ON", "LIBRA.BALANCED_L1.BETA"}),
        (
            "bccd/retinanet",
            ("sampling",),
            {"LIBRA.IOU_SAMPLING.ON", "LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM"},
        ),
        ("bccd/faster_rcnn", ("sampling",), {"LIBRA.IOU_SAMPLING.ON", "LIBRA.INSTANCE_SAMPLING.ON"}),
        ("bccd/faster_rcnn", ("pyramid", "loss"), {"LIBRA.PYRAMID.ON", "LIBRA.BALANCED_L1.ON"}),
        ("baselines/fast_rcnn_R-50-FPN_1x", ("loss",), {"LIBRA.BALANCED_L1.ON"}),
    ],
)
def test_a_part_changes_its_own_keys_alone(name, variant, changed):
    cfg = load(name)
    assert {line.split(":")[0] for line in diff(cfg, config_of(cfg, THREE, variant))} == changed
    assert diff(cfg, config_of(cfg, THREE, ())) == []


def test_a_part_that_the_file_has_is_off_in_the_baseline_and_keeps_its_options():
    cfg = load(
        "bccd/libra_retinanet", "LIBRA.BALANCED_L1.BETA", 0.2, "LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM", 50
    )
    base, every = config_of(cfg, THREE, ()), config_of(cfg, THREE, ("sampling", "pyramid", "loss"))
    assert not (base.LIBRA.BALANCED_L1.ON or base.LIBRA.PYRAMID.ON or base.LIBRA.IOU_SAMPLING.ON)
    assert every.LIBRA.BALANCED_L1.ON and every.LIBRA.PYRAMID.ON and every.LIBRA.IOU_SAMPLING.ON
    assert every.LIBRA.BALANCED_L1.BETA == 0.2 and every.LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM == 50
    # a part that is not named stays
    assert config_of(cfg, [["pyramid"]], ()).LIBRA.BALANCED_L1.ON


def test_a_number_stands_in_its_run_and_the_configurations_own_is_the_baseline():
    cfg = load("bccd/retinanet")
    parts = parse_parts("loss, weights=0.25:1.0:0.5", cfg)
    assert parts == [["loss"], ["weights=0.25", "weights=0.5"]]
    assert config_of(cfg, parts, ("weights=0.25",)).LOSS.WEIGHTS.BBOX == 0.25
    assert config_of(cfg, parts, ("loss",)).LOSS.WEIGHTS.BBOX == 1.0


def test_any_key_is_a_part_and_the_configurations_own_value_the_baseline():
    cfg = load("bccd/retinanet", "TRAIN.PRECISION", "fp32", "CHANNELS_LAST", True)
    parts = parse_parts(
        "TRAIN.PRECISION=fp32:bf16, CHANNELS_LAST=False, SOLVER.WEIGHT_DECAY=1e-3:0.0005", cfg
    )
    assert parts[:2] == [["TRAIN.PRECISION=bf16"], ["CHANNELS_LAST=False"]]
    assert "SOLVER.WEIGHT_DECAY=0.001" in parts[2]
    both = config_of(cfg, parts, ("TRAIN.PRECISION=bf16", "CHANNELS_LAST=False"))
    assert both.TRAIN.PRECISION == "bf16" and both.CHANNELS_LAST is False
    assert diff(cfg, config_of(cfg, parts, ())) == []
    assert names(parts[:2], "single") == [
        "baseline",
        "TRAIN.PRECISION=bf16",
        "CHANNELS_LAST=False",
        "TRAIN.PRECISION=bf16+CHANNELS_LAST=False",
    ]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("bccd/retinanet", "", "sampling, pyramid, loss, weights=NUMBER"),
        ("bccd/retinanet", "samplin", "did you mean sampling"),
        ("bccd/retinanet", "loss,loss", "twice"),
        ("bccd/retinanet", "loss=0.5", "takes no value"),
        ("bccd/retinanet", "weights", "'' is no number"),
        ("bccd/retinanet", "weights=0.5:x", "'x' is no number"),
        ("bccd/retinanet", "weights=-1", "'-1' is no number"),
        ("bccd/retinanet", "weights=inf", "'inf' is no number"),
        ("bccd/retinanet", "weights=1", "nothing to compare"),
        ("bccd/retinanet", "TRAIN.PRECISIO=bf16", "did you mean TRAIN.PRECISION"),
        ("bccd/retinanet", "TRAIN.PRECISION=fp8", "'fp8' is not a choice; it must be one of 'fp32', 'bf16'"),
        ("bccd/retinanet", "OPS.BACKEND=auto", "nothing to compare"),
        ("bccd/retinanet", "CHANNELS_LAST", "write CHANNELS_LAST=VALUE:VALUE"),
        ("bccd/retinanet", "MODEL.TYPE=a/b", "names a folder"),
        ("bccd/retinanet", "PIXEL_MEANS=1", "a part has a single value"),
        ("bccd/retinanet", "SOLVER.MAX_ITER=5:6", "all runs of an ablation have the same SOLVER.MAX_ITER"),
        ("bccd/retinanet", "RNG_SEED=5", "all runs of an ablation have the same RNG_SEED"),
        (
            "bccd/retinanet",
            "weights=0.5,LOSS.WEIGHTS.BBOX=2",
            "weights and LOSS.WEIGHTS.BBOX both set LOSS.WEIGHTS.BBOX",
        ),
        (
            "bccd/retinanet",
            "loss,LIBRA.BALANCED_L1.BETA=2",
            "loss and LIBRA.BALANCED_L1.BETA both set LIBRA.BALANCED_L1.BETA",
        ),
        (
            "baselines/rpn_R-50-FPN_1x",
            "loss",
            "a proposal network cannot have it; it is for RetinaNet and R-CNN",
        ),
    ],
)
def test_what_is_no_part_is_refused_in_one_line(name, text, told):
    with pytest.raises(UsageError, match="--parts") as caught:
        parse_parts(text, load(name))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_part_that_the_network_cannot_have_is_refused_by_name():
    cfg = load("baselines/faster_rcnn_R-50-C4_1x")
    with pytest.raises(UsageError, match=r"--parts sampling\+pyramid.*FPN.FPN_ON"):
        config_of(cfg, THREE, ("sampling", "pyramid"))


def test_every_part_names_switches_that_exist_and_their_values_are_no_defaults():
    for kinds in PARTS.values():
        assert set(kinds) <= {RETINANET, RCNN}
        for part in kinds.values():
            assert all(KEYS[key].default is False for key in part.switches)
            assert all(KEYS[key].default != value for key, value in part.needs.items())


def test_parts_are_shown_in_the_order_of_the_table_and_numbers_by_value():
    labels = [
        ["weights=0.5"],
        ["B=1"],
        ["loss"],
        ["A=x"],
        ["weights=0.25"],
        ["sampling", "loss"],
        ["sampling"],
        [],
    ]
    found = [name_of(tuple(v)) for v in sorted(labels, key=place_of)]
    in_order = ["baseline", "sampling", "loss", "weights=0.25", "weights=0.5", "A=x", "B=1", "sampling+loss"]
    assert found == in_order
