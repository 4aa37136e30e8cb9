# SPDX-License-Identifier: Apache-2.0
"""The slot of images: how often an epoch has each of them, as a number that ``plan.TrainPlan`` rounds at random."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from detectron_libra.data.coco import Dataset, Record


class ImageSampler(Protocol):
    """Slot "image sampler". It sees the records that are trained on and no random numbers: those are the plan's."""

    def __call__(self, records: Sequence[Record]) -> np.ndarray:
        """(I,) float64 > 0, the mean number of times that an epoch has each image."""
        ...


def classes_of(record: Record) -> np.ndarray:
    """The classes that an image has a box of, each once; crowds are not learned from and do not count."""
    return np.unique(record.classes[~record.crowd].numpy())


def count_boxes(datasets: Sequence[Dataset]) -> np.ndarray:
    """(K,) int64: boxes of each class, without background, in all sets together; crowds do not count."""
    classes = len(datasets[0].class_names)
    counts = np.zeros(classes + 1, dtype=np.int64)
    for record in (r for d in datasets for r in d.records):
        counts += np.bincount(record.classes[~record.crowd].numpy(), minlength=classes + 1)
    return counts[1:]


@dataclass(frozen=True)
class RepeatFactor:
    """Images with a rare class come more often.

    Attributes:
        threshold: share of images t that a class should be in. A class in a share f of the images has the factor
            max(1, sqrt(t / f)), an image the largest one of its classes, 1 without any.

    Source: Gupta et al., LVIS, CVPR 2019, arXiv:1908.03195.
    """

    threshold: float

    def __call__(self, records: Sequence[Record]) -> np.ndarray:
        """(I,) float64, at least 1."""
        present = [classes_of(record) for record in records]
        with_class = np.bincount(np.concatenate([*present, np.zeros(0, np.int64)]).astype(np.int64))
        share = np.maximum(with_class, 1) / max(1, len(records))
        factors = np.maximum(1.0, np.sqrt(self.threshold / share))
        return np.array([factors[classes].max(initial=1.0) for classes in present])
