# SPDX-License-Identifier: Apache-2.0
"""Pictures show what they claim to show, at any size."""

import numpy as np
import pytest
import torch
from PIL import Image

from detectron_libra.evaluation import draw, write_pictures
from detectron_libra.evaluation.canvas import Canvas, colour_of
from detectron_libra.evaluation.pictures import LONG_SIDE_PX
from detectron_libra.structures import Detections

from .scenes import dataset, found, record

NAMES = ("cat", "dog")
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def grey(height, width):
    return torch.full((3, height, width), 128, dtype=torch.uint8)


def has(picture, colour, box=None):
    pixels = np.asarray(picture.crop(box) if box else picture)
    return bool((pixels == colour).all(axis=2).any())


def test_a_box_has_its_classs_colour_where_it_lies():
    picture = draw(grey(600, 800), found((2, 0.9, (100, 200, 300, 400))), None, NAMES, threshold=0.5)
    assert picture.size == (800, 600)
    assert has(picture, colour_of(2), (95, 250, 105, 350)) and has(
        picture, colour_of(2), (295, 250, 305, 350)
    )
    assert not has(picture, colour_of(2), (120, 220, 280, 380)) and not has(picture, colour_of(1))


def test_boxes_below_the_threshold_are_not_drawn():
    picture = draw(grey(600, 800), found((1, 0.49, (100, 200, 300, 400))), None, NAMES, threshold=0.5)
    assert np.asarray(picture).std() == 0


def test_true_boxes_are_dashed_and_only_missed_ones_are_named(monkeypatch):
    named = []
    original = Canvas.label
    monkeypatch.setattr(
        Canvas,
        "label",
        lambda self, box, text, colour: (named.append(text), original(self, box, text, colour)),
    )
    truth = (torch.tensor([[100.0, 200, 300, 400], [500, 200, 600, 300]]), torch.tensor([1, 2]))
    picture = draw(grey(600, 800), found((1, 0.996, (100, 200, 300, 390))), truth, NAMES, threshold=0.5)
    assert named == ["missed: dog", "cat 0.99"]
    row = np.asarray(picture)[240:290, 498:503].astype(int).min(axis=2).max(axis=1) > 250
    assert row.any() and not row.all()  # white with gaps down the left side
    assert picture.height > 600  # the legend


@pytest.mark.parametrize(("height", "width"), [(160, 120), (1, 1), (3, 900), (1000, 1333)])
def test_small_images_are_enlarged_and_none_shrinks(height, width):
    picture = draw(grey(height, width), found((1, 0.9, (0, 0, width, height))), None, NAMES, threshold=0.5)
    assert max(picture.size) >= max(LONG_SIDE_PX, height, width)
    assert has(picture, colour_of(1))


def test_boxes_of_an_untrained_detector_can_be_drawn():
    wild = found(
        (1, 0.9, (50, 50, 10, 10)), (2, 0.8, (-1e4, -1e4, 1e4, 1e4)), (1, 0.7, (float("nan"), 0, 5, 5))
    )
    draw(grey(90, 90), wild, (torch.zeros(0, 4), torch.zeros(0)), NAMES, threshold=0.0)
    draw(
        grey(90, 90), NOTHING, (torch.tensor([[5.0, 5, 5, 5]]), torch.tensor([1])), ("猫", "x"), threshold=0.0
    )


def test_labels_of_close_boxes_lie_apart():
    canvas = Canvas(Image.new("RGB", (800, 600)))
    for shift in range(4):
        canvas.label((300 + shift, 300, 420, 420), "platelets 0.90", colour_of(1))
    a, b = canvas.taken[:, None], canvas.taken[None]
    common = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(
        -1
    )
    assert (common[~np.eye(4, dtype=bool)] == 0).all()


def test_every_class_has_its_own_colour():
    assert len({colour_of(k) for k in range(1, 81)}) == 80


def test_pictures_are_spread_over_the_data_set(tmp_path):
    records = [
        record(i, [(5, 5, 20, 20)], [1], [i == 4], file=tmp_path / f"{i}.jpg", size=(60, 80))
        for i in range(9)
    ]
    asked = []

    def read_image(file, *, size):
        asked.append(size)
        return grey(*size)

    files = write_pictures(
        dataset(records),
        {0: found((1, 0.9, (5, 5, 20, 20)))},
        tmp_path / "p",
        count=3,
        threshold=0.5,
        read_image=read_image,
    )
    assert [f.name for f in files] == ["0.jpg.png", "4.jpg.png", "8.jpg.png"]
    assert asked == [(60, 80)] * 3
    with Image.open(files[0]) as picture:
        assert picture.format == "PNG" and has(picture.convert("RGB"), colour_of(1))
    assert not write_pictures(dataset([]), {}, tmp_path, count=3, threshold=0.5, read_image=read_image)


def test_one_file_name_in_two_folders_gives_two_pictures(tmp_path):
    records = [record(i, file=tmp_path / str(i) / "a.jpg") for i in range(2)]
    read_image = lambda file, *, size: grey(*size)  # noqa: E731
    files = write_pictures(dataset(records), {}, tmp_path, count=9, threshold=0.5, read_image=read_image)
    assert len({f.name for f in files if f.is_file()}) == 2
