# SPDX-License-Identifier: Apache-2.0
"""Testing weights on data sets: what `tools/test_net.py` does, and the end of every training."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from detectron_libra.builders import session
from detectron_libra.builders.augmentation import merging
from detectron_libra.builders.data import count_classes, load_test_datasets, test_loader
from detectron_libra.builders.detector import build_detector
from detectron_libra.builders.rules import geometry_of
from detectron_libra.config import Config, dump, infer, with_values
from detectron_libra.data.coco import Dataset
from detectron_libra.data.images import read_image
from detectron_libra.engine.signals import StopFlag
from detectron_libra.engine.test import Detected, detect
from detectron_libra.engine.weights_file import load_weights
from detectron_libra.errors import UsageError
from detectron_libra.evaluation.coco import to_coco_results
from detectron_libra.evaluation.pictures import write_pictures
from detectron_libra.evaluation.results import log_copypaste, results_dict, write_detections, write_json
from detectron_libra.evaluation.table import summary_table
from detectron_libra.files import ensure_writable
from detectron_libra.structures import Detections
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
    precision = precision_of(cfg, training=False)
    return detect(model, loader, device=device, precision=precision, stop=stop, merging=merging(cfg))


def measure(cfg: Config, dataset: Dataset, detections: Mapping[int | str, Detections]) -> dict[str, dict]:
    """Everything that is measured on one set, under its name."""
    return results_dict(
        dataset,
        detections,
        extent=geometry_of(cfg).extent,
        threshold=cfg.TEST.CONCEPT_THRESH,
        iou=cfg.TEST.BOX_IOU_THRESH,
    )


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


def report(
    cfg: Config, dataset: Dataset, detections: Mapping[int | str, Detections], folder: Path
) -> dict[str, dict]:
    """Write detections, pictures and, where the set has annotations, results.json; log the table."""
    extent = geometry_of(cfg).extent
    write_detections(folder / "detections.pkl", dataset, detections, config_text=dump(cfg))
    write_json(
        folder / f"bbox_{dataset.name}_results.json", to_coco_results(dataset, detections, extent=extent)
    )
    if cfg.TEST.PICTURES:
        pictures = write_pictures(
            dataset,
            detections,
            folder / "pictures",
            count=cfg.TEST.PICTURES,
            threshold=cfg.TEST.CONCEPT_THRESH,
            read_image=read_image,
            extent=extent,
        )
        log.info("%d pictures in %s", len(pictures), folder / "pictures")
    if not dataset.annotated:
        log.warning("%s has no annotations: detections are written, nothing is measured", dataset.name)
        return {}
    results = measure(cfg, dataset, detections)
    write_json(folder / "results.json", results)
    log.info("\n%s", summary_table(results))
    log_copypaste(results)
    return results
