# SPDX-License-Identifier: Apache-2.0
"""Configuration to the stored proposals of Fast R-CNN: files of them, one for each data set."""

from collections.abc import Sequence
from pathlib import Path

from detectron_libra.builders.rules import geometry_of
from detectron_libra.config.schema import Config
from detectron_libra.data.coco import Dataset
from detectron_libra.data.proposals import with_proposals
from detectron_libra.errors import InputError, UsageError
from detectron_libra.weights.download import fetch, is_address
from detectron_libra.weights.unpickle import load_pickle


def needs_proposals(cfg: Config) -> bool:
    """Whether the detector makes no proposals of its own."""
    return not (cfg.RETINANET.RETINANET_ON or cfg.RPN.RPN_ON)


def proposal_files(cfg: Config, phase: str) -> list[str]:
    """The file of each set of ``phase`` ("TRAIN" or "TEST").DATASETS; empty where none are needed.

    Raises:
        UsageError: there is not one for each.
    """
    if not needs_proposals(cfg):
        return []
    keys = cfg.TRAIN if phase == "TRAIN" else cfg.TEST
    if len(keys.PROPOSAL_FILES) != len(keys.DATASETS):
        raise UsageError(
            f"{phase}.PROPOSAL_FILES: {len(keys.PROPOSAL_FILES)} files for the {len(keys.DATASETS)} data sets of "
            f"{phase}.DATASETS; Fast R-CNN needs one for each: tools/test_net.py writes rpn_proposals.pkl with "
            "MODEL.RPN_ONLY True"
        )
    return list(keys.PROPOSAL_FILES)


def attach_proposals(cfg: Config, phase: str, datasets: Sequence[Dataset]) -> list[Dataset]:
    """The sets of ``phase``.DATASETS with their stored proposals, or as they are where none are needed.

    Raises:
        UsageError: there is not a file for each. InputError: a file cannot be read, or lacks an image.
    """
    files = proposal_files(cfg, phase)
    if not files:
        return list(datasets)
    limit = cfg.TEST.PROPOSAL_LIMIT if phase == "TEST" else 0
    return [
        _attach(cfg, dataset, file, f"{phase}.PROPOSAL_FILES", limit)
        for dataset, file in zip(datasets, files, strict=True)
    ]


def _attach(cfg: Config, dataset: Dataset, file: str, key: str, limit: int) -> Dataset:
    try:
        path = fetch(file, cfg.DOWNLOAD_CACHE) if is_address(file) else Path(file)
        content = load_pickle(path)
        return with_proposals(dataset, content, file, extent=geometry_of(cfg).extent, limit=limit)
    except InputError as e:
        raise InputError(f"{key}: {e}") from e
