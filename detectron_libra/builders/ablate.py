# SPDX-License-Identifier: Apache-2.0
"""An ablation: one ordinary training per combination of parts and seed, what `tools/ablate.py` does.

``OUT/runs/<parts>/seed<seed>`` is the OUTPUT_DIR of a run. It has ``config.yaml``, what it was started with, and in the
end ``run.json``: such a run is finished and is not repeated, any other one goes on from its newest checkpoint. A
process holds the folder of the run it does, so several of them, one per GPU or core, share the runs of one ablation.
"""

import json
import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from detectron_libra.analysis.ablation import metrics_of, nested
from detectron_libra.builders import session
from detectron_libra.builders.ablation_report import DONE, RUNS, read_entry, read_json, report
from detectron_libra.builders.data import load_dataset
from detectron_libra.builders.parts import Variant, config_of, name_of, variants
from detectron_libra.builders.start import FREE_KEYS, changes
from detectron_libra.builders.training import train_and_test
from detectron_libra.config import Config, dump, load_config, with_values
from detectron_libra.engine.lock import FolderInUse, locked
from detectron_libra.engine.signals import SIGNAL_EXIT_BASE
from detectron_libra.errors import InputError, LibraError, UsageError
from detectron_libra.evaluation.files import write_whole
from detectron_libra.evaluation.results import write_json
from detectron_libra.files import ensure_writable
from detectron_libra.logs import setup_logging

log = logging.getLogger(__name__)

STARTED = "config.yaml"
#: Keys, and beginnings of keys, that may differ between the runs of an ablation: none that results depend on.
FREE = tuple(key for key in FREE_KEYS if key not in ("SOLVER.MAX_ITER", "TEST."))


@dataclass(frozen=True)
class Planned:
    """A run that is to be done, or has been."""

    variant: Variant
    seed: int
    cfg: Config

    @property
    def folder(self) -> Path:
        """All that it writes lies there."""
        return Path(self.cfg.OUTPUT_DIR)

    @property
    def finished(self) -> bool:
        """It is trained and measured."""
        return (self.folder / DONE).is_file()

    def __str__(self) -> str:
        return f"{name_of(self.variant)}, seed {self.seed}"


def ablate(cfg: Config, *, parts: Sequence[Sequence[str]], mode: str, seeds: int, out: Path) -> Path:
    """Train what is not trained yet and no other process is training, then report everything that is finished.

    Args:
        cfg: what all runs share.
        parts: as ``part_list.parse_parts`` gives them.
        mode: one of ``parts.MODES``.
        seeds: runs of each combination: RNG_SEED and those after it.
        out: folder of the ablation.

    Returns:
        The report as Markdown.

    Raises:
        LibraError: as for a training, or other processes have all the runs that are left and none is finished.
        SystemExit: 129, 130 or 143 after an interrupt; the same command goes on.
    """
    require_measurable(cfg)
    runs = plan(cfg, parts=parts, mode=mode, seeds=seeds, out=out)
    ensure_writable(out)
    with exit_at_sigterm():
        setup_logging(out / "log.txt")
        require_unchanged(runs)
        log.info("%d runs in %s, %d of them finished", len(runs), out, sum(run.finished for run in runs))
        elsewhere: list[tuple[Planned, str]] = []
        for number, run in enumerate(runs):
            if run.finished:
                continue
            try:
                with locked(ensure_writable(run.folder)):
                    if not run.finished:  # nor by another process since
                        log.info("run %d of %d: %s; %s", number + 1, len(runs), run, pace(runs))
                        train(run)
                        setup_logging(out / "log.txt")
            except FolderInUse as e:
                elsewhere.append((run, e.holder))
        tell_of_others(runs, elsewhere)
        return report(out)


def plan(cfg: Config, *, parts: Sequence[Sequence[str]], mode: str, seeds: int, out: Path) -> list[Planned]:
    """Every run, seed by seed, so that a comparison is there before all seeds are done.

    Raises:
        UsageError: a part cannot be had.
    """
    chosen = [(variant, config_of(cfg, parts, variant)) for variant in variants(parts, mode)]
    return [
        Planned(variant, seed, with_values(own, {"RNG_SEED": seed, "OUTPUT_DIR": str(folder)}))
        for seed in range(cfg.RNG_SEED, cfg.RNG_SEED + seeds)
        for variant, own in chosen
        for folder in [out / RUNS / name_of(variant) / f"seed{seed}"]
    ]


