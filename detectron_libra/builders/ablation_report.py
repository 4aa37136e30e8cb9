# SPDX-License-Identifier: Apache-2.0
"""The report of an ablation from its finished runs: ``ablation.json``, ``ablation.md`` and ``ablation.html``."""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from detectron_libra.analysis.ablation import Run, as_json, flat, summarise
from detectron_libra.analysis.ablation_table import html, markdown
from detectron_libra.analysis.bootstrap import RESAMPLES, SEED, draw_counts
from detectron_libra.analysis.weighted import weighted_metrics
from detectron_libra.builders.parts import place_of
from detectron_libra.builders.reval import DETECTIONS, Stored, open_detections
from detectron_libra.builders.rules import geometry_of
from detectron_libra.engine.lock import locked
from detectron_libra.errors import InputError
from detectron_libra.evaluation.files import write_whole
from detectron_libra.evaluation.results import write_json
from detectron_libra.evaluation.tallies import Tallies, tally

log = logging.getLogger(__name__)

#: Folder of the runs; what marks one as finished.
RUNS, DONE = "runs", "run.json"
FINISHED = f"{RUNS}/*/seed*/{DONE}"
#: What it holds.
ENTRY = ("parts", "seed", "metrics", "minutes")
NAME = "ablation"
#: Most that a metric may differ when it is computed again from the detections that are kept.
TOLERANCE = 1e-6


def report(out: Path) -> Path:
    """Write the report of all finished runs of an ablation.

    Args:
        out: its folder.

    Returns:
        The report as Markdown.

    Raises:
        InputError: no run has finished, or a file of one cannot be read or is of other detections or images.
    """
    if not any(out.glob(FINISHED)):
        raise InputError(f"{out / RUNS}: no finished run, so there is nothing to report")
    with locked(out, wait=True):  # of processes that share an ablation, the last one reports all of its runs
        return report_runs(out, sorted(out.glob(FINISHED), key=_place))


def report_runs(out: Path, files: Sequence[Path]) -> Path:
    """Write the report of these runs; see ``report``."""
    log.info("%d finished runs, each measured on %d resamples of the images", len(files), RESAMPLES)
    read = [read_run(f) for f in tqdm(files, desc="bootstrap", unit="run", disable=not sys.stderr.isatty())]
    runs, facts = zip(*read, strict=True)
    for file, own in zip(files, facts, strict=True):
        if own != facts[0]:
            raise InputError(
                f"{file.parent}: tested on {own}, and {files[0].parent} on {facts[0]}; test them alike"
            )
    return write(out, runs, facts[0] | {"resamples": RESAMPLES, "bootstrap_seed": SEED})


def write(out: Path, runs: Sequence[Run], about: dict[str, Any]) -> Path:
    """Write the three files; log the table."""
    summaries = summarise(runs)
    title = f"Ablation on {about['dataset']}"
    write_json(out / f"{NAME}.json", as_json(runs, summaries, about))
    text = markdown(title, summaries, about)
    file = write_whole(out / f"{NAME}.md", text.encode())
    write_whole(out / f"{NAME}.html", html(title, summaries, about).encode())
    log.info("\n%s", text)
    log.info("written to %s, with .html and .json beside it", file)
    return file


def read_run(file: Path) -> tuple[Run, dict[str, Any]]:
    """A finished run with its metrics on every resample, and what all runs have to share.

    Args:
        file: its run.json.

    Raises:
        InputError: see ``report``.
    """
    entry = read_entry(file)
    detections = sorted(file.parent.glob(f"test/*/*/{DETECTIONS}"))
    if len(detections) != 1:
        raise InputError(
            f"{file.parent}: {len(detections)} files {DETECTIONS} below test, want one; remove {file} to test it again"
        )
    stored = open_detections(detections[0])
    tallies = tally_of(stored)
    metrics = flat(entry["metrics"])
    counts = np.concatenate([np.ones((1, tallies.images), np.int64), draw_counts(tallies.images)])
    values = weighted_metrics(tallies, counts)
    require_same(metrics, {name: v[0] for name, v in values.items()}, file, detections[0])
    resampled = {name: v[1:] for name, v in values.items()}
    about = {
        "iterations": stored.cfg.SOLVER.MAX_ITER,
        "images_per_step": stored.cfg.TRAIN.IMS_PER_BATCH,
        "scales_px": list(stored.cfg.TRAIN.SCALES),
        "dataset": stored.dataset.name,
        "images": tallies.images,
        "threshold": stored.cfg.TEST.CONCEPT_THRESH,
        "iou": stored.cfg.TEST.BOX_IOU_THRESH,
    }
    return Run(tuple(entry["parts"]), entry["seed"], metrics, entry["minutes"], resampled), about


def tally_of(stored: Stored) -> Tallies:
    """The matches of stored detections, by the rules of the run that made them."""
    return tally(
        stored.dataset,
        stored.detections,
        extent=geometry_of(stored.cfg).extent,
        threshold=stored.cfg.TEST.CONCEPT_THRESH,
        iou=stored.cfg.TEST.BOX_IOU_THRESH,
    )


def require_same(kept: dict[str, Any], computed: dict[str, float], file: Path, detections: Path) -> None:
    """Raises InputError where the metrics of a run are not those of its detections, e.g. on changed annotations."""
    for name in sorted(kept.keys() | computed.keys()):
        old, new = kept.get(name), computed.get(name, np.nan)
        if np.isnan(new) if old is None else abs(old - new) <= TOLERANCE:
            continue
        raise InputError(
            f"{file}: {name} is {old}, but {new} by {detections}; have the annotations changed? remove {file} to test "
            "the run again"
        )


def read_json(file: Path) -> dict[str, Any]:
    """A file of ours that holds a mapping.

    Raises:
        InputError: it cannot be read.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise InputError(f"{file}: cannot be read ({e}); remove it to test the run again") from e
    if not isinstance(content, dict):
        raise InputError(f"{file}: no mapping in it; remove it to test the run again")
    return content


def read_entry(file: Path) -> dict[str, Any]:
    """The run.json of a finished run.

    Raises:
        InputError: it cannot be read, or something is missing.
    """
    entry = read_json(file)
    missing = [name for name in ENTRY if name not in entry]
    if missing:
        raise InputError(f"{file}: no {', '.join(missing)} in it; remove it to test the run again")
    return entry


def _place(file: Path) -> tuple:
    """Few parts first, the baseline before all; the seeds in their order."""
    entry = read_entry(file)
    return *place_of(entry["parts"]), entry["seed"]
