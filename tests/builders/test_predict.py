# SPDX-License-Identifier: Apache-2.0
"""The Python door: load a run, predict on paths, arrays and tensors."""

import pickle

import numpy as np
import pytest
import torch

import detectron_libra
from detectron_libra.data.images import read_image
from detectron_libra.errors import InputError


@pytest.fixture(scope="module")
def predictor(trained):
    threads = torch.get_num_threads()
    yield detectron_libra.load(trained.output)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def paths(trained):
    return sorted(str(p) for p in trained.images.glob("*.jpg"))


def equal(a, b) -> bool:
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("boxes", "scores", "classes"))


def test_the_classes_come_with_the_weights(predictor):
    assert predictor.class_names == ("circle", "square", "triangle")
    assert predictor.cfg.MODEL.NUM_CLASSES == 4


def test_a_path_gives_exactly_what_the_test_wrote(trained, predictor, paths):
    # all_boxes[class][image], rows of x1 y1 x2 y2 score; the file is our own
    all_boxes = pickle.loads((trained.tested / "detections.pkl").read_bytes())["all_boxes"]
    found = predictor.predict(paths)
    assert len(found) == 5 and sum(map(len, found)) > 0
    for k, detections in enumerate(found):
        for c in range(1, 4):
            mine = detections.classes == c
            rows = torch.cat((detections.boxes[mine], detections.scores[mine, None]), 1).numpy()
            np.testing.assert_array_equal(rows, np.asarray(all_boxes[c][k], np.float32).reshape(-1, 5))


def test_path_array_and_tensor_are_the_same_image(predictor, paths):
    tensor = read_image(paths[0])
    array = np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())
    first, second, third = predictor.predict([paths[0], array, tensor])
    assert len(first) > 0 and equal(first, second) and equal(first, third)
    assert equal(first, predictor.predict(array)[0])


def test_detections_are_sorted_and_inside_the_image(predictor):
    image = torch.randint(0, 256, (3, 40, 100), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (found,) = predictor.predict(image)
    assert torch.all(found.scores.diff() <= 0)
    assert torch.all(found.boxes >= 0) and torch.all(found.boxes <= torch.tensor([100.0, 40, 100, 40]))


def test_what_is_no_image_is_refused(predictor, tmp_path):
    with pytest.raises(InputError, match=r"gone\.jpg"):
        predictor.predict(tmp_path / "gone.jpg")
    for wrong in (
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 3)),
        torch.zeros(1, 8, 8, dtype=torch.uint8),
        7,
    ):
        with pytest.raises(TypeError, match="an image is"):
            predictor.predict([wrong])


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(InputError, match="no weights"):
        detectron_libra.load(tmp_path)