def require_measurable(cfg: Config) -> None:
    """Raises UsageError where the results of the runs could not be compared; before anything is trained."""
    if cfg.MODEL.RPN_ONLY:
        raise UsageError(
            "MODEL.RPN_ONLY: an ablation compares detections, which a proposal network has none of"
        )
    if len(cfg.TEST.DATASETS) != 1:
        named = ", ".join(cfg.TEST.DATASETS) or "none is named"
        raise UsageError(f"TEST.DATASETS: {named}; an ablation is measured on exactly one set")
    dataset = load_dataset(with_values(cfg, {"DATA.CHECK": "off"}), cfg.TEST.DATASETS[0])
    if not dataset.annotated:
        raise UsageError(f"TEST.DATASETS: {dataset.name} has no annotations: there is nothing to measure")


def require_unchanged(runs: Sequence[Planned]) -> None:
    """Raises UsageError where a run was begun with another configuration; names what differs."""
    for run in runs:
        file = run.folder / STARTED
        if not file.is_file():
            continue
        lines = changes(
            load_config(file), run.cfg, free=FREE, datasets=(*run.cfg.TRAIN.DATASETS, *run.cfg.TEST.DATASETS)
        )
        if lines:
            raise UsageError(
                f"{run.folder}: the configuration has changed since this run was begun: {'; '.join(lines)}; undo it, "
                "choose another --out, or remove the folder"
            )


def train(run: Planned) -> None:
    """Train and test one run, from its newest checkpoint where there is one, and write its result.

    Raises:
        FolderInUse: another process trains it. Any other LibraError: names the run. SystemExit: after an interrupt.
    """
    write_whole(run.folder / STARTED, dump(run.cfg).encode())
    try:
        train_and_test(run.cfg)
        write_json(run.folder / DONE, result_of(run))
    except FolderInUse:  # by a train_net.py: others' work as well
        raise
    except LibraError as e:
        raise type(e)(f"{run.folder}: {e}") from e
    except SystemExit:
        log.warning("stopped in the run %s; the same command goes on", run)
        raise


def tell_of_others(runs: Sequence[Planned], elsewhere: Sequence[tuple[Planned, str]]) -> None:
    """Says which runs other processes still have; raises UsageError where that leaves nothing to report.

    Args:
        elsewhere: runs that were held when it was their turn, and by which process.
    """
    held = "; ".join(f"{run} (process {holder})" for run, holder in elsewhere if not run.finished)
    if not held:
        return
    if not any(run.finished for run in runs):
        raise UsageError(f"every run is done by another process already: {held}")
    log.info("left to other processes: %s", held)
    log.info("the report has what is finished now; the process that ends last writes the whole one")


def result_of(run: Planned) -> dict:
    """What is kept of a run that has been tested: its entry in the report."""
    (dataset,) = run.cfg.TEST.DATASETS
    results = read_json(session.test_folder(run.cfg, dataset) / "results.json")
    return {
        "parts": list(run.variant),
        "seed": run.seed,
        "metrics": nested(metrics_of(results[dataset])),
        "minutes": minutes_of(session.train_folder(run.cfg) / "metrics.jsonl"),
    }


def minutes_of(file: Path) -> float:
    """Minutes of the training steps, however often the run was interrupted, from the lines of metrics.jsonl.

    A line has the mean time of the latest iterations, which stands for those since the line before.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
    except (OSError, ValueError) as e:
        raise InputError(f"{file}: cannot be read ({e}); remove the folder to train the run again") from e
    seconds, last = 0.0, -1
    for line in lines:
        if "time" in line:
            seconds += (line["iter"] - last) * line["time"]
            last = line["iter"]
    return seconds / 60


def pace(runs: Sequence[Planned]) -> str:
    """How long the finished runs took, and how long the others may take."""
    minutes = [read_entry(run.folder / DONE)["minutes"] for run in runs if run.finished]
    if not minutes:
        return "how long all of them take is known after the first"
    left = len(runs) - len(minutes)
    return f"{sum(minutes):.0f} minutes so far, about {left * sum(minutes) / len(minutes):.0f} to go"


@contextmanager
def exit_at_sigterm() -> Iterator[None]:
    """Between trainings, which have a handler of their own, SIGTERM ends the process as SystemExit with code 143."""
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(SIGNAL_EXIT_BASE + number)
