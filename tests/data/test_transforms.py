# SPDX-License-Identifier: Apache-2.0
"""Detectron's arithmetic of resizing and flipping."""

import numpy as np
import pytest
import torch

from detectron_libra.data.transforms import flip_image, resize, resized
from detectron_libra.geometry import flip_boxes
from tests import golden


@pytest.mark.parametrize(
    ("size", "side", "most", "want"),
    [
        ((480, 640), 800, 1333, (800 / 480, 800, 1067)),
        ((427, 640), 800, 1333, (800 / 427, 800, 1199)),
        ((300, 1000), 800, 1333, (1.333, 400, 1333)),
        ((640, 480), 240, 320, (0.5, 320, 240)),
        ((1, 4000), 96, 160, (0.04, 1, 160)),
        ((96, 96), 96, 96, (1.0, 96, 96)),
    ],
)
def test_short_side_is_met_unless_the_long_one_would_pass(size, side, most, want):
    """The rule: scale = side / short, but max_size / long where round(scale * long) > max_size."""
    scale, height, width = resized(*size, side=side, max_size=most)
    assert scale == pytest.approx(want[0]) and (height, width) == want[1:]


def opencv_bilinear(image, size, scale):
    """The definition: destination pixel d reads the source at (d + 0.5) / scale - 0.5, edges repeated."""

    def taps(count, limit):
        at = np.clip((np.arange(count) + 0.5) / scale - 0.5, 0, limit - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, limit - 1), at - low

    (y0, y1, fy), (x0, x1, fx) = (taps(c, n) for c, n in zip(size, image.shape[1:], strict=True))
    fy, fx = fy[:, None], fx[None, :]
    top = image[:, y0][:, :, x0] * (1 - fx) + image[:, y0][:, :, x1] * fx
    low = image[:, y1][:, :, x0] * (1 - fx) + image[:, y1][:, :, x1] * fx
    return top * (1 - fy) + low * fy


@pytest.mark.parametrize(("height", "width", "side"), [(37, 53, 48), (53, 37, 20), (31, 90, 64)])
def test_float_resizing_samples_where_opencv_does(height, width, side):
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8))
    scale, *size = resized(height, width, side=side, max_size=100)
    got = resize(image, tuple(size), scale=(scale, scale), in_float=True)
    assert got.dtype == torch.float32
    want = opencv_bilinear(image.numpy().astype(np.float64), size, scale)
    assert np.abs(got.numpy() - want).max() < 2e-3


def test_float_resizing_equals_opencvs_numbers():
    arrays, meta = golden.load("opencv_resize")
    for k, scale in enumerate(meta["scales"]):
        want = arrays[f"resized_{k}"]
        image = torch.from_numpy(arrays["image"]).permute(2, 0, 1)
        got = resize(image, want.shape[:2], scale=(scale, scale), in_float=True)
        assert np.abs(got.permute(1, 2, 0).numpy() - want).max() < 2e-3


def test_means_may_be_subtracted_behind_float_resizing():
    """The rule: PIXEL_MEANS are subtracted before cv2.resize. Ours go behind it: bilinear weights add up to 1."""
    image = torch.randint(0, 256, (3, 37, 53), dtype=torch.uint8)
    mean = torch.tensor([102.9801, 115.9465, 122.7717])[:, None, None]
    scale, *size = resized(37, 53, side=61, max_size=100)
    behind = resize(image, tuple(size), scale=(scale, scale), in_float=True) - mean
    want = opencv_bilinear(image.double().numpy() - mean.double().numpy(), size, scale)
    assert np.abs(behind.numpy() - want).max() < 2e-3


def test_integer_resizing_is_antialiased():
    stripes = (torch.arange(64) % 2 * 255).to(torch.uint8).expand(3, 64, 64).contiguous()
    got = resize(stripes, (16, 16), scale=(0.25, 0.25), in_float=False)
    assert got.dtype == torch.uint8
    assert (got[:, :, 2:-2].int() - 127).abs().max() <= 12  # without: 0 or 255 by the phase of the samples


def test_nothing_is_resampled_at_the_same_size():
    image = torch.randint(0, 256, (3, 7, 9), dtype=torch.uint8)
    assert torch.equal(resize(image, (7, 9), scale=(1.0, 1.0), in_float=True), image.float())
    assert torch.equal(resize(image, (7, 9), scale=(1.0, 1.0), in_float=False), image)


@pytest.mark.parametrize("extent", [0.0, 1.0])
@pytest.mark.parametrize("axes", [(True, False), (False, True), (True, True)])
def test_boxes_flip_with_their_pixels(extent, axes):
    """The rule: x1' = W - x2 - 1, x2' = W - x1 - 1."""
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    image[:, 4:9, 6:17] = 255
    box = torch.tensor([[6.0, 4.0, 17 - extent, 9 - extent]])
    flipped = flip_image(image, *axes)
    x1, y1, x2, y2 = flip_boxes(box, (20, 30), extent=extent, flip_x=axes[0], flip_y=axes[1])[0].tolist()
    rows, columns = flipped[0].nonzero().unbind(1)
    assert (columns.min(), rows.min()) == (x1, y1)
    assert (columns.max() + 1 - extent, rows.max() + 1 - extent) == (x2, y2)


def test_flipping_twice_gives_the_box_back():
    boxes = torch.tensor([[1.5, 2.0, 7.25, 9.0], [0.0, 0.0, 29.0, 19.0]])
    once = flip_boxes(boxes, (20, 30), extent=1.0, flip_x=True, flip_y=True)
    assert torch.equal(flip_boxes(once, (20, 30), extent=1.0, flip_x=True, flip_y=True), boxes)
