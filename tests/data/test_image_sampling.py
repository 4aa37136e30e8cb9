# SPDX-License-Identifier: Apache-2.0
"""Repeat-factor sampling: the paper's formula, and an epoch that has images as often as it says."""

import math
from collections import Counter

import numpy as np
import pytest

from detectron_libra.data.coco import load_coco
from detectron_libra.data.image_sampling import RepeatFactor, count_boxes
from detectron_libra.data.loader import build_train_loader
from tests.data.coco_files import coco, write

#: Classes of the boxes of each image; a negative one is a crowd's.
IMAGES = ([1, 1, 2], [1], [1, 3], [1, 1, 1], [-2, 1], [], [1], [1])


def dataset(tmp_path, images=IMAGES):
    """A set whose image k + 1 has boxes of the classes ``images[k]``."""
    content = coco(len(images))
    content["categories"] = [{"id": c, "name": f"class {c}"} for c in (1, 2, 3, 4)]
    listed = [(k + 1, c) for k, classes in enumerate(images) for c in classes]
    content["annotations"] = [
        {
            "id": number,
            "image_id": image,
            "category_id": abs(c),
            "bbox": [2, 3, 20, 15],
            "area": 300,
            "iscrowd": int(c < 0),
        }
        for number, (image, c) in enumerate(listed, 1)
    ]
    return load_coco("set", *write(tmp_path, content), extent=1.0)


@pytest.mark.parametrize("threshold", [0.001, 0.3, 1.0])
def test_an_image_has_the_largest_factor_of_its_classes(tmp_path, threshold):
    """r_c = max(1, sqrt(t / f_c)); f: 7, 1 and 1 of 8 images; several boxes count once, crowds not at all."""
    factors = RepeatFactor(threshold)(dataset(tmp_path).records)
    frequent, rare = (max(1.0, math.sqrt(threshold / f)) for f in (7 / 8, 1 / 8))
    expected = [rare, frequent, rare, frequent, frequent, 1.0, frequent, frequent]
    np.testing.assert_allclose(factors, expected)


def test_boxes_are_counted_per_class_over_all_sets_without_crowds(tmp_path):
    one = dataset(tmp_path)
    assert count_boxes([one]).tolist() == [10, 1, 1, 0]
    assert count_boxes([one, one]).tolist() == [20, 2, 2, 0]


@pytest.mark.parametrize(("sampler", "times"), [(None, 1), (RepeatFactor(4 / 7), 2)], ids=["plain", "rare"])
def test_an_epoch_of_the_loader_has_rare_images_more_often(tmp_path, sampler, times):
    """A factor of exactly 2 for each of the two images with a rare class: nothing is left to be rounded.

    The image without boxes is not trained on, and the shares are of the seven others."""
    loader = build_train_loader(
        [dataset(tmp_path)],
        scales=(48,),
        max_size=80,
        images_per_batch=1,
        flip_x=False,
        aspect_grouping=True,
        stride=32,
        extent=1.0,
        resize_in_float=False,
        workers=0,
        seed=3,
        max_iter=5 + 2 * times,
        sampler=sampler,
    )
    seen = Counter(meta.image_id for batch in loader for meta in batch.metas)
    assert seen == {1: times, 3: times, **dict.fromkeys((2, 4, 5, 7, 8), 1)}
