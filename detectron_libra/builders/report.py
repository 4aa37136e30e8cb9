# SPDX-License-Identifier: Apache-2.0
"""What is written about the detections of a data set: files, pictures, measures, log lines."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from detectron_libra.builders.recall import measure_proposals, report_proposals
from detectron_libra.builders.rules import geometry_of
from detectron_libra.config import Config, dump
from detectron_libra.data.coco import Dataset
from detectron_libra.data.images import read_image
from detectron_libra.errors import RunError, UsageError
from detectron_libra.evaluation.coco_results import write_coco_results
from detectron_libra.evaluation.expected import KEY, check_form, misses
from detectron_libra.evaluation.pictures import write_every_picture, write_pictures
from detectron_libra.evaluation.results import log_copypaste, results_dict, write_detections, write_json
from detectron_libra.evaluation.table import summary_table
from detectron_libra.evaluation.voc_files import write_voc_files
from detectron_libra.structures import Detections

log = logging.getLogger(__name__)

Found = Mapping[int | str, Detections]


def measure(cfg: Config, dataset: Dataset, detections: Found) -> dict[str, dict]:
    """Everything that is measured on one set, under its name."""
    if cfg.MODEL.RPN_ONLY:
        return measure_proposals(cfg, dataset, detections)
    return results_dict(
        dataset,
        detections,
        extent=geometry_of(cfg).extent,
        threshold=cfg.TEST.CONCEPT_THRESH,
        iou=cfg.TEST.BOX_IOU_THRESH,
        voc=not cfg.TEST.FORCE_JSON_DATASET_EVAL,
    )


def report(cfg: Config, dataset: Dataset, detections: Found, folder: Path) -> dict[str, dict]:
    """Write detections, pictures and, where the set has annotations, results.json; log the table.

    Returns:
        Results under the name of the set; nothing where it has no annotations.
    """
    if cfg.MODEL.RPN_ONLY:
        return report_proposals(cfg, dataset, detections, folder)
    results = evaluate(cfg, dataset, detections, folder, pickle=folder / "detections.pkl")
    draw_some(cfg, dataset, detections, folder)
    return results


def evaluate(
    cfg: Config, dataset: Dataset, detections: Found, folder: Path, *, pickle: Path | None = None
) -> dict[str, dict]:
    """Measure, log the table, then write what can be written without an image; the log tells how long each took.

    Measuring waits for no file. Detections are written where it fails, too: finding them took longest. The file of COCO
    results is written with TEST.COMPETITION_MODE and where there is nothing to measure, as Detectron keeps it.

    Args:
        pickle: of the detections; None where they are stored already.

    Returns:
        As ``report``.
    """
    results: dict[str, dict] = {}
    begun = time.perf_counter()
    try:
        if dataset.annotated:
            results = measure(cfg, dataset, detections)
            log.info("\n%s", summary_table(results))
            log_copypaste(results)
        else:
            log.warning("%s has no annotations: detections are written, nothing is measured", dataset.name)
    finally:
        measured = time.perf_counter()
        write_found(cfg, dataset, detections, folder, pickle)
    if results:
        write_json(folder / "results.json", results)
        if "voc" in results[dataset.name]:
            write_voc_files(dataset, detections, folder, extent=geometry_of(cfg).extent)
    log.info(
        "%s: measured in %.2f s, files written in %.2f s",
        dataset.name,
        measured - begun,
        time.perf_counter() - measured,
    )
    return results


def write_found(cfg: Config, dataset: Dataset, detections: Found, folder: Path, pickle: Path | None) -> None:
    """The files of detections that the configuration asks for."""
    if pickle:
        write_detections(pickle, dataset, detections, config_text=dump(cfg))
    if cfg.TEST.COMPETITION_MODE or not dataset.annotated:
        file = folder / f"bbox_{dataset.name}_results.json"
        write_coco_results(file, dataset, detections, extent=geometry_of(cfg).extent)


def draw_some(cfg: Config, dataset: Dataset, detections: Found, folder: Path) -> None:
    """The pictures that TEST.PICTURES and VIS ask for."""
    if cfg.TEST.PICTURES:
        pictures = write_pictures(
            dataset,
            detections,
            folder / "pictures",
            count=cfg.TEST.PICTURES,
            threshold=cfg.TEST.CONCEPT_THRESH,
            read_image=read_image,
            extent=geometry_of(cfg).extent,
        )
        log.info("%d pictures in %s", len(pictures), folder / "pictures")
    if cfg.VIS:
        draw_every(cfg, dataset, detections, folder / "vis", threshold=cfg.VIS_TH, extension="pdf")


def draw_every(
    cfg: Config,
    dataset: Dataset,
    detections: Found,
    folder: Path,
    *,
    threshold: float,
    extension: str,
    first: int = 0,
) -> None:
    """A picture per image with a box of the threshold or above, named as Detectron names them."""
    pictures = write_every_picture(
        dataset,
        detections,
        folder,
        threshold=threshold,
        read_image=read_image,
        extent=geometry_of(cfg).extent,
        extension=extension,
        first=first,
    )
    log.info("%d pictures with boxes of score >= %g in %s", len(pictures), threshold, folder)


def check_expectations(cfg: Config, datasets: Sequence[Dataset]) -> None:
    """Refuse EXPECTED_RESULTS that no result of these sets can meet, before anything is computed.

    Raises:
        UsageError: naming the entry.
    """
    check_form(cfg.EXPECTED_RESULTS)
    measured = [dataset.name for dataset in datasets if dataset.annotated]
    for entry in cfg.EXPECTED_RESULTS:
        if entry[0] not in measured:
            raise UsageError(
                f"{KEY}: {entry!r}: {entry[0]} is not measured; sets are {', '.join(measured) or 'none'}"
            )


def hold_against_expectations(cfg: Config, results: Mapping[str, dict]) -> None:
    """Compare results with EXPECTED_RESULTS.

    Raises:
        RunError: one is not met. UsageError: one names a result that there is not.
    """
    missed = misses(
        results,
        cfg.EXPECTED_RESULTS,
        rtol=cfg.EXPECTED_RESULTS_RTOL,
        atol=cfg.EXPECTED_RESULTS_ATOL,
        sigma_tol=cfg.EXPECTED_RESULTS_SIGMA_TOL,
    )
    if missed:
        raise RunError(f"{KEY}: {len(missed)} of {len(cfg.EXPECTED_RESULTS)} not met: {'; '.join(missed)}")
