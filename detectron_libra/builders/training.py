# SPDX-License-Identifier: Apache-2.0
"""A training run from its configuration: what `tools/train_net.py` does."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from detectron_libra.builders import session
from detectron_libra.builders.data import count_classes, train_loader
from detectron_libra.builders.detector import build_detector, loss_weights
from detectron_libra.builders.imbalance import counts_of_classes, switched_on
from detectron_libra.builders.interim import evaluation
from detectron_libra.builders.pace import conclude
from detectron_libra.builders.reading import require_reader
from detectron_libra.builders.report import check_expectations
from detectron_libra.builders.run_report import reported
from detectron_libra.builders.sets import load_datasets
from detectron_libra.builders.solver import build_solver, warn_of_missing_processes
from detectron_libra.builders.start import Start, copy_weights, find_start, refuse_changes, remove_earlier
from detectron_libra.builders.testing import precision_of, test_datasets
from detectron_libra.builders.weights import read_weights
from detectron_libra.config import Config, dump, infer, with_values
from detectron_libra.data.coco import Dataset
from detectron_libra.engine import checkpoint
from detectron_libra.engine.diskspace import checkpoint_bytes, require_room, size_of
from detectron_libra.engine.guard import NonFinite
from detectron_libra.engine.lock import locked
from detectron_libra.engine.rollback import beginning, go_back
from detectron_libra.engine.saving import FINAL
from detectron_libra.engine.schedule import LearningRate
from detectron_libra.engine.signals import StopFlag
from detectron_libra.engine.train import train
from detectron_libra.engine.waiting import Waiting
from detectron_libra.errors import UsageError
from detectron_libra.evaluation.files import write_whole
from detectron_libra.files import ensure_writable
from detectron_libra.logs import setup_logging

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What a training run holds from its beginning to its end."""

    cfg: Config
    folder: Path
    device: torch.device
    train_sets: Sequence[Dataset]
    test_sets: Sequence[Dataset]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the training sets; class c is the one at c - 1."""
        return self.train_sets[0].class_names


def train_and_test(
    cfg: Config,
    *,
    resume: str = "auto",
    force: bool = False,
    skip_test: bool = False,
    test_tool: Path | None = None,
) -> Path:
    """Train as the configuration says, then test the final weights on TEST.DATASETS.

    Args:
        cfg: as loaded.
        resume: "auto" goes on from a checkpoint where there is one, "must" refuses to start without, "never"
            starts anew.
        force: resume although keys have changed that what is trained depends on.
        skip_test: end after the training.
        test_tool: test with NUM_GPUS processes of this program, see ``testing.test``.

    Returns:
        Path of the final weights.

    Raises:
        LibraError: with the exit code of its kind. SystemExit: 129, 130 or 143 after an interrupt.
    """
    if not cfg.TRAIN.DATASETS:
        raise UsageError("TRAIN.DATASETS: no data set is named; give at least one")
    require_reader(cfg)
    folder = ensure_writable(session.train_folder(cfg))
    for name in () if skip_test else cfg.TEST.DATASETS:
        ensure_writable(session.test_folder(cfg, name))
    with locked(folder):
        setup_logging(folder / "log.txt")
        start = find_start(cfg, folder, resume)
        run = prepare(start.cfg, folder, skip_test)
        with reported(folder):
            weights = run_training(run, start, resume, force)
            log.info("weights: %s", weights)
            if not skip_test:
                trained = read_weights(weights, key="TEST.WEIGHTS", cache=cfg.DOWNLOAD_CACHE)
                test_datasets(run.cfg, trained, run.test_sets, run.device, tool=test_tool)
        return weights


def prepare(cfg: Config, folder: Path, skip_test: bool) -> Run:
    """Set up the process, read and check every data set before anything is trained."""
    device = session.start(cfg)
    session.seed(cfg.RNG_SEED)
    train_sets, test_sets = load_datasets(cfg, testing=not skip_test)
    names = train_sets[0].class_names
    if not skip_test:
        check_expectations(cfg, test_sets)
    cfg = infer(with_values(cfg, {"MODEL.NUM_CLASSES": count_classes(cfg, names)}))
    warn_of_missing_processes(cfg)
    return Run(cfg, folder, device, train_sets, test_sets)


def run_training(run: Run, start: Start, resume: str, force: bool) -> Path:
    """The final weights: trained now, or found where the run is complete."""
    cfg, folder, found = run.cfg, run.folder, start.checkpoint
    if found:
        refuse_changes(cfg, found, force=force)
    else:
        copy_weights(cfg, folder)
    if resume == "never":
        remove_earlier(folder)
    if found and found.next_iteration >= cfg.SOLVER.MAX_ITER and (folder / FINAL).exists():
        log.warning(
            "%s is there: this run is complete, nothing is trained. To go on, raise SOLVER.MAX_ITER above %d; "
            "to start anew, use --no-resume or another OUTPUT_DIR",
            folder / FINAL,
            found.next_iteration,
        )
        return folder / FINAL
    model = build_detector(cfg, cfg.MODEL.NUM_CLASSES, counts_of_classes(cfg, run.train_sets))
    if not found:
        start.put_into(model)
    model = session.place(cfg, model, run.device)
    optimizer, schedule = build_solver(cfg, model)
    first = found.next_iteration if found else 0
    ask_for_room(run, model, optimizer, first)
    waiting = Waiting()
    begun, goes_back = time.perf_counter(), cfg.TRAIN.ON_NONFINITE == "rollback"
    if goes_back and not found:
        found = beginning(model, optimizer, run.class_names)
    with StopFlag() as stop:
        while True:
            try:
                weights = train_from(run, start, model, optimizer, schedule, found, stop, waiting)
                break
            except NonFinite as e:
                if not (goes_back and found):
                    raise
                found = go_back(e, found, folder, limit=cfg.TRAIN.NONFINITE_LIMIT)
    if stop:  # it came in the last step; the weights are written
        raise SystemExit(stop.exit_code)
    conclude(
        cfg,
        run.train_sets,
        run.device,
        waiting,
        iterations=cfg.SOLVER.MAX_ITER - first,
        seconds=time.perf_counter() - begun,
    )
    return weights


def train_from(
    run: Run,
    start: Start,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: LearningRate,
    found: checkpoint.Checkpoint | None,
    stop: StopFlag,
    waiting: Waiting,
) -> Path:
    """Trains from a checkpoint, or from the weights that are in the model; returns the path of the final weights."""
    cfg = run.cfg
    first = checkpoint.restore(found, model, optimizer, class_names=run.class_names) if found else 0
    loader = train_loader(cfg, run.train_sets, start_iteration=first, pin_memory=run.device.type == "cuda")
    write_whole(run.folder / "config.yaml", dump(cfg).encode())
    log.info("%s", describe(run, model, first))
    return train(
        model,
        loader,
        optimizer,
        schedule,
        loss_weights=loss_weights(cfg),
        max_iter=cfg.SOLVER.MAX_ITER,
        folder=run.folder,
        device=run.device,
        resume=found,
        precision=cfg.TRAIN.PRECISION,
        clip_grad_norm=cfg.TRAIN.CLIP_GRAD_NORM,
        scale_momentum=cfg.SOLVER.SCALE_MOMENTUM,
        scale_momentum_threshold=cfg.SOLVER.SCALE_MOMENTUM_THRESHOLD,
        snapshot_period=snapshot_period(cfg),
        checkpoints_kept=cfg.TRAIN.CHECKPOINTS_KEPT,
        log_period=cfg.LOG.PERIOD,
        eval_period=cfg.TRAIN.EVAL_PERIOD,
        evaluate=evaluation(cfg, model, run.test_sets, run.device, run.folder, stop),
        stop=stop,
        on_nonfinite=cfg.TRAIN.ON_NONFINITE,
        nonfinite_limit=cfg.TRAIN.NONFINITE_LIMIT,
        config_text=dump(cfg),
        class_names=run.class_names,
        settings=start.settings,
        waiting=waiting,
    )


def ask_for_room(run: Run, model: nn.Module, optimizer: Optimizer, first: int) -> None:
    """Refuses to train from iteration ``first`` where it is known that the disk will not take the checkpoints."""
    weights = model.state_dict()
    each = checkpoint_bytes(weights, optimizer)
    written = -(-(run.cfg.SOLVER.MAX_ITER - first) // snapshot_period(run.cfg))
    kept = run.cfg.TRAIN.CHECKPOINTS_KEPT
    # the oldest goes when the newest is written; with all of them kept, somebody may mean to move them away
    at_once = max(1, min(written, kept + 1 if kept else 1))
    there = sum(p.stat().st_size for p in run.folder.glob("model_iter*.pt"))
    require_room(run.folder, largest=each, total=max(each, at_once * each + size_of(weights) - there))


def snapshot_period(cfg: Config) -> int:
    """Iterations between checkpoints. Source: Detectron's core/config.py, TRAIN.SNAPSHOT_ITERS over NUM_GPUS."""
    return max(1, cfg.TRAIN.SNAPSHOT_ITERS // max(1, cfg.NUM_GPUS))


def describe(run: Run, model: nn.Module, start: int) -> str:
    """One line about what is going to be trained."""
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    images = sum(len(d.records) for d in run.train_sets)
    kit = "".join(f"; {name}" for name in switched_on(run.cfg))
    return (
        f"{session.model_type(run.cfg)}, {parameters:,} parameters ({trained:,} trained), Libra parts: "
        f"{session.libra_parts(run.cfg)}{kit}; {images} images, {len(run.class_names)} classes; "
        f"iterations {start} to {run.cfg.SOLVER.MAX_ITER}, "
        f"{run.cfg.TRAIN.IMS_PER_BATCH} images each, {precision_of(run.cfg, training=True)}"
    )
