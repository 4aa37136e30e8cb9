# SPDX-License-Identifier: Apache-2.0
"""Detectron's arithmetic of boxes and losses written down once more, in NumPy and float64, as oracle of the tests."""

import numpy as np

LARGEST_GROWTH = np.log(1000 / 16)


def area(boxes):
    """Both corners are pixels of a box: (x2 - x1 + 1) (y2 - y1 + 1)."""
    return (boxes[..., 2] - boxes[..., 0] + 1) * (boxes[..., 3] - boxes[..., 1] + 1)


def iou(a, b):
    """(M, 4) and (G, 4) to (M, G)."""
    a, b = np.asarray(a, dtype=float)[:, None], np.asarray(b, dtype=float)[None]
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]) + 1
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]) + 1
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    return inter / (area(a) + area(b) - inter)


def centre_and_size(boxes):
    size = boxes[..., 2:] - boxes[..., :2] + 1
    return boxes[..., :2] + 0.5 * size, size


def encode(boxes, targets, weights=(1, 1, 1, 1)):
    """Deltas (M, 4): weight x (shift of the centre in sides, log ratio of sides)."""
    (c, s), (tc, ts) = (centre_and_size(np.asarray(x, dtype=float)) for x in (boxes, targets))
    return np.concatenate([(tc - c) / s, np.log(ts / s)], -1) * weights


def decode(deltas, boxes, weights=(1, 1, 1, 1)):
    """Boxes: x2 = centre + width / 2 - 1; log sides are bounded above only."""
    c, s = centre_and_size(np.asarray(boxes, dtype=float))
    d = np.asarray(deltas, dtype=float) / weights
    c, half = c + d[..., :2] * s, 0.5 * s * np.exp(np.minimum(d[..., 2:], LARGEST_GROWTH))
    return np.concatenate([c - half, c + half - 1], -1)


def clip(boxes, height, width):
    """x to [0, W - 1], y to [0, H - 1]."""
    return np.clip(boxes, 0, np.array([width - 1, height - 1, width - 1, height - 1]))


def nms(boxes, scores, threshold):
    """Rows that stay, best first: a box goes at IoU >= threshold with a better one that stays."""
    order, kept = list(np.argsort(-scores, kind="stable")), []
    while order:
        best = order.pop(0)
        kept.append(best)
        order = [k for k in order if iou(boxes[[best]], boxes[[k]])[0, 0] < threshold]
    return np.array(kept, dtype=int)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, dtype=float)))


def smooth_l1(x, beta):
    """0.5 x^2 / beta below beta, |x| - 0.5 beta above."""
    x = np.abs(x)
    return np.where(x < beta, 0.5 * x * x / beta, x - 0.5 * beta)


def rows(levels, per_anchor):
    """Raw outputs (N, A*C, H, W) of all levels as (N, M, C): row by row, cell by cell, the cell's anchors in turn."""
    return np.concatenate(
        [
            x.detach()
            .double()
            .numpy()
            .reshape(x.shape[0], -1, per_anchor, *x.shape[2:])
            .transpose(0, 3, 4, 1, 2)
            .reshape(x.shape[0], -1, per_anchor)
            for x in levels
        ],
        axis=1,
    )
