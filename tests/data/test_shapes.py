# SPDX-License-Identifier: Apache-2.0
"""Generated shapes: exact boxes, the options do what they say, the same files from the same arguments."""

import json
from pathlib import Path

import numpy as np
import pytest

from detectron_libra.data.check import load_checked
from detectron_libra.data.shapes import SHAPES, draw_shapes, make_shapes
from detectron_libra.errors import UsageError


def counts(file):
    content = json.loads(Path(file).read_text())
    return np.bincount([a["category_id"] for a in content["annotations"]], minlength=4)[1:]


def test_the_set_passes_the_full_check(tmp_path):
    file = make_shapes(tmp_path / "shapes", images=12, split="train", size=(64, 96), classes=tuple(SHAPES))
    dataset = load_checked(
        "s", str(Path(file).parent / "images"), file, extent=0.0, level="full", need_boxes=True
    )
    assert len(dataset.records) == 12 and dataset.class_names == tuple(SHAPES)
    assert not dataset.problems.kinds


def test_boxes_are_exact():
    """The shape's colour reaches all four sides of its box, and no pixel further."""
    options = {
        "size": (80, 100),
        "classes": ("circle",),
        "frequencies": np.ones(1),
        "crowding": 0.0,
        "max_objects": 1,
    }
    for seed in range(20):
        picture, [(_, (x, y, w, h), area)] = draw_shapes(np.random.default_rng(seed), **options)
        inside = picture[y + h // 2, x + w // 2].astype(int)
        near = np.linalg.norm(picture.astype(int) - inside, axis=2) < 45
        rows, columns = np.flatnonzero(near[:, x + w // 2]), np.flatnonzero(near[y + h // 2])
        assert 0.7 * w * h < area < 0.87 * w * h
        assert {y, y + h - 1} <= set(rows) and {x, x + w - 1} <= set(columns)
        assert y - 1 not in rows and y + h not in rows and x - 1 not in columns and x + w not in columns


def test_imbalance_is_the_ratio_between_classes(tmp_path):
    even = counts(make_shapes(tmp_path, images=120, split="even", size=(64, 64)))
    skewed = counts(make_shapes(tmp_path, images=120, split="skewed", size=(64, 64), imbalance=4.0))
    assert even.max() / even.min() < 1.5
    assert 2.5 < skewed[0] / skewed[1] < 6.5 and skewed[1] > skewed[2] > 0


def test_crowding_makes_boxes_overlap(tmp_path):
    def overlaps(crowding):
        file = make_shapes(tmp_path, images=20, split=f"c{crowding}", crowding=crowding, max_objects=12)
        by_image: dict = {}
        for a in json.loads(Path(file).read_text())["annotations"]:
            by_image.setdefault(a["image_id"], []).append(np.array(a["bbox"]))
        pairs = [(p, q) for b in by_image.values() for i, p in enumerate(b) for q in b[:i]]
        return sum(
            (np.minimum(p[:2] + p[2:], q[:2] + q[2:]) > np.maximum(p[:2], q[:2])).all() for p, q in pairs
        )

    assert overlaps(0.6) > 2 * overlaps(0.0)


def test_same_arguments_same_files_and_no_second_drawing(tmp_path):
    def content(file):
        return Path(file).read_bytes(), (Path(file).parent / "images/000001.jpg").read_bytes()

    first = make_shapes(tmp_path / "a", images=3, split="train")
    second = make_shapes(tmp_path / "b", images=3, split="train")
    assert content(first) == content(second)
    before = Path(first).stat().st_mtime_ns
    make_shapes(tmp_path / "a", images=3, split="train")
    assert Path(first).stat().st_mtime_ns == before
    longer = make_shapes(tmp_path / "a", images=4, split="train")
    assert (
        content(longer)[1] == content(second)[1] and len(json.loads(Path(longer).read_text())["images"]) == 4
    )
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["train"]


def test_train_and_val_differ_with_one_seed(tmp_path):
    train, val = (make_shapes(tmp_path / name, images=2) for name in ("train", "val"))
    assert Path(train).read_bytes() != Path(val).read_bytes()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="train"):
        make_shapes(tmp_path, images=2, split="train")
    assert (tmp_path / "train/thesis.tex").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [({"classes": ("blob",)}, "blob"), ({"crowding": 2}, "crowding"), ({"imbalance": 0}, "imbalance")],
)
def test_arguments_out_of_range_are_refused(tmp_path, options, word):
    with pytest.raises(UsageError, match=word):
        make_shapes(tmp_path, images=2, split="train", **options)
