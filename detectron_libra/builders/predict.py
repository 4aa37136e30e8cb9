# SPDX-License-Identifier: Apache-2.0
"""A trained detector as an object: images in, detections out, prepared exactly as in testing."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detectron_libra.builders import session
from detectron_libra.builders.augmentation import merging, views
from detectron_libra.builders.data import preparation
from detectron_libra.builders.rules import geometry_of
from detectron_libra.builders.testing import detect_on, load_detector, precision_of, read_weights
from detectron_libra.config import Config, infer, parse_config, with_options, with_values
from detectron_libra.data.batches import Prepared, arrange, collate, prepare
from detectron_libra.data.coco import Record
from detectron_libra.data.folder import as_dataset, list_images, without_boxes
from detectron_libra.data.images import read_image, read_size
from detectron_libra.data.plan import Sample
from detectron_libra.engine.saving import FINAL
from detectron_libra.engine.test import detect
from detectron_libra.errors import InputError, UsageError
from detectron_libra.evaluation.pictures import draw, write_picture
from detectron_libra.evaluation.results import write_json
from detectron_libra.files import ensure_writable
from detectron_libra.structures import Batch, Detections

log = logging.getLogger(__name__)

Image = str | os.PathLike | np.ndarray | Tensor


class Predictor:
    """A detector with its classes.

    Attributes:
        class_names: class c of a detection is ``class_names[c - 1]``.
        cfg: the configuration it was trained with.
    """

    def __init__(self, model: nn.Module, cfg: Config, class_names: tuple[str, ...], device: torch.device):
        self.model, self.cfg, self.class_names, self.device = model, cfg, class_names, device

    def predict(self, images: Sequence[Image] | Image) -> list[Detections]:
        """Detections of each image, best first, in pixels of the image.

        Args:
            images: one or several of: a path; an (H, W, 3) uint8 RGB array; a (3, H, W) uint8 RGB tensor.

        Raises:
            InputError: a file cannot be read. TypeError: something else than these.
        """
        many: list[Any] = [*images] if isinstance(images, (list, tuple)) else [images]
        groups = range(0, len(many), self.cfg.TEST.IMS_PER_BATCH)
        batches = (
            self._batch(many[k : k + self.cfg.TEST.IMS_PER_BATCH], k, view)
            for k in groups
            for view in views(self.cfg)
        )
        found = detect(
            self.model,
            batches,
            device=self.device,
            precision=precision_of(self.cfg, training=False),
            progress=False,
            merging=merging(self.cfg),
        )
        return [found.detections[k] for k in range(len(many))]

    def _batch(self, images: Sequence[Image], first: int, view: Sample) -> Batch:
        """The images in one view; their ids are their places, counted from ``first``."""
        items = [self._prepare(image, first + i, view) for i, image in enumerate(images)]
        return collate(items, stride=preparation(self.cfg).stride, with_targets=False)

    def _prepare(self, image: Image, number: int, view: Sample) -> Prepared:
        how = preparation(self.cfg)
        if isinstance(image, (str, os.PathLike)):
            return prepare(without_boxes(number, os.fspath(image), *read_size(os.fspath(image))), view, how)
        pixels = as_pixels(image)
        return arrange(pixels, without_boxes(number, f"image {number}", *pixels.shape[1:]), view, how)


def as_pixels(image: object) -> Tensor:
    """(3, H, W) uint8 RGB from a tensor of that shape or an (H, W, 3) array.

    Raises:
        TypeError: something else.
    """
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] == 3 and image.dtype == torch.uint8:
        return image.cpu()
    raise TypeError("an image is a path, an (H, W, 3) uint8 RGB array or a (3, H, W) uint8 RGB tensor")


def find_weights(place: str | os.PathLike) -> Path:
    """The weights themselves, or the newest final weights below the output folder of a run.

    Raises:
        InputError: there are none.
    """
    path = Path(place)
    if path.is_file():
        return path
    found = sorted(path.rglob(FINAL), key=lambda p: p.stat().st_mtime)
    if not found:
        raise InputError(
            f"{place}: no weights; give a .safetensors or .pt file, or the output folder of a run"
        )
    return found[-1]


def load(place: str | os.PathLike, *, cfg: Config | None = None, opts: Sequence[str] = ()) -> Predictor:
    """A trained detector.

    Args:
        place: weights (.safetensors or .pt of ours), or the output folder of a run.
        cfg: configuration; by default the one inside the weights.
        opts: ``[KEY, VALUE, ...]`` on top of it, such as ``["DEVICE", "cpu"]``.

    Raises:
        InputError: no weights, or they cannot be read. UsageError: they hold no configuration and none is given.
    """
    path = find_weights(place)
    _, metadata = read_weights(path)
    names = tuple(json.loads(metadata.get("class_names", "[]")))
    if cfg is None:
        if not metadata.get("config"):
            raise UsageError(f"{path}: no configuration in it; give the one it was trained with (--cfg)")
        cfg = parse_config(metadata["config"], str(path))
    cfg = with_options(cfg, opts)
    if cfg.MODEL.NUM_CLASSES == -1:
        cfg = with_values(cfg, {"MODEL.NUM_CLASSES": len(names) + 1})
    device = session.start(cfg)
    names = names or tuple(f"class {c}" for c in range(1, cfg.MODEL.NUM_CLASSES))
    return Predictor(load_detector(infer(cfg), path, device), cfg, names, device)


def predict_files(
    predictor: Predictor,
    place: str,
    output: str,
    *,
    extension: str = "",
    threshold: float = 0.7,
    picture_extension: str = "png",
    always: bool = False,
) -> dict[str, Detections]:
    """Detections of an image or of all images of a folder, written as pictures and as detections.json.

    Args:
        place: image or folder; extension: only files with this ending.
        output: folder of the results, made where it is missing.
        threshold: lowest score of a box that is drawn.
        picture_extension: png, jpg or pdf.
        always: write a picture even where nothing reaches the threshold.

    Returns:
        Detections by file.
    """
    folder = ensure_writable(output)
    dataset = as_dataset(list_images(place, extension), predictor.class_names)
    cfg = predictor.cfg
    found = detect_on(cfg, predictor.model, dataset, predictor.device)
    written = 0
    for record in dataset.records:
        detections = found.detections[record.image_id]
        if not always and not (detections.scores >= threshold).any():
            continue
        picture = draw(
            read_image(record.file),
            detections,
            None,
            predictor.class_names,
            threshold=threshold,
            extent=geometry_of(cfg).extent,
        )
        write_picture(folder / f"{Path(record.file).name}.{picture_extension}", picture)
        written += 1
    write_json(folder / "detections.json", [as_json(predictor, r, found.detections) for r in dataset.records])
    log.info(
        "%d images, %.1f images/s; %d pictures with boxes of score >= %g, and detections.json, in %s",
        len(dataset.records),
        found.images_per_s,
        written,
        threshold,
        folder,
    )
    return {str(file): detections for file, detections in found.detections.items()}


def as_json(predictor: Predictor, record: Record, found: dict) -> dict:
    """Detections of one image in words: file, size, and class, score and box [x1, y1, x2, y2] of each."""
    detections = found[record.image_id]
    rows = zip(
        detections.classes.tolist(), detections.scores.tolist(), detections.boxes.tolist(), strict=True
    )
    objects = [{"class": predictor.class_names[c - 1], "score": score, "box": box} for c, score, box in rows]
    return {"file": record.file, "width": record.width, "height": record.height, "objects": objects}
