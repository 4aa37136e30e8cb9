# SPDX-License-Identifier: Apache-2.0
"""Testing weights on data sets: what `tools/test_net.py` does, and the end of every training."""

import json
import logging
import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detectron_libra.builders import session
from detectron_libra.builders.data import count_classes, load_test_datasets, test_loader
from detectron_libra.builders.detector import build_detector
from detectron_libra.builders.report import check_expectations, hold_against_expectations, report
from detectron_libra.config import Config, infer, with_values
from detectron_libra.data.coco import Dataset
from detectron_libra.engine.signals import StopFlag
from detectron_libra.engine.test import Detected, detect
from detectron_libra.engine.weights_file import load_weights
from detectron_libra.errors import UsageError
from detectron_libra.files import ensure_writable
from detectron_libra.weights.apply import apply_weights

log = logging.getLogger(__name__)


def precision_of(cfg: Config, *, training: bool) -> str:
    """Arithmetic of the model, "fp32" or "bf16"."""
    return cfg.TRAIN.PRECISION if training else cfg.TEST.PRECISION or cfg.TRAIN.PRECISION


def detect_on(
    cfg: Config, model: nn.Module, dataset: Dataset, device: torch.device, stop: StopFlag | None = None
) -> Detected:
    """Detections of every image of a set; ``stop`` ends it with SystemExit."""
    loader = test_loader(cfg, dataset, pin_memory=device.type == "cuda")
    return detect(model, loader, device=device, precision=precision_of(cfg, training=False), stop=stop)


def test(cfg: Config, weights: str | os.PathLike) -> None:
    """Test weights on TEST.DATASETS.

    Raises:
        UsageError: no data set. InputError: the weights or a data set cannot be read, or do not fit together.
    """
    if not cfg.TEST.DATASETS:
        raise UsageError("TEST.DATASETS: no data set is named; give at least one")
    device = session.start(cfg)
    names = class_names_of(weights)
    datasets = load_test_datasets(cfg, names)
    num_classes = count_classes(cfg, names or datasets[0].class_names)
    test_datasets(infer(with_values(cfg, {"MODEL.NUM_CLASSES": num_classes})), weights, datasets, device)


def refuse_foreign(path: str | os.PathLike, key: str) -> None:
    """Raises UsageError for a kind of weights that is not read yet; does not open the file."""
    if "://" in str(path) or str(path).endswith(".pkl"):
        raise UsageError(
            f"{key}: {path}: Detectron's .pkl files and addresses are not read yet; give a .safetensors or .pt of ours"
        )


def read_weights(
    path: str | os.PathLike, key: str = "TEST.WEIGHTS"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights and what the file tells about them, see ``engine.weights_file.load_weights``.

    Raises:
        UsageError: a kind of file that is not read yet. InputError: missing or damaged.
    """
    refuse_foreign(path, key)
    return load_weights(path)


def class_names_of(weights: str | os.PathLike) -> tuple[str, ...] | None:
    """The classes that weights were trained on; None where the file does not tell."""
    _, metadata = read_weights(weights)
    names = json.loads(metadata.get("class_names", "[]"))
    return tuple(names) or None


def load_detector(cfg: Config, weights: str | os.PathLike, device: torch.device) -> nn.Module:
    """The detector of a configuration with weights from a file, on ``device``, in evaluation mode."""
    state, _ = read_weights(weights)
    model = build_detector(cfg, cfg.MODEL.NUM_CLASSES)
    apply_weights(model, state, str(weights))
    return session.place(cfg, model, device).eval()


def test_datasets(
    cfg: Config, weights: str | os.PathLike, datasets: Sequence[Dataset], device: torch.device
) -> dict[str, dict]:
    """Run a detector over data sets, write what it found, measure and log it.

    Args:
        cfg: with the number of classes known.

    Returns:
        Results by data set; a set without annotations has none.
    """
    if not datasets:
        log.warning("TEST.DATASETS names no data set: nothing is tested")
        return {}
    model = load_detector(cfg, weights, device)
    results: dict[str, dict] = {}
    for dataset in datasets:
        folder = ensure_writable(session.test_folder(cfg, dataset.name))
        found = detect_on(cfg, model, dataset, device)
        log.info("%s: %d images, %.1f images/s", dataset.name, len(dataset.records), found.images_per_s)
        results |= report(cfg, dataset, found.detections, folder)
        log.info("written to %s", folder)
    return results
