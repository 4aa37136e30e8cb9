# SPDX-License-Identifier: Apache-2.0
"""What a test left in its folder, as a run report shows it; what is missing becomes a sentence."""

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from detectron_libra.builders import session
from detectron_libra.builders.recall import PROPOSALS
from detectron_libra.builders.reval import DETECTIONS, Stored, open_detections
from detectron_libra.builders.rules import geometry_of
from detectron_libra.config import Config, with_values
from detectron_libra.data.images import read_image
from detectron_libra.errors import LibraError
from detectron_libra.evaluation.arrays import class_keys, numpy_of, records_by_id
from detectron_libra.evaluation.boxes import Matches, match_dataset
from detectron_libra.evaluation.by_image import ImageCounts, count_by_image
from detectron_libra.evaluation.curves import precision_recall
from detectron_libra.evaluation.rates import best_threshold
from detectron_libra.evaluation.thumbnails import thumbnail
from detectron_libra.report.sets import Curve, Picture, SetReport, fits

log = logging.getLogger(__name__)

RESULTS = "results.json"
#: Pictures at each end.
PICTURES = 6


def read_set(cfg: Config, output: Path, name: str, weights: Path) -> SetReport:
    """What is known about one test set of a run.

    Args:
        cfg: of the run.
        output: its OUTPUT_DIR.
        name: of the set.
        weights: the final weights, which results should be younger than.
    """
    if not weights.is_file():
        return SetReport(name, notes=["The run is not complete: its weights were not tested."])
    folder = session.test_folder(with_values(cfg, {"OUTPUT_DIR": str(output)}), name)
    notes: list[str] = []
    results = _read_results(folder / RESULTS, name, notes)
    file = folder / DETECTIONS
    if not file.is_file():
        if not (folder / PROPOSALS).is_file():
            notes.append("There are no detections: the run was not tested on this set, or not to the end.")
        elif not results:
            notes.append("There are proposals, but nothing was measured: the set has no annotations.")
        return SetReport(name, results, notes=notes)
    if file.stat().st_mtime < weights.stat().st_mtime:
        notes.append("These detections are older than the final weights: they may be of another training.")
    try:
        stored = open_detections(file, name=name)
    except LibraError as e:
        notes.append(f"No curves and no images: {e}")
        return SetReport(name, results, notes=notes)
    if not stored.dataset.annotated:
        notes.append("The set has no annotations: detections are written, nothing is measured.")
        return SetReport(name, results, notes=notes)
    return _measured(stored, results, notes)


def _measured(stored: Stored, results: dict[str, Any], notes: list[str]) -> SetReport:
    """Curves and pictures of a set with annotations."""
    cfg, dataset = stored.cfg, stored.dataset
    extent = geometry_of(cfg).extent
    matches = match_dataset(dataset, stored.detections, iou=cfg.TEST.BOX_IOU_THRESH, extent=extent)
    curves = [
        Curve(c.name, c.positives, c.recall.tolist(), c.precision.tolist(), c.at)
        for c in precision_recall(matches, class_keys(dataset), threshold=cfg.TEST.CONCEPT_THRESH)
    ]
    if not curves:
        notes.append("There is no box to find in the annotations: no curves.")
    threshold = _threshold(matches, cfg.TEST.CONCEPT_THRESH, notes)
    counts = count_by_image(matches, len(dataset.records), threshold=threshold)
    draw = partial(_picture, stored, counts, threshold)
    best, worst = (_drawn(draw, places, notes) for places in counts.ends(PICTURES))
    return SetReport(dataset.name, results, curves, best, worst, threshold, notes)


def _threshold(matches: Matches, wanted: float, notes: list[str]) -> float:
    """TEST.CONCEPT_THRESH; where no box is right at it, so that images have no order, the best one of this set."""
    right = matches.right & matches.counts
    best = best_threshold(matches.candidates())["best_threshold"]
    if best is None or not right.any() or (matches.found.scores[right] >= np.float32(wanted)).any():
        return wanted
    notes.append(
        f"No box of score {wanted:g} (TEST.CONCEPT_THRESH) or above is right: images are ranked and drawn at "
        f"{best:.3g}, the best threshold of this set."
    )
    return best


def _drawn(draw: Callable[[int], Picture], places: list[int], notes: list[str]) -> list[Picture]:
    """Pictures of images; one that cannot be read becomes a note."""
    pictures = []
    for place in places:
        try:
            pictures.append(draw(place))
        except LibraError as e:
            notes.append(f"An image is left out: {e}")
    return pictures


def _picture(stored: Stored, counts: ImageCounts, threshold: float, place: int) -> Picture:
    record = records_by_id(stored.dataset)[place]
    objects = ~numpy_of(record.crowd, bool)
    jpeg, size = thumbnail(
        read_image(record.file, size=(record.height, record.width)),
        stored.detections[record.image_id],
        (numpy_of(record.boxes, np.float64)[objects], numpy_of(record.classes, np.int64)[objects]),
        stored.dataset.class_names,
        threshold=threshold,
        extent=geometry_of(stored.cfg).extent,
    )
    right, wrong, missed = (int(c[place]) for c in (counts.right, counts.wrong, counts.missed))
    return Picture(Path(record.file).name, jpeg, size, right, wrong, missed, float(counts.f1[place]))


def _read_results(file: Path, name: str, notes: list[str]) -> dict[str, Any]:
    """Of results.json, what was measured on the set; nothing where there is none."""
    try:
        results = json.loads(file.read_text(encoding="utf-8"))[name]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError) as e:
        notes.append(f"{RESULTS} cannot be read ({e}): no tables.")
        return {}
    if not fits(results):
        notes.append(f"{RESULTS} has another layout than ours: no tables.")
        return {}
    return results
