# SPDX-License-Identifier: Apache-2.0
"""Configuration to test-time augmentation: how each image is shown, and how what is found is merged."""

from dataclasses import replace

from detectron_libra.config.schema import Config
from detectron_libra.data.plan import Sample
from detectron_libra.modeling.merging import Merging


def views(cfg: Config) -> tuple[Sample, ...]:
    """How each image is shown in testing; the image as it is comes last. The index of a view means nothing.

    Source: Detectron's core/test.py, im_detect_bbox_aug.
    """
    plain, a = Sample(0, cfg.TEST.SCALE), cfg.TEST.BBOX_AUG
    if not a.ENABLED:
        return (plain,)
    scaled = [replace(plain, side=side, max_size=a.MAX_SIZE) for side in a.SCALES]
    stretched = [replace(plain, stretch=ratio) for ratio in a.ASPECT_RATIOS]
    return (
        *_mirrored([plain], a.H_FLIP)[1:],
        *_mirrored(scaled, a.SCALE_H_FLIP),
        *_mirrored(stretched, a.ASPECT_RATIO_H_FLIP),
        plain,
    )


def _mirrored(shown: list[Sample], also: bool) -> list[Sample]:
    """Each view, with its mirror image behind it where that is asked for."""
    return [view for v in shown for view in ((v, replace(v, flip_x=True)) if also else (v,))]


def merging(cfg: Config) -> Merging | None:
    """How the views are merged; None where there is only one."""
    a = cfg.TEST.BBOX_AUG
    return Merging(len(views(cfg)), a.SCORE_HEUR, a.COORD_HEUR) if a.ENABLED else None
