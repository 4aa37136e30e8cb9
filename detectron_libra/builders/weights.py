# SPDX-License-Identifier: Apache-2.0
"""Weights by path or address, in every format that is read; what a file is, its content says and not its name."""

import dataclasses
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from detectron_libra.builders.backbone import backbone_norm
from detectron_libra.config import Config, with_values
from detectron_libra.engine.checkpoint import is_checkpoint
from detectron_libra.engine.weights_file import ZIP, load_weights, metadata_of
from detectron_libra.errors import InputError
from detectron_libra.weights import detectron
from detectron_libra.weights.apply import BOXES, SCORES, apply_weights
from detectron_libra.weights.contents import OURS, Weights
from detectron_libra.weights.download import fetch, is_address
from detectron_libra.weights.foreign import from_state_dict
from detectron_libra.weights.torch_file import load_torch
from detectron_libra.weights.unpickle import load_pickle

log = logging.getLogger(__name__)

KNOWN = (
    "read are .safetensors and .pt of ours, .pkl of Detectron and detectron2, .pth of mmdetection, torchvision and "
    "detectron2"
)
#: How torch.save began a file before PyTorch 1.6: a pickle of its magic number.
TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
#: Beginnings of files that are taken for weights by mistake, and what they are.
MISTAKEN = {
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself (git lfs pull)",
    b"<": "a web page or XML",
    b"\x1f\x8b": "compressed (gzip); unpack it",
    b"{": "JSON",
    b"\x89HDF": "HDF5",
    b"\xff\xd8": "an image",
    b"\x89PNG": "an image",
}
#: A name of every one of our models and of no other program's.
OUR_NAMES = "backbone.stem."
BEGINNING = 64
NORM_KEY = "RESNETS.TRANS_FUNC"  # Detectron's word for the normalisation of the backbone
REMEDY = "write the file anew with tools/convert_weights.py"

Content = TypeVar("Content", list, dict)


def read_weights(place: str | os.PathLike, *, key: str, cache: str) -> Weights:
    """What a file of weights holds, under the names of our models.

    Args:
        place: a path, or an address (http, https), which is downloaded once.
        key: the key or flag that named it, for messages.
        cache: folder of downloads, DOWNLOAD_CACHE.

    Returns:
        The weights, on the CPU; ``source`` is ``place``.

    Raises:
        InputError: missing, damaged, no network, or of another kind.
    """
    source = os.fspath(place)
    try:
        return _read(locate(source, cache), source)
    except InputError as e:
        raise InputError(f"{key}: {e}") from e


def cache_folder(cfg: Config | None, opts: Sequence[str]) -> str:
    """DOWNLOAD_CACHE, which is needed before the configuration that weights may hold."""
    given = dict(zip(opts[::2], opts[1::2], strict=False))
    return given.get("DOWNLOAD_CACHE", (cfg or Config()).DOWNLOAD_CACHE)


def locate(place: str, cache: str) -> Path:
    """The file behind a path or an address, see ``weights.download.fetch``."""
    return fetch(place, cache) if is_address(place) else Path(place)


def from_checkpoint(state: Mapping[str, Any], source: str) -> Weights:
    """The weights of a checkpoint of ours that was read, see ``engine.checkpoint.load``."""
    return _of_ours(state["model"], metadata_of(state), source)


def class_names_of(weights: Weights) -> tuple[str, ...] | None:
    """The classes that weights were trained on; None where the file does not tell."""
    names = _json(weights, "class_names", list)
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{weights.source}: class_names in it are no list of names; {REMEDY}")
    return tuple(names) or None


def with_classes(cfg: Config, weights: Weights) -> Config:
    """``cfg`` with the number of classes that weights have: by their names, else by the shape of their scores."""
    names = class_names_of(weights)
    scores = weights.state.get("regions.predictor.cls_score.weight")
    head = weights.state.get("head.cls_pred.weight")
    r, count = cfg.RETINANET, cfg.MODEL.NUM_CLASSES
    if names:
        count = len(names) + 1
    elif scores is not None:
        count = scores.shape[0]
    elif head is not None:
        count = head.shape[0] // (len(r.ASPECT_RATIOS) * r.SCALES_PER_OCTAVE) + (not r.SOFTMAX)
    if count == cfg.MODEL.NUM_CLASSES:
        return cfg
    return with_values(cfg, {"MODEL.NUM_CLASSES": count}, weights.source)


