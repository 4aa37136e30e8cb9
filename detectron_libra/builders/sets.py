# SPDX-License-Identifier: Apache-2.0
"""All data sets of a run, looked at in one pass: faults of the test sets are told with those of the training sets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from detectron_libra.builders.data import survey_dataset
from detectron_libra.builders.proposals import attach_proposals, proposal_files
from detectron_libra.builders.reading import require_cache, require_reader
from detectron_libra.config.schema import Config
from detectron_libra.data.coco import Dataset
from detectron_libra.errors import InputError, UsageError

log = logging.getLogger(__name__)


def load_datasets(cfg: Config, *, testing: bool = True) -> tuple[list[Dataset], list[Dataset]]:
    """The sets of TRAIN.DATASETS and of TEST.DATASETS, all with the first one's classes.

    Args:
        testing: load the test sets, too.

    Raises:
        UsageError: a name is not known, or none is given. InputError: one line with the faults of every set.
    """
    if not cfg.TRAIN.DATASETS:
        raise UsageError("TRAIN.DATASETS: no data set is named; give at least one")
    require_reader(cfg)
    require_cache(cfg)
    phases = ("TRAIN", "TEST") if testing else ("TRAIN",)
    for phase in phases:
        proposal_files(cfg, phase)  # before anything is read
    sets: dict[str, list[Dataset]] = {"TRAIN": [], "TEST": []}
    lines: list[str] = []
    for found in survey_sets(cfg, phases):
        try:
            sets[found.phase].append(found.checked())
        except InputError as e:
            lines.append(str(e))
    if lines:
        raise InputError("; ".join(lines))
    warn_of_shared_images(sets["TRAIN"], sets["TEST"])
    return attach_proposals(cfg, "TRAIN", sets["TRAIN"]), attach_proposals(cfg, "TEST", sets["TEST"])


def survey_sets(cfg: Config, phases: Sequence[str] = ("TRAIN", "TEST")) -> list[Surveyed]:
    """Look at every set of these phases, whatever the others are like.

    Raises:
        UsageError: a name is not known.
    """
    names: tuple[str, ...] | None = None
    found = []
    for phase in phases:
        for name in getattr(cfg, phase).DATASETS:
            try:
                dataset = survey_dataset(cfg, name, class_names=names, training=phase == "TRAIN")
            except InputError as e:
                found.append(Surveyed(name, phase, None, e))
                continue
            names = names or dataset.class_names
            found.append(Surveyed(name, phase, dataset))
    return found


def warn_of_shared_images(train_sets: Sequence[Dataset], test_sets: Sequence[Dataset]) -> None:
    """Log the test sets that have images of the training sets."""
    trained_on = {record.file for dataset in train_sets for record in dataset.records}
    for dataset in test_sets:
        shared = sum(record.file in trained_on for record in dataset.records)
        if shared:
            count = len(dataset.records)
            log.warning("%s: %d of its %d images are trained on, too", dataset.annotation_file, shared, count)


@dataclass(frozen=True)
class Surveyed:
    """A data set with what was found about it.

    Attributes:
        phase: ``TRAIN`` or ``TEST``.
        dataset: with its faults; None where its annotations cannot be read at all, for ``reason``.
    """

    name: str
    phase: str
    dataset: Dataset | None
    reason: InputError | None = None

    def checked(self) -> Dataset:
        """The data set; logs what is odd about it.

        Raises:
            InputError: it has faults.
        """
        if self.dataset is None:
            assert self.reason is not None
            raise self.reason
        self.dataset.report()
        return self.dataset
