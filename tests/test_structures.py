# SPDX-License-Identifier: Apache-2.0
"""A batch carries what a step needs as tensors, so that nothing of its host side is read on the device."""

import torch

from detectron_libra.structures import Batch, ImageMeta, Proposals, Targets


def batch() -> Batch:
    targets = Targets(
        torch.zeros(2, 1, 4), torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.bool)
    )
    metas = (ImageMeta(1, "a", 20, 20, 0.5), ImageMeta("b", "b", 5, 5, 2.0))
    return Batch(
        torch.zeros(2, 3, 10, 10, dtype=torch.uint8), torch.tensor([[10, 10], [10, 10]]), targets, metas
    )


def test_scales_are_those_of_the_images_and_move_with_them():
    one = batch()
    assert one.scales.tolist() == [0.5, 2.0] and one.scales.dtype == torch.float32
    assert one.to("meta").scales.device.type == "meta"
    assert one.to("cpu").scales is one.scales


def test_valid_targets_are_objects_and_no_crowds_or_padding():
    classes, crowd = torch.tensor([[1, 2, 0]]), torch.tensor([[False, True, False]])
    assert Targets(torch.zeros(1, 3, 4), classes, crowd).valid.tolist() == [[True, False, False]]


def test_proposals_are_trimmed_behind_the_last_valid_one():
    """Of any image; at least one row stays, so that no kernel meets an empty batch."""
    valid = torch.tensor([[True, False, False, False], [True, False, True, False]])
    proposals = Proposals(torch.rand(2, 4, 4), torch.rand(2, 4), valid)
    trimmed = proposals.trimmed()
    assert trimmed.valid.tolist() == [[True, False, False], [True, False, True]]
    assert torch.equal(trimmed.boxes, proposals.boxes[:, :3]) and torch.equal(
        trimmed.scores, proposals.scores[:, :3]
    )
    nothing = Proposals(torch.rand(2, 4, 4), torch.rand(2, 4), torch.zeros(2, 4, dtype=torch.bool)).trimmed()
    assert nothing.valid.shape == (2, 1)