def put_into(cfg: Config, model: nn.Module, weights: Weights, *, training: bool) -> list[str]:
    """Weights into the model of a configuration, see ``weights.apply.apply_weights``."""
    _require_norm(cfg, weights)
    layers = list(SCORES)
    if not cfg.MODEL.CLS_AGNOSTIC_BBOX_REG:
        layers.append(BOXES[0])
    if cfg.RETINANET.CLASS_SPECIFIC_BBOX:
        layers.append(BOXES[1])
    return apply_weights(model, weights, training=training, class_layers=layers)


def _require_norm(cfg: Config, weights: Weights) -> None:
    """Scales of GroupNorm and of Detectron's fixed affine layers have one name here, and mean different things."""
    if weights.kind != "detectron" or "format" in weights.metadata:
        return
    theirs = "_gn_" in str(weights.settings.get(NORM_KEY))
    if theirs != (backbone_norm(cfg) == "group"):
        norm = ("a fixed affine (RESNETS.NORM affine or batch)", "GroupNorm (RESNETS.NORM group)")[theirs]
        raise InputError(
            f"{weights.source}: its backbone is normalised by {norm}, that of the model is not; set it"
        )


def _read(path: Path, source: str) -> Weights:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # which a reader would wait for
            raise InputError(f"{source}: a pipe or a device; give a file of weights")
        with open(path, "rb") as file:
            beginning = file.read(BEGINNING)
    except IsADirectoryError:
        raise InputError(f"{source}: a folder; give the file of weights in it") from None
    except FileNotFoundError:
        raise InputError(f"{source}: no such file; check the path of the weights") from None
    except (OSError, ValueError) as e:
        raise InputError(f"{source}: cannot be read ({getattr(e, 'strerror', None) or e})") from None
    return _reader(path, beginning, source)(path, source)


def _reader(path: Path, beginning: bytes, source: str) -> Callable[[Path, str], Weights]:
    """The function that reads a file which begins so."""
    if beginning.startswith(ZIP):
        return _ours if is_checkpoint(path) else _torch
    if beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") < path.stat().st_size:
        return _safetensors
    if beginning.startswith(TORCH_LEGACY):
        return _torch
    if beginning[:1] in (b"\x80", b"(", b"}"):  # of protocol 2 and newer; a dict in older ones
        return _pickle
    found = next(
        (what for start, what in MISTAKEN.items() if beginning.startswith(start)), "of no kind that is known"
    )
    raise InputError(f"{source}: {found if beginning else 'empty'}; {KNOWN}")


def _ours(path: Path, source: str) -> Weights:
    return _of_ours(*load_weights(path), source)


def _of_ours(state: Mapping[str, Tensor], metadata: Mapping[str, str], source: str) -> Weights:
    weights = Weights(source, OURS, state, metadata=metadata)
    return dataclasses.replace(weights, settings=_json(weights, "settings", dict))


def _json(weights: Weights, name: str, kind: type[Content]) -> Content:
    """A text of the metadata that holds JSON; empty where there is none."""
    try:
        content = json.loads(weights.metadata.get(name) or "null")
    except (ValueError, RecursionError):
        content = ""
    if not isinstance(content, (kind, type(None))):
        raise InputError(f"{weights.source}: {name} in its metadata is no JSON {kind.__name__}; {REMEDY}")
    return content or kind()


def _safetensors(path: Path, source: str) -> Weights:
    weights = _ours(path, source)
    if weights.metadata.get("format") == OURS or _has_our_names(weights.state):
        return weights
    return from_state_dict(weights.state, source=source)


def _torch(path: Path, source: str) -> Weights:
    raw = load_torch(path)
    if _has_our_names(raw):
        return Weights(source, OURS, raw)
    return from_state_dict(raw, source=source)


def _pickle(path: Path, source: str) -> Weights:
    raw = load_pickle(path)
    if detectron.recognise(raw):
        return detectron.from_tree(raw, source)
    if not isinstance(raw, Mapping):
        raise InputError(f"{source}: holds a {type(raw).__name__} and no weights; {KNOWN}")
    return from_state_dict(raw, source=source)


def _has_our_names(names: Mapping) -> bool:
    return any(isinstance(name, str) and name.startswith(OUR_NAMES) for name in names)
