# SPDX-License-Identifier: Apache-2.0
"""Weights from one format into another: what `tools/convert_weights.py` does."""

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron_libra.builders.backbone import backbone_norm
from detectron_libra.builders.momentum import momentum_of_state, state_from_momentum
from detectron_libra.builders.settings import beyond_defaults, configuration_for, settings_in_use
from detectron_libra.builders.weights import (
    cache_folder,
    class_names_of,
    from_checkpoint,
    locate,
    read_weights,
    with_classes,
)
from detectron_libra.config import Config, dump
from detectron_libra.config.detectron import detectron_values, only_ours
from detectron_libra.config.dump import show
from detectron_libra.engine import checkpoint
from detectron_libra.engine.weights_file import metadata_of, save_safetensors
from detectron_libra.errors import InputError, UsageError
from detectron_libra.weights.cfg_text import write_cfg
from detectron_libra.weights.contents import Weights
from detectron_libra.weights.detectron import write_pickle
from detectron_libra.weights.download import is_address

log = logging.getLogger(__name__)

ENDINGS = (".safetensors", ".pkl", ".pt")
NAMED = 4  # names that the report lists


@dataclass(frozen=True)
class Source:
    """What is converted.

    Attributes:
        weights: of the file.
        cfg: configuration that the weights are used with, where one is known, with the number of classes.
        state: of a checkpoint of ours, else None.
    """

    weights: Weights
    cfg: Config | None
    state: dict[str, Any] | None


def convert(
    place: str,
    target: str,
    *,
    cfg: Config | None = None,
    opts: Sequence[str] = (),
    iteration: int | None = None,
) -> str:
    """Write weights in the format that the target's ending names.

    Args:
        place: path or address, of any kind that is read; its content says which.
        target: .safetensors, .pkl (Detectron's) or .pt (a checkpoint to go on from).
        cfg: configuration of the weights; by default the one inside the file.
        opts: ``[KEY, VALUE, ...]`` on top of it.
        iteration: the last one that the weights were trained for, counted from 0, where their file does not say.

    Returns:
        One line: what was read, what was written, what was left out, and what the weights need.

    Raises:
        UsageError: an ending that is not written, the same file twice, or a configuration is missing. InputError: the
        source cannot be read. RunError: the target cannot be written.
    """
    ending = Path(target).suffix
    if ending not in ENDINGS:
        raise UsageError(f"{target}: its ending says no format that is written; use {', '.join(ENDINGS)}")
    if (
        not is_address(place)
        and os.path.exists(target)
        and os.path.exists(place)
        and os.path.samefile(place, target)
    ):
        raise UsageError(f"{target}: this is the file that is read; give another name")
    source = read(place, cfg, opts)
    if ending == ".pt" and source.state and (cfg or opts):
        raise UsageError(f"{place}: a checkpoint becomes one as it is; leave out --cfg and KEY VALUE pairs")
    write = {".safetensors": _write_safetensors, ".pkl": _write_pkl, ".pt": _write_pt}[ending]
    said = write(source, target, iteration)
    return f"{_describe(source)} -> {target}: {'; '.join([*said, *_needs(source)])}"


def read(place: str, cfg: Config | None, opts: Sequence[str]) -> Source:
    """The file, and the configuration that goes with it."""
    cache = cache_folder(cfg, opts)
    path = locate(place, cache)
    state = checkpoint.load(path) if path.is_file() and checkpoint.is_checkpoint(path) else None
    weights = from_checkpoint(state, place) if state else read_weights(place, key="IN", cache=cache)
    try:
        found = configuration_for(weights, cfg, opts)
    except UsageError as e:
        if cfg is not None or opts:
            raise
        log.warning("the configuration in it is not kept: %s", "; ".join(str(e).splitlines()))
        found = None
    return Source(weights, found and with_classes(found, weights), state)


def _write_safetensors(source: Source, target: str, iteration: int | None) -> list[str]:
    weights = source.weights
    save_safetensors(target, weights.state, {**weights.metadata, **metadata_of(_words(source, iteration))})
    left_out = {
        f"the momentum of {len(weights.momentum)} parameters": weights.momentum,
        "optimizer and random state": source.state,
        f"{len(weights.preserved)} blobs that no model has ({_some(weights.preserved)})": weights.preserved,
    }
    said = [text for text, there in left_out.items() if there]
    return [
        f"{len(weights.state)} tensors, {'its' if source.cfg else 'no'} configuration",
        *([f"left out: {', '.join(said)}"] if said else []),
    ]


