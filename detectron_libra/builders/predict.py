# SPDX-License-Identifier: Apache-2.0
"""A trained detector as an object: images in, detections out, prepared exactly as in testing."""

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
from detectron_libra.builders.data import class_names_at_hand, preparation
from detectron_libra.builders.reading import require_reader
from detectron_libra.builders.settings import configuration_for
from detectron_libra.builders.testing import load_detector, precision_of
from detectron_libra.builders.weights import cache_folder, class_names_of, read_weights, with_classes
from detectron_libra.config import Config, infer
from detectron_libra.data.batches import Prepared, arrange, collate, prepare
from detectron_libra.data.folder import without_boxes
from detectron_libra.data.images import read_size
from detectron_libra.data.plan import Sample
from detectron_libra.engine.saving import FINAL
from detectron_libra.engine.test import detect
from detectron_libra.errors import InputError, UsageError
from detectron_libra.structures import Batch, Detections
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
            f"{place}: no weights; give a file or address of weights, or the output folder of a run"
        )
    return found[-1]


def refuse_incomplete(cfg: Config) -> None:
    """Refuse a model that does not go from an image to detections on its own.

    Raises:
        UsageError: naming the key.
    """
    if cfg.MODEL.RPN_ONLY:
        raise UsageError(
            "MODEL.RPN_ONLY: True: a proposal network alone names no objects; give another model"
        )
    if cfg.FAST_RCNN.ROI_BOX_HEAD and not cfg.RPN.RPN_ON and not cfg.RETINANET.RETINANET_ON:
        raise UsageError(
            "MODEL.FASTER_RCNN: False: this model needs stored proposals of its images; test it with "
            "tools/test_net.py and TEST.PROPOSAL_FILES, or give one with an RPN"
        )


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
    require_reader(cfg)
    refuse_incomplete(infer(cfg))
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
