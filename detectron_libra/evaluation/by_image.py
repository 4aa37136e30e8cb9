# SPDX-License-Identifier: Apache-2.0
"""How well each image went: right, wrong and missed boxes at a score threshold, and the images at both ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .boxes import Matches


@dataclass(frozen=True)
class ImageCounts:
    """Boxes of every image, in the order of ``records_by_id``.

    Attributes:
        right, wrong: (N,) int64, detections at or above the threshold.
        missed: (N,) int64, true boxes that none of them takes.
    """

    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """(N,) float64, 2 TP / (2 TP + FP + FN); NaN for an image with nothing to find and nothing found."""
        whole = 2 * self.right + self.wrong + self.missed
        return np.divide(2.0 * self.right, whole, out=np.full(len(whole), np.nan), where=whole > 0)

    def ends(self, count: int) -> tuple[list[int], list[int]]:
        """Images with the highest and with the lowest F1, no image in both; those without F1 in neither.

        Of equal ones, the best have more boxes right and the worst more boxes wrong or missed.

        Args:
            count: of each, at most.

        Returns:
            Places of the best, the best one first; places of the worst, the worst one first.
        """
        f1, errors = self.f1, self.wrong + self.missed
        order = np.lexsort((errors, -self.right, -f1))
        order = order[np.isfinite(f1[order])]
        best = order[: min(count, len(order) // 2)]
        rest = order[len(best) :]
        worst = rest[np.lexsort((rest, -errors[rest], f1[rest]))][:count]
        return best.tolist(), worst.tolist()


def count_by_image(matches: Matches, images: int, *, threshold: float) -> ImageCounts:
    """Right, wrong and missed boxes of every image.

    Args:
        matches: of ``match_dataset``.
        images: N.
        threshold: score, compared in float32, as scores are.
    """
    claimed = matches.counts & (matches.found.scores >= np.float32(threshold))
    right = np.bincount(matches.found.image[claimed & matches.right], minlength=images)
    wrong = np.bincount(matches.found.image[claimed & ~matches.right], minlength=images)
    return ImageCounts(right, wrong, np.bincount(matches.objects.image, minlength=images) - right)