def _write_pkl(source: Source, target: str, iteration: int | None) -> list[str]:
    weights, cfg, state = source.weights, source.cfg, source.state
    momentum = momentum_of_state(cfg, state, weights.source) if state and cfg else weights.momentum
    unknown = write_pickle(
        target,
        state=weights.state,
        config_text=write_cfg(detectron_values(cfg)) if cfg else None,
        momentum=momentum,
        preserved=weights.preserved,
        metadata=metadata_of(_words(source, iteration)),
        norm="group" if cfg and backbone_norm(cfg) == "group" else "affine",
    )
    ours = ", ".join(f"{name} {show(value)}" for name, value in only_ours(cfg).items()) if cfg else ""
    said = {
        f"{len(weights.state)} blobs, {'its' if cfg else 'no'} configuration": True,
        f"momentum of {len(momentum)} parameters": momentum,
        "left out: its optimizer, which is not SGD with momentum": state and not momentum,
        f"preserved: {len(weights.preserved)} blobs that no model has": weights.preserved,
        f"without a blob of Detectron, behind libra.: {len(unknown)} ({_some(unknown)})": unknown,
        f"Detectron has no key for {ours}, which our part of the file keeps": ours,
    }
    return [text for text, there in said.items() if there]


def _write_pt(source: Source, target: str, iteration: int | None) -> list[str]:
    if source.state:
        checkpoint.save(target, source.state)
        return [f"the checkpoint after iteration {source.state['iteration']}"]
    weights, cfg, words = source.weights, source.cfg, _words(source, iteration)
    if not weights.momentum:
        raise InputError(
            f"{weights.source}: no momentum in it, so that no training can go on from it; write a .safetensors "
            "and begin one with it (TRAIN.WEIGHTS)"
        )
    if cfg is None:
        raise UsageError(
            f"{weights.source}: no configuration in it; give the one it was trained with (--cfg)"
        )
    if words["iteration"] == "":
        raise UsageError(
            f"{weights.source}: does not say after which iteration it was written; give it (--iteration)"
        )
    state, lr = state_from_momentum(cfg, weights, words)
    checkpoint.save(target, state)
    said = (
        f"a checkpoint after iteration {words['iteration']}, its momentum divided by the learning rate {lr:g}"
    )
    lost = [f"left out: {len(weights.preserved)} blobs that no model has"] if weights.preserved else []
    return [said, *lost]


def _words(source: Source, iteration: int | None) -> dict[str, Any]:
    weights, cfg = source.weights, source.cfg
    return {
        "iteration": _iteration(source, iteration),
        "config": dump(cfg) if cfg else "",
        "class_names": class_names_of(weights) or (),
        "settings": settings_in_use(cfg, weights.settings) if cfg else weights.settings,
    }


def _iteration(source: Source, given: int | None) -> int | str:
    """The last iteration that was trained: as given, or as the file or its name says; "" where nothing does."""
    known = source.weights.metadata.get("iteration", "")
    match = re.search(r"model_iter(\d+)\.\w+$", source.weights.source)
    if given is not None:
        return given
    if known.isdigit():
        return int(known)
    if match:
        return int(match[1])
    final = re.search(r"model_final\.\w+$", source.weights.source)
    return source.cfg.SOLVER.MAX_ITER - 1 if final and source.cfg else ""


def _needs(source: Source) -> list[str]:
    """Keys that the weights need and that are no defaults."""
    needed = beyond_defaults(source.weights.settings, source.weights.source)
    words = ", ".join(f"{name} {show(value)}" for name, value in needed.items())
    return [f"these weights need {words}"] if words else []


def _describe(source: Source) -> str:
    """What was read, in a few words."""
    weights, cfg, names = source.weights, source.cfg, class_names_of(source.weights)
    parts = [f"{weights.source}: {weights.kind}", f"{len(weights.state)} tensors"]
    if weights.momentum:
        parts.append(f"momentum of {len(weights.momentum)}")
    if weights.backbone_only:
        parts.append("a backbone")
    elif names:
        parts.append(f"{len(names)} classes ({_some(names)})")
    elif cfg and cfg.MODEL.NUM_CLASSES > 1:
        parts.append(f"{cfg.MODEL.NUM_CLASSES - 1} classes")
    return ", ".join(parts)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
