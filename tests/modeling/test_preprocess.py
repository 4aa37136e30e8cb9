# SPDX-License-Identifier: Apache-2.0
"""What the network sees: channel order, normalisation, and padding that carries nothing."""

from dataclasses import replace

import pytest
import torch

from detectron_libra.modeling.preprocess import Preprocess
from tests.modeling.scenes import batch

MEANS, STDS = (102.0, 115.0, 122.0), (2.0, 4.0, 8.0)


def test_bgr_reverses_channels_before_means_and_stds():
    """Means and deviations are in the order of the network's input, not of the file."""
    b = batch([(64, 64)])
    rgb = Preprocess(MEANS, STDS, order="RGB", channels_last=False)(b)
    bgr = Preprocess(MEANS, STDS, order="BGR", channels_last=False)(b)
    pixels = b.images.float()
    for c in range(3):
        torch.testing.assert_close(rgb[0, c], (pixels[0, c] - MEANS[c]) / STDS[c])
        torch.testing.assert_close(bgr[0, c], (pixels[0, 2 - c] - MEANS[c]) / STDS[c])


def test_padding_is_zero_after_normalisation_and_the_image_is_not():
    """The rule: images are padded with 0 after the means are subtracted."""
    b = batch([(40, 64), (64, 30)])
    out = Preprocess(MEANS, STDS, order="RGB", channels_last=False)(b)
    assert not out[0, :, 40:].any() and not out[1, :, :, 30:].any()
    # A black pixel of the image is not the mean colour.
    dark = replace(b, images=torch.zeros_like(b.images))
    out = Preprocess(MEANS, STDS, order="RGB", channels_last=False)(dark)
    assert (out[0, :, :40] < 0).all() and (out[1, :, :, :30] < 0).all()


def test_what_lies_in_the_padding_does_not_matter():
    b = batch([(40, 50)])
    images = b.images.float()
    dirty = images.clone()
    dirty[:, :, 40:], dirty[:, :, :, 50:] = float("nan"), 255.0
    model = Preprocess(MEANS, STDS, order="BGR", channels_last=False)
    clean = model(replace(b, images=images))
    torch.testing.assert_close(model(replace(b, images=dirty)), clean, rtol=0, atol=0)


@pytest.mark.parametrize("last", [False, True])
def test_memory_format_is_asked_for_and_float32_comes_out(last):
    out = Preprocess(MEANS, STDS, order="RGB", channels_last=last)(batch([(64, 64), (64, 64)]))
    wanted = torch.channels_last if last else torch.contiguous_format
    assert out.is_contiguous(memory_format=wanted) and out.dtype == torch.float32


def test_unrounded_images_stay_unrounded():
    """Detectron's geometry resizes in float32."""
    b = batch([(64, 64)])
    half = replace(b, images=b.images.float() + 0.25)
    model = Preprocess((0, 0, 0), (1, 1, 1), order="RGB", channels_last=False)
    torch.testing.assert_close(model(half) - model(b), torch.full((1, 3, 64, 64), 0.25))


def test_means_are_no_weights():
    assert not Preprocess(MEANS, STDS, order="RGB", channels_last=False).state_dict()
