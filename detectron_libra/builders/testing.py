# SPDX-License-Identifier: Apache-2.0
"""Testing weights on data sets: what `tools/test_net.py` does, and the end of every training."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from detectron_libra.builders import session
from detectron_libra.builders.augmentation import merging
from detectron_libra.builders.data import count_classes, load_test_datasets, test_loader
from detectron_libra.builders.detector import build_detector
from detectron_libra.builders.pieces import Range, count_processes, cut, detect_in_pieces, write_piece
from detectron_libra.builders.reading import require_reader
from detectron_libra.builders.report import Found, check_expectations, hold_against_expectations, report
from detectron_libra.builders.settings import apply_settings
from detectron_libra.builders.weights import class_names_of, put_into, read_weights
from detectron_libra.config import Config, infer, with_values
from detectron_libra.data.coco import Dataset
from detectron_libra.engine.progress import Progress
from detectron_libra.engine.signals import StopFlag
from detectron_libra.engine.test import Detected, detect
from detectron_libra.errors import UsageError
from detectron_libra.files import ensure_writable
from detectron_libra.weights.contents import Weights

log = logging.getLogger(__name__)

#: Seconds between two looks for weights that are waited for.
PERIOD_S = 1.0


def precision_of(cfg: Config, *, training: bool) -> str:
    """Arithmetic of the model, "fp32" or "bf16"."""
    return cfg.TRAIN.PRECISION if training else cfg.TEST.PRECISION or cfg.TRAIN.PRECISION


def detect_on(
    cfg: Config,
    model: nn.Module,
    dataset: Dataset,
    device: torch.device,
    stop: StopFlag | None = None,
    *,
    span: Range | None = None,
    total: int = 0,
) -> Detected:
    """Detections of every image of a set; ``stop`` ends it with SystemExit.

    Args:
        span: the place of these images among ``total`` ones, for the log.
    """
    loader = test_loader(cfg, dataset, pin_memory=device.type == "cuda")
    count = len(dataset.records)
    return detect(
        model,
        loader,
        device=device,
        precision=precision_of(cfg, training=False),
        stop=stop,
        merging=merging(cfg),
        told=Progress(span[0] if span else 0, count, total or count),
    )


def test(
    cfg: Config,
    place: str | os.PathLike,
    *,
    piece: Range | None = None,
    tool: Path | None = None,
) -> None:
    """Test weights on TEST.DATASETS.

    Args:
        place: path or address of the weights.
        piece: detect in these images only, of the one set that is named, and measure nothing.
        tool: test with NUM_GPUS processes of this program (tools/test_net.py); None tests in this one.

    Raises:
        UsageError: no data set, or several where one is due. InputError: the weights or a data set cannot be read,
        or do not fit together.
    """
    if not cfg.TEST.DATASETS:
        raise UsageError("TEST.DATASETS: no data set is named; give at least one")
    if piece and len(cfg.TEST.DATASETS) > 1:
        raise UsageError(f"TEST.DATASETS: {', '.join(cfg.TEST.DATASETS)}: --range takes exactly one")
    require_reader(cfg)
    device = session.start(cfg)
    weights = read_weights(place, key="TEST.WEIGHTS", cache=cfg.DOWNLOAD_CACHE)
    cfg = apply_settings(cfg, weights.settings, weights.source)
    names = class_names_of(weights)
    datasets = load_test_datasets(cfg, names)
    num_classes = count_classes(cfg, names or datasets[0].class_names)
    cfg = infer(with_values(cfg, {"MODEL.NUM_CLASSES": num_classes}))
    if piece:
        test_piece(cfg, weights, datasets[0], device, piece)
        return
    check_expectations(cfg, datasets)
    test_datasets(cfg, weights, datasets, device, tool=tool)


def test_piece(cfg: Config, weights: Weights, dataset: Dataset, device: torch.device, piece: Range) -> None:
    """Run a detector over some images of a set and write what it found, for the process that puts pieces together."""
    part = cut(dataset, piece)
    folder = ensure_writable(session.test_folder(cfg, dataset.name))
    model = load_detector(cfg, weights, device)
    found = detect_on(cfg, model, part, device, span=piece, total=len(dataset.records))
    write_piece(cfg, part, found.detections, folder, piece)


def wait_for(weights: str) -> None:
    """Wait until a file of weights is there; an address is not waited for."""
    if "://" in weights or os.path.exists(weights):
        return
    log.info("waiting for %s", weights)
    while not os.path.exists(weights):
        time.sleep(PERIOD_S)


def load_detector(cfg: Config, weights: Weights, device: torch.device) -> nn.Module:
    """The detector of a configuration with weights, on ``device``, in evaluation mode."""
    model = build_detector(cfg, cfg.MODEL.NUM_CLASSES)
    put_into(cfg, model, weights, training=False)
    return session.place(cfg, model, device).eval()


def test_datasets(
    cfg: Config,
    weights: Weights,
    datasets: Sequence[Dataset],
    device: torch.device,
    *,
    tool: Path | None = None,
) -> dict[str, dict]:
    """Run a detector over data sets, write what it found, measure and log it.

    Args:
        cfg: with the number of classes known.
        tool: as in ``test``.

    Returns:
        Results by data set; a set without annotations has none.

    Raises:
        RunError: results are not those of EXPECTED_RESULTS.
    """
    if not datasets:
        log.warning("TEST.DATASETS names no data set: nothing is tested")
        return {}
    detect_set = how_to_detect(cfg, weights, device, tool)
    results: dict[str, dict] = {}
    for dataset in datasets:
        folder = ensure_writable(session.test_folder(cfg, dataset.name))
        begun = time.perf_counter()
        detections = detect_set(dataset, folder)
        pace = len(dataset.records) / max(time.perf_counter() - begun, 1e-9)
        log.info("%s: %d images, %.1f images/s", dataset.name, len(dataset.records), pace)
        results |= report(cfg, dataset, detections, folder)
        log.info("written to %s", folder)
    hold_against_expectations(cfg, results)
    return results


def how_to_detect(
    cfg: Config, weights: Weights, device: torch.device, tool: Path | None
) -> Callable[[Dataset, Path], Found]:
    """A function of a data set and a folder for what is under way: with a model in this process, or in several."""
    processes = count_processes(cfg, device) if tool else 1
    if tool and processes > 1:
        on_gpus = device.type == "cuda"
        return partial(detect_in_pieces, cfg, weights.source, tool=tool, processes=processes, on_gpus=on_gpus)
    model = load_detector(cfg, weights, device)
    return lambda dataset, _: detect_on(cfg, model, dataset, device).detections
