# SPDX-License-Identifier: Apache-2.0
"""What is written and measured where the model proposes boxes and names no classes (MODEL.RPN_ONLY)."""

import logging
from collections.abc import Mapping
from pathlib import Path

from detectron_libra.builders.rules import geometry_of
from detectron_libra.config import Config, dump
from detectron_libra.data.coco import Dataset
from detectron_libra.evaluation.recall import evaluate_recall
from detectron_libra.evaluation.results import log_copypaste, write_json, write_proposals
from detectron_libra.structures import Detections

log = logging.getLogger(__name__)

PROPOSALS = "rpn_proposals.pkl"
TASK = "box_proposal"

Found = Mapping[int | str, Detections]


def measure_proposals(cfg: Config, dataset: Dataset, proposals: Found) -> dict[str, dict]:
    """Average recall on one set, under its name."""
    extent, per_class = geometry_of(cfg).extent, cfg.TEST.CLASS_SPECIFIC_AR
    return {dataset.name: {TASK: evaluate_recall(dataset, proposals, extent=extent, per_class=per_class)}}


def report_proposals(cfg: Config, dataset: Dataset, proposals: Found, folder: Path) -> dict[str, dict]:
    """Write the proposals and, where the set has annotations, results.json; log average recall.

    Returns:
        Results under the name of the set; nothing where it has no annotations.
    """
    write_proposals(folder / PROPOSALS, dataset, proposals, config_text=dump(cfg))
    log.info("proposals for Fast R-CNN (TRAIN.PROPOSAL_FILES, TEST.PROPOSAL_FILES): %s", folder / PROPOSALS)
    if not dataset.annotated:
        log.warning("%s has no annotations: proposals are written, nothing is measured", dataset.name)
        return {}
    results = measure_proposals(cfg, dataset, proposals)
    write_json(folder / "results.json", results)
    found = results[dataset.name][TASK]
    rows = [f"{name:>10}  {'-' if value is None else f'{100 * value:5.1f}'}" for name, value in found.items()]
    log.info("\n%s", "\n".join([f"{dataset.name}: average recall of proposals, %", *rows]))
    log_copypaste(results)
    return results
