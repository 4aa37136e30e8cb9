# SPDX-License-Identifier: Apache-2.0
"""The experiments of docs/results are ready: their commands plan the runs that the page says, of the right networks."""

import re
from pathlib import Path

import pytest

from detectron_libra.builders.ablate import Planned, plan
from detectron_libra.builders.part_list import parse_parts
from detectron_libra.builders.parts import name_of
from detectron_libra.config import diff, load_config

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"`python tools/ablate\.py --cfg (\S+) --parts (\S+) --seeds (\d)` \| (\d+) \|")
COMMANDS = COMMAND.findall((ROOT / "docs/results/README.md").read_text())


def planned(file: str, parts: str, seeds: str) -> list[Planned]:
    cfg = load_config(str(ROOT / file))
    return plan(cfg, parts=parse_parts(parts, cfg), mode="single", seeds=int(seeds), out=Path("out"))


@pytest.mark.parametrize(("file", "parts", "seeds", "count"), COMMANDS)
def test_a_command_of_the_page_plans_as_many_runs_as_it_says(file, parts, seeds, count):
    assert len(planned(file, parts, seeds)) == int(count)
    assert f"--cfg {file} --parts {parts} --seeds {seeds}" in (ROOT / file).read_text()


def test_every_file_of_the_folder_is_on_the_page():
    assert {file for file, *_ in COMMANDS} == {
        f"configs/ablation/{p.name}" for p in (ROOT / "configs/ablation").iterdir()
    }


@pytest.mark.parametrize(("long_side", "short_side"), [(256, 192), (320, 240)])
def test_the_loss_weight_experiment_is_one_against_a_half_on_the_tiny_network(long_side, short_side):
    file = f"configs/ablation/loss_weight_{long_side}.yaml"
    runs = planned(file, "weights=1.0:0.5", "3")
    assert [name_of(run.variant) for run in runs] == ["baseline", "weights=0.5"] * 3
    assert [run.cfg.LOSS.WEIGHTS.BBOX for run in runs] == [1.0, 0.5] * 3
    cfg = runs[0].cfg
    assert cfg.MODEL.CONV_BODY == "FPN.add_fpn_resnet36_tiny_conv5_body"
    assert cfg.TRAIN.SCALES == (cfg.TEST.SCALE,) == (short_side,)
    assert cfg.TRAIN.MAX_SIZE == cfg.TEST.MAX_SIZE == long_side


def test_the_two_sizes_differ_in_the_size_alone():
    large, small = (load_config(str(ROOT / f"configs/ablation/loss_weight_{n}.yaml")) for n in (320, 256))
    keys = {line.split(":")[0] for line in diff(large, small)}
    assert keys == {"TRAIN.SCALES", "TRAIN.MAX_SIZE", "TEST.SCALE", "TEST.MAX_SIZE", "OUTPUT_DIR"}


@pytest.mark.parametrize("name", ["retinanet", "faster_rcnn"])
def test_all_parts_together_are_the_libra_detector_and_the_baseline_is_the_plain_one(name):
    runs = planned(f"configs/ablation/{name}.yaml", "sampling,pyramid,loss", "1")
    own = {"OUTPUT_DIR", "TEST.PICTURES", "SOLVER.MAX_ITER"}
    apart = own | {"LIBRA.IOU_SAMPLING.ON", "LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM"}
    for run, file in ((runs[0], name), (runs[-1], f"libra_{name}")):
        whole = load_config(str(ROOT / f"configs/bccd/{file}.yaml"))
        keys = {line.split(":")[0] for line in diff(whole, run.cfg)}
        assert keys <= apart | ({"LIBRA.BALANCED_L1.BETA"} if run is runs[0] else set())
