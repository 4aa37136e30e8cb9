# SPDX-License-Identifier: Apache-2.0
"""A detector measured on batches of its training: samples, features and objectives in one pass, nothing learned."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from detectron_libra.analysis.assigned import Assigned, Detector, assign_boxes
from detectron_libra.analysis.feature import PyramidStatistics
from detectron_libra.analysis.objective import PartGradients
from detectron_libra.analysis.sampling import NegativeCounts, PositiveCounts
from detectron_libra.modeling.detectors.fast_rcnn import FastRCNN
from detectron_libra.modeling.detectors.faster_rcnn import FasterRCNN
from detectron_libra.modeling.slots import BoxSampler
from detectron_libra.structures import Batch

#: Where levels are integrated when nothing says it: P4, as in the paper.
REFINE_LEVEL = 4


def level_numbers(model: Detector) -> tuple[int, ...]:
    """Numbers of the levels that the heads see, finest first."""
    return tuple(model.backbone.out_channels if model.neck is None else model.neck.levels)  # type: ignore


def pyramid_statistics(model: Detector) -> PyramidStatistics | None:
    """The statistics for a model's pyramid; None where it has one level."""
    levels = level_numbers(model)
    if len(levels) == 1:
        return None
    if model.balance is not None:
        return PyramidStatistics(levels, int(model.balance.refine_index), model.balance)  # type: ignore
    middle = levels.index(REFINE_LEVEL) if REFINE_LEVEL in levels else len(levels) // 2
    return PyramidStatistics(levels, middle, None)


def stage_levels(model: Detector) -> dict[str, tuple[int, ...]]:
    """Numbers of the levels that anchors, and regions, belong to."""
    levels = level_numbers(model)
    pooled = levels
    if isinstance(model, FasterRCNN | FastRCNN):
        p = model.regions.pooling
        pooled = tuple(range(p.min_level, p.min_level + p.levels))
    return {"anchors": levels, "proposals": pooled}


def measure_model(
    model: Detector,
    batches: Iterable[Batch],
    *,
    count: int,
    device: torch.device | str,
    loss_weights: Mapping[str, float],
    class_names: Sequence[str],
    extent: float,
    sampling: BoxSampler,
    progress: bool = True,
) -> Measured:
    """Measure a detector.

    Args:
        model: on ``device``; put into train mode, since samples and normalisation are those of the training.
        batches: as in training; ``count`` of them, for the progress bar.
        loss_weights: factor of each raw loss.
        class_names: class c is ``class_names[c - 1]``.
        extent: pixels added to x2 - x1 to get a width.
        sampling: the IoU-balanced choice to compare with.
        progress: show a bar where stderr is a terminal.

    Raises:
        RunError: a loss is not finite.
    """
    counts = {
        name: StageCounts(levels, class_names, extent, sampling)
        for name, levels in stage_levels(model).items()
    }
    found = ModelCounts(counts, pyramid_statistics(model), PartGradients(loss_weights))
    hidden = not (progress and sys.stderr is not None and sys.stderr.isatty())
    model.train()
    for batch in tqdm(
        batches, total=count, desc="measuring", unit="batch", dynamic_ncols=True, disable=hidden
    ):
        found.add(model, batch.to(device))
    return found.result()


@dataclass(frozen=True)
class Measured:
    """What ``measure_model`` found.

    Attributes:
        images: images measured, one that came twice counted twice.
        sample: by stage (``anchors``, ``proposals``), see ``sampling``.
        feature: see ``feature.PyramidStatistics.tables``; None where the detector has one level.
        parts: see ``objective.PartGradients.tables``.
        residuals: (K, 4) float32 on the CPU, of the boxes of the last stage.
    """

    images: int
    sample: dict[str, dict[str, Any]]
    feature: dict[str, Any] | None
    parts: dict[str, Any]
    residuals: Tensor


class StageCounts:
    """Samples of one stage of a detector, counted over batches."""

    def __init__(self, levels: Sequence[int], class_names: Sequence[str], extent: float, how: BoxSampler):
        self.positives = PositiveCounts(levels, class_names, extent)
        self.negatives: NegativeCounts | None = None
        self.residuals: list[Tensor] = []
        self.how = how

    def add(self, assigned: Assigned, batch: Batch) -> None:
        """Count one batch."""
        assert batch.targets is not None, "a training batch has targets"
        if self.negatives is None:
            self.negatives = NegativeCounts(self.how, assigned.high)
        self.negatives.add(assigned)
        self.positives.add(assigned, batch.targets, batch.scales)
        self.residuals.append(assigned.residuals.cpu())

    def tables(self) -> dict[str, Any]:
        """``negatives``, ``per_instance``, ``per_level``."""
        assert self.negatives is not None, "tables of at least one batch"
        return {"negatives": self.negatives.tables(), **self.positives.tables()}


class ModelCounts:
    """Everything that is counted over the batches of a measurement."""

    def __init__(
        self, stages: Mapping[str, StageCounts], pyramid: PyramidStatistics | None, parts: PartGradients
    ):
        self.stages, self.pyramid, self.parts, self.images = stages, pyramid, parts, 0

    def add(self, model: Detector, batch: Batch) -> None:
        """Measure one batch; the gradient ends at the features, so that no weight gets one."""
        with torch.no_grad():
            before = model.unbalanced_features(batch)
            seen = before if model.balance is None else model.balance(before)
        leaves = [level.detach().requires_grad_() for level in seen]
        losses, _ = model.losses(leaves, batch)
        gradients = self.parts.add(losses, leaves)
        if self.pyramid is not None:
            self.pyramid.add(before, gradients)
        for name, assigned in assign_boxes(model, seen, batch).items():
            self.stages[name].add(assigned, batch)
        self.images += len(batch.images)

    def result(self) -> Measured:
        """What was found; of stages that the detector has."""
        stages = {name: stage for name, stage in self.stages.items() if stage.negatives is not None}
        last = list(stages.values())[-1]
        return Measured(
            self.images,
            {name: stage.tables() for name, stage in stages.items()},
            self.pyramid.tables() if self.pyramid else None,
            self.parts.tables(),
            torch.cat(last.residuals),
        )
