# SPDX-License-Identifier: Apache-2.0
"""A trained detector as an object: images in, detections out, prepared exactly as in testing."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from detectron_libra.builders import session
from detectron_libra.builders.data import class_names_at_hand, preparation, test_loader
from detectron_libra.builders.rules import geometry_of
from detectron_libra.builders.settings import configuration_for
from detectron_libra.builders.testing import load_detector, precision_of
from detectron_libra.builders.weights import cache_folder, class_names_of, read_weights, with_classes
from detectron_libra.config import Config, infer
from detectron_libra.data.batches import arrange, collate, prepare
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
from detectron_libra.structures import Detections
from detectron_libra.weights.download import is_address

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
        many = images if isinstance(images, (list, tuple)) else [images]
        precision = precision_of(self.cfg, training=False)
        found: list[Detections] = []
        self.model.eval()
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"),
        ):
            for k in range(0, len(many), self.cfg.TEST.IMS_PER_BATCH):
                group = many[k : k + self.cfg.TEST.IMS_PER_BATCH]
                items = [self._prepare(image, k + i) for i, image in enumerate(group)]
                batch = collate(items, stride=preparation(self.cfg).stride, with_targets=False)
                found += [d.to("cpu") for d in self.model(batch.to(self.device))]
        return found

    def _prepare(self, image: Image, number: int):
        how = preparation(self.cfg)
        sample = Sample(0, self.cfg.TEST.SCALE)
        if isinstance(image, (str, os.PathLike)):
            return prepare(without_boxes(number, os.fspath(image), *read_size(os.fspath(image))), sample, how)
        pixels = as_pixels(image)
        return arrange(pixels, without_boxes(number, f"image {number}", *pixels.shape[1:]), sample, how)


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


def load(
    place: str | os.PathLike, *, cfg: Config | None = None, opts: Sequence[str] = (), key: str = "weights"
) -> Predictor:
    """A trained detector.

    Args:
        place: path or address of weights, or the output folder of a run.
        cfg: configuration; by default the one inside the weights.
        opts: ``[KEY, VALUE, ...]`` on top of it, such as ``["DEVICE", "cpu"]``.
        key: what named the weights, for messages.

    Raises:
        InputError: no weights, or they cannot be read. UsageError: they hold no configuration and none is given.
    """
    source = os.fspath(place) if is_address(os.fspath(place)) else find_weights(place)
    weights = read_weights(source, key=key, cache=cache_folder(cfg, opts))
    cfg = configuration_for(weights, cfg, opts)
    if cfg is None:
        raise UsageError(
            f"{weights.source}: no configuration in it; give the one it was trained with (--cfg)"
        )
    if cfg.MODEL.NUM_CLASSES == -1:
        cfg = with_classes(cfg, weights)
    if cfg.MODEL.NUM_CLASSES == -1:
        raise InputError(f"{source}: does not tell the number of classes; set MODEL.NUM_CLASSES")
    names = class_names_of(weights) or class_names_at_hand(cfg)
    if not names:
        names = tuple(f"class {c}" for c in range(1, cfg.MODEL.NUM_CLASSES))
        log.info(
            "%s names no classes, and no data set of the configuration is at hand: they are called by number",
            source,
        )
    device = session.start(cfg)
    return Predictor(load_detector(infer(cfg), weights, device), cfg, names, device)


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
    cfg, device = predictor.cfg, predictor.device
    loader = test_loader(cfg, dataset, pin_memory=device.type == "cuda")
    found = detect(predictor.model, loader, device=device, precision=precision_of(cfg, training=False))
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
