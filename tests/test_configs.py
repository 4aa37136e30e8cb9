# SPDX-License-Identifier: Apache-2.0
"""Every configuration of the repository trains one step and tests one step, its network as it is, on tiny images."""

import re
from pathlib import Path

import pytest
import torch

from detectron_libra.builders.detector import build_detector, loss_weights
from detectron_libra.builders.solver import build_solver
from detectron_libra.config import load_config
from detectron_libra.structures import Batch, ImageMeta, Proposals, Targets

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
FEW = {f"{phase}.RPN_{when}_NMS_TOP_N": 10 for phase in ("TRAIN", "TEST") for when in ("PRE", "POST")}
SMALL = [str(word) for pair in (FEW | {"TRAIN.BATCH_SIZE_PER_IM": 10}).items() for word in pair]
#: Networks of 100 million weights take seconds each; one of a kind is enough for every day.
EVERY_DAY = ("libra_faster_rcnn_X-101-64x4d-FPN_1x_released.yaml", "libra_retinanet_R-101-FPN_1x.yaml")
#: Files that change the schedule, the data or where training starts, and so have the network of another file.
SAME_NETWORK = re.compile(r"_2x\.yaml|_3x_gn|_3x_scratch|tutorial_[248]gpu|person_only")


def cases():
    for path in FILES:
        deep = ("101" in path.name or SAME_NETWORK.search(path.name)) and path.name not in EVERY_DAY
        name = str(path.relative_to(ROOT / "configs"))
        yield pytest.param(path, id=name, marks=[pytest.mark.slow] if deep else [])


def make_batch(stride: int, num_classes: int, proposals: bool) -> Batch:
    """Two images of noise with a box each; the second is smaller and has a crowd. With stored proposals if asked."""
    height, width = max(stride, 64), max(stride, 96)
    boxes = torch.tensor([[[8.0, 8, 40, 40], [0, 0, 0, 0]], [[16, 4, 60, 30], [0, 0, 20, 20]]])
    targets = Targets(
        boxes, torch.tensor([[1, 0], [num_classes - 1, 1]]), torch.tensor([[False] * 2, [False, True]])
    )
    metas = tuple(ImageMeta(k, f"{k}.jpg", height, width, 1.0) for k in range(2))
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    corner = torch.rand(2, 10, 2) * 30
    boxes = torch.cat([corner, corner + 10 + torch.rand(2, 10, 2) * 20], -1)
    stored = Proposals(boxes, torch.ones(2, 10), torch.arange(20).view(2, 10) < 18) if proposals else None
    sizes = torch.tensor([[height, width], [60, 90]])
    return Batch(images, sizes, targets, metas, proposals=stored)


@pytest.fixture(autouse=True)
def same_numbers():
    """One seed; and as a run has it, denormals flushed: random deep networks are many times slower with them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.set_flush_denormal(True)
        yield
        torch.set_flush_denormal(False)


def test_every_folder_of_configurations_is_looked_at():
    assert {p.parent.name for p in FILES} >= {
        "quickstart",
        "bccd",
        "baselines",
        "libra",
        "getting_started",
        "gn",
        "scratch",
        "ablation",
    }
    assert len(FILES) >= 72


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_a_configuration_loads_and_writes_where_its_name_says(path):
    cfg = load_config(str(path), [])
    assert Path(cfg.OUTPUT_DIR).parts[:2] == ("out", path.parent.name)
    assert path.parent.name == "quickstart" or Path(cfg.OUTPUT_DIR).name == path.stem
    assert cfg.TRAIN.DATASETS and cfg.TEST.DATASETS
    assert any(part.ON for part in vars(cfg.LIBRA).values()) == ("libra" in path.name)


@pytest.mark.parametrize("path", list(cases()))
def test_a_configuration_trains_one_step_and_tests_one(path):
    cfg = load_config(str(path), SMALL)
    num_classes = cfg.MODEL.NUM_CLASSES if cfg.MODEL.NUM_CLASSES > 0 else 4
    model = build_detector(cfg, num_classes).train()
    optimizer, _ = build_solver(cfg, model)
    batch = make_batch(cfg.FPN.COARSEST_STRIDE, num_classes, cfg.TEST.PRECOMPUTED_PROPOSALS)
    weights = loss_weights(cfg)
    losses, _ = model(batch)
    assert losses.keys() == weights.keys()
    torch.stack([weights[name] * loss for name, loss in losses.items()]).sum().backward()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert [name for name, p in trained if p.grad is None] == []
    optimizer.step()
    assert all(torch.isfinite(p).all() for _, p in trained)

    model.eval()
    with torch.inference_mode():
        found = model(batch)
    assert len(found) == 2
    for detections in found:
        assert detections.boxes.shape == (len(detections), 4)
        assert torch.all((detections.classes > 0) & (detections.classes < num_classes))
        assert torch.all(detections.scores.diff() <= 0)
