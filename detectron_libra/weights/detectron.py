# SPDX-License-Identifier: Apache-2.0
"""Detectron's files of weights, read under the names of our models and written from them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detectron_libra.errors import InputError, RunError
from detectron_libra.files import atomic_write
from detectron_libra.weights.cfg_text import read_cfg, write_cfg, write_yaml
from detectron_libra.weights.contents import Weights
from detectron_libra.weights.detectron_names import MOMENTUM, OURS, blob_names, our_names
from detectron_libra.weights.detectron_settings import settings_of
from detectron_libra.weights.pickle_writer import write_pickle_of
from detectron_libra.weights.unpickle import load_pickle

log = logging.getLogger(__name__)

DETECTOR = ("neck.", "rpn.", "regions.", "head.")  # parts that a file of ImageNet weights does not have
WORDS = "detectron_libra"  # where our metadata is in a file; Detectron reads the blobs and the cfg alone
NAMED = 3  # names that a message lists


def read_pickle(path: str | os.PathLike) -> Weights:
    """Reads a .pkl of Detectron: of a detector, or the ImageNet weights that its trainings begin with.

    Args:
        path: the file.

    Returns:
        Weights of kind ``detectron``. Momentum is Detectron's own, see ``momentum.to_torch_momentum``; ``preserved``
        is what none of our models uses, under the file's names; ``metadata["config"]`` is its configuration as plain
        YAML. Metadata and settings that ``write_pickle`` stored come back.

    Raises:
        InputError: missing, damaged, or not weights of Detectron.

    Source: Detectron's utils/net.py.
    """
    return from_tree(load_pickle(path), str(path))


def recognise(tree: object) -> bool:
    """Whether what ``load_pickle`` gave is a file of Detectron."""
    if not isinstance(tree, dict):
        return False
    blobs = tree.get("blobs", tree)
    return isinstance(blobs, dict) and bool(our_names(_shapes(blobs)))


def from_tree(tree: object, source: str) -> Weights:
    """``read_pickle`` of what ``load_pickle`` gave; takes the arrays out of it, so that few are there twice."""
    if not isinstance(tree, dict) or not recognise(tree):
        raise InputError(f"{source}: not weights of Detectron: none of its names is a blob of theirs")
    cfg = _configuration(tree, source)
    metadata = _metadata(tree, source)
    blobs = tree.get("blobs", tree)
    blobs.pop("cfg", None)
    known = our_names(_shapes(blobs))
    state, momentum, preserved = _sorted(blobs, known, source)
    backbone_only = not any(name.startswith(DETECTOR) for name in state)
    if metadata:
        settings = _own_settings(metadata, source)
    else:
        settings = settings_of(state, known, cfg, backbone_only=backbone_only)
    return Weights(
        source=source,
        kind="detectron",
        state=state,
        metadata=metadata or ({} if cfg is None else {"config": write_yaml(cfg)}),
        settings=settings,
        momentum=momentum,
        preserved=preserved,
        backbone_only=backbone_only,
    )


def write_pickle(
    path: str | os.PathLike,
    *,
    state: Mapping[str, Tensor],
    config_text: str | None = None,
    momentum: Mapping[str, Tensor] | None = None,
    preserved: Mapping[str, np.ndarray] | None = None,
    metadata: Mapping[str, str] | None = None,
    norm: str = "affine",
) -> list[str]:
    """Writes weights as Detectron does: protocol 2, float32, whole or not at all.

    Args:
        path: the file.
        state: name of our model -> tensor, of any device and memory format.
        config_text: YAML of the configuration, stored in the form that Detectron's ``load_cfg`` needs; None: the file
            has none.
        momentum: parameter of our model -> Detectron's V, see ``momentum.from_torch_momentum``.
        preserved: arrays that go into the file as they are; a name that the state has too is the state's.
        metadata: texts that go with the weights and that Detectron does not read, such as our whole configuration;
            ``settings``, a JSON object, are those of ``Weights``. None, and no configuration: the file holds the blobs
            alone, as those of ImageNet weights do.
        norm: ``affine`` or ``group``, of the backbone: Detectron names its blobs by it.

    Returns:
        Our names for which Detectron has no blob: they are in the file behind ``libra.``, where Detectron carries them
        along and does not use them.

    Raises:
        InputError: ``config_text`` cannot be read. RunError: the file cannot be written.
    """
    names = blob_names(state, norm="gn" if norm == "group" else "bn")
    blobs = {names[name]: _stored(tensor) for name, tensor in state.items()}
    blobs |= {f"{names[name]}{MOMENTUM}": _stored(tensor) for name, tensor in (momentum or {}).items()}
    blobs |= {blob: _ordered(array) for blob, array in (preserved or {}).items() if blob not in blobs}
    tree: dict = {"blobs": blobs}
    if config_text is not None:
        tree["cfg"] = write_cfg(read_cfg(config_text, str(path)))
    if metadata:
        tree[WORDS] = dict(metadata)
    if list(tree) == ["blobs"]:
        tree = blobs

    def write(temporary: os.PathLike) -> None:
        with open(temporary, "wb") as file:
            write_pickle_of(tree, file)

    try:
        atomic_write(Path(path), write)
    except OSError as e:
        needed = sum(array.nbytes for array in blobs.values())
        raise RunError(f"{path}: {needed} bytes cannot be written ({e.strerror}); make room there") from e
    return [name for name, blob in names.items() if blob.startswith(OURS)]


def _sorted(
    blobs: dict, known: Mapping[str, str], source: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, np.ndarray]]:
    """State, momentum and the rest; empties ``blobs``."""
    state: dict[str, Tensor] = {}
    momentum: dict[str, Tensor] = {}
    preserved: dict[str, np.ndarray] = {}
    rounded: list[str] = []
    for blob in list(blobs):
        array = _array(blob, blobs.pop(blob), source)
        name = known.get(blob.removesuffix(MOMENTUM))
        if array is None:
            continue
        if name is None:
            preserved[blob] = array
        else:
            place = momentum if blob.endswith(MOMENTUM) else state
            place[name] = _tensor(blob, array, source, rounded)
    if rounded:
        log.warning("%s: digits beyond float32 are dropped in %s", source, _some(rounded))
    return state, momentum, preserved


def _shapes(blobs: Mapping) -> dict[str, tuple[int, ...]]:
    return {n: a.shape for n, a in blobs.items() if isinstance(n, str) and isinstance(a, np.ndarray)}


def _configuration(tree: Mapping, source: str) -> dict | None:
    text = tree.get("cfg")
    if text is None:
        return None
    if not isinstance(text, str):
        raise InputError(f"{source}: cfg: holds no text")
    return read_cfg(text, source)


def _metadata(tree: Mapping, source: str) -> dict[str, str]:
    words = tree.get(WORDS, {})
    if isinstance(words, dict) and all(isinstance(part, str) for pair in words.items() for part in pair):
        return words
    raise InputError(f"{source}: {WORDS}: holds no texts")


def _own_settings(metadata: Mapping[str, str], source: str) -> dict:
    try:
        settings = json.loads(metadata.get("settings") or "{}")
    except (ValueError, RecursionError):
        settings = None
    if isinstance(settings, dict):
        return settings
    raise InputError(f"{source}: {WORDS}: settings are no JSON object")


def _array(blob: object, value: object, source: str) -> np.ndarray | None:
    # Detectron passes over a blob without a value.
    if isinstance(blob, str) and (value is None or isinstance(value, np.ndarray)):
        return value
    raise InputError(f"{source}: {str(blob)[:80]!r} holds no array; the file is damaged or of another kind")


def _tensor(blob: str, array: np.ndarray, source: str, rounded: list[str]) -> Tensor:
    if array.dtype.kind in "iu" and blob.startswith(OURS):
        return torch.from_numpy(_ordered(array.astype(np.int64, copy=False)))
    if array.dtype.kind not in "iuf":
        raise InputError(f"{source}: {blob} holds {array.dtype.name}, which are no weights")
    with np.errstate(over="ignore"):
        values = _ordered(array.astype(np.float32, copy=False))
    if array.dtype.itemsize > 2 and not np.array_equal(values.astype(np.float64), array, equal_nan=True):
        rounded.append(blob)
    return torch.from_numpy(values)


def _ordered(array: np.ndarray) -> np.ndarray:
    # ascontiguousarray makes a vector of a single number.
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _stored(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float32)
    return tensor.contiguous().numpy()


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
