# SPDX-License-Identifier: Apache-2.0
"""A trained detector as an object: images in, detections out, prepared exactly as in testing."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from detectron_libra.builders import session
from detectron_libra.builders.data import preparation
from detectron_libra.builders.testing import load_detector, precision_of, read_weights
from detectron_libra.config import Config, infer, parse_config, with_options, with_values
from detectron_libra.data.batches import arrange, collate, prepare
from detectron_libra.data.folder import without_boxes
from detectron_libra.data.images import read_size
from detectron_libra.data.plan import Sample
from detectron_libra.engine.saving import FINAL
from detectron_libra.errors import InputError, UsageError
from detectron_libra.structures import Detections

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
    refuse_incomplete(infer(cfg))
    if cfg.MODEL.NUM_CLASSES == -1:
        cfg = with_values(cfg, {"MODEL.NUM_CLASSES": len(names) + 1})
    device = session.start(cfg)
    names = names or tuple(f"class {c}" for c in range(1, cfg.MODEL.NUM_CLASSES))
    return Predictor(load_detector(infer(cfg), path, device), cfg, names, device)
