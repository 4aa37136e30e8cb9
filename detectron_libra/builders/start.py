# SPDX-License-Identifier: Apache-2.0
"""What a training begins with: the newest checkpoint of its folder, weights from elsewhere, or random numbers."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from detectron_libra.builders.settings import DECODING, apply_settings, settings_in_use
from detectron_libra.builders.weights import put_into, read_weights
from detectron_libra.config import Config, diff, parse_config
from detectron_libra.engine import checkpoint
from detectron_libra.engine.saving import FINAL
from detectron_libra.errors import RunError, UsageError
from detectron_libra.files import atomic_write
from detectron_libra.weights.contents import Weights
from detectron_libra.weights.download import fetch, is_address

log = logging.getLogger(__name__)

#: Policies whose learning rate depends on SOLVER.MAX_ITER.
BY_MAX_ITER = ("cosine", "cosine_decay", "exp_decay")
#: Keys, and beginnings of keys, that a resumed run may have otherwise.
FREE_KEYS = (
    "SOLVER.MAX_ITER",
    "OUTPUT_DIR",
    "TEST.",
    "DATA.WORKERS",
    "DATA.CHECK",
    "DATA.CACHE",
    "DATA.TIMEOUT_S",
    "DATA_LOADER.",
    "LOG.",
    "ROOT_DIR",
    "DOWNLOAD_CACHE",
    "VIS",
    "EXPECTED_RESULTS",
    "TRAIN.SNAPSHOT_ITERS",
    "TRAIN.CHECKPOINTS_KEPT",
    "TRAIN.EVAL_PERIOD",
    "TRAIN.EVAL_IN_BACKGROUND",
    "TRAIN.EVAL_RESULTS",
    "TRAIN.AUTO_RESUME",
    "TRAIN.ON_NONFINITE",
    "TRAIN.NONFINITE_LIMIT",
    "TRAIN.COPY_WEIGHTS",
)


@dataclass
class Start:
    """What was found to begin with.

    Attributes:
        cfg: the configuration, with the keys that the weights need.
        checkpoint: to go on from; None in a new run.
        weights: of TRAIN.WEIGHTS, until they are in the model.
        settings: keys that the weights needed, and how images are decoded, with the values in use.
    """

    cfg: Config
    checkpoint: checkpoint.Checkpoint | None
    weights: Weights | None
    settings: Mapping[str, object]

    def put_into(self, model: nn.Module) -> None:
        """Weights of TRAIN.WEIGHTS into the model; frees them."""
        if self.weights is None:
            return
        put_into(self.cfg, model, self.weights, training=True)
        if self.weights.momentum:
            log.info("%s: its momentum is not used, this training begins without", self.weights.source)
        if self.weights.preserved:
            log.info(
                "%s: %d blobs that no model has are left out",
                self.weights.source,
                len(self.weights.preserved),
            )
        log.info("weights to begin with: %s (%s)", self.weights.source, self.weights.kind)
        self.weights = None


def find_start(cfg: Config, folder: Path, resume: str) -> Start:
    """Look for what to begin with, before any data is read; a resumed run never opens TRAIN.WEIGHTS.

    Args:
        resume: "auto", "must" or "never", as in ``training.train_and_test``.

    Raises:
        UsageError: there must be a checkpoint and is none. InputError: a file cannot be read.
    """
    found = None if resume == "never" else checkpoint.latest(folder)
    weights = None
    settings: Mapping[str, object] = {}
    source = cfg.TRAIN.WEIGHTS
    if found:
        settings, source = found.state.get("settings", {}), str(found.path)
    elif resume == "must":
        raise UsageError(f"{folder}: no checkpoint to resume from; start without --resume")
    elif source:
        weights = read_weights(source, key="TRAIN.WEIGHTS", cache=cfg.DOWNLOAD_CACHE)
        settings = weights.settings
    elif cfg.TRAIN.FREEZE_AT > 0:
        log.warning(
            "TRAIN.WEIGHTS is empty and TRAIN.FREEZE_AT is %d: those stages stay random for ever; set it to 0, and "
            "RESNETS.NORM to batch or group, to train from random weights",
            cfg.TRAIN.FREEZE_AT,
        )
    cfg = apply_settings(cfg, settings, source)
    handed_on = settings_in_use(cfg, {**settings, **dict.fromkeys(DECODING)})
    return Start(cfg, found, weights, handed_on)


def remove_earlier(folder: Path) -> None:
    """Delete the checkpoints and final weights of an earlier run."""
    old = [*folder.glob("model_iter*.pt"), folder / FINAL]
    for path in (p for p in old if p.exists()):
        log.warning("%s is of an earlier run and is removed", path)
        path.unlink()


def refuse_changes(cfg: Config, found: checkpoint.Checkpoint, *, force: bool) -> None:
    """Raises UsageError where the configuration of a resumed run has changed, but for ``force``."""
    before = parse_config(found.state["config"], str(found.path))
    changed = changes(before, cfg, free=FREE_KEYS, datasets=cfg.TRAIN.DATASETS)
    if cfg.SOLVER.LR_POLICY in BY_MAX_ITER and before.SOLVER.MAX_ITER != cfg.SOLVER.MAX_ITER:
        log.warning(
            "SOLVER.MAX_ITER has changed, and with %s the learning rate with it", cfg.SOLVER.LR_POLICY
        )
    if changed and not force:
        raise UsageError(
            f"{found.path}: the configuration has changed since: {'; '.join(changed)}; undo it, resume with --force, "
            "or start anew with --no-resume"
        )
    for line in changed:
        log.warning("resumed with a changed configuration: %s", line)


def changes(before: Config, now: Config, *, free: Sequence[str], datasets: Sequence[str]) -> list[str]:
    """``KEY: old -> new`` of what makes another run.

    Args:
        free: keys, and beginnings of keys, that may differ.
        datasets: whose declarations may not.
    """
    changed = [line for line in diff(before, now) if not line.startswith((*free, "DATASETS"))]
    return changed + [
        f"DATASETS.{name}: {before.DATASETS.get(name)} -> {now.DATASETS.get(name)}"
        for name in datasets
        if before.DATASETS.get(name) != now.DATASETS.get(name)
    ]


def copy_weights(cfg: Config, folder: Path) -> Path | None:
    """TRAIN.WEIGHTS into the folder of the run, under its own name, where TRAIN.COPY_WEIGHTS says so.

    Returns:
        The copy. A name that the run itself writes begins with ``initial_`` there.

    Raises:
        RunError: the copy cannot be written.
    """
    if not (cfg.TRAIN.COPY_WEIGHTS and cfg.TRAIN.WEIGHTS):
        return None
    place = cfg.TRAIN.WEIGHTS
    source = fetch(place, cfg.DOWNLOAD_CACHE) if is_address(place) else Path(place)
    own = source.name == FINAL or checkpoint.PATTERN.fullmatch(source.name)
    target = folder / f"{'initial_' if own else ''}{source.name}"
    if target.exists() and target.samefile(source):
        return target
    try:
        atomic_write(target, lambda temporary: shutil.copyfile(source, temporary))
    except OSError as e:
        raise RunError(
            f"{target}: cannot be written ({e.strerror}); make room or set TRAIN.COPY_WEIGHTS False"
        ) from e
    log.info("%s copied to %s", source, target)
    return target
