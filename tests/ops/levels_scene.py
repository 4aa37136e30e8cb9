# SPDX-License-Identifier: Apache-2.0
"""A dense head's outputs and what they should learn, for the tests of balanced L1 on them."""

import torch

from detectron_libra.ops.balanced_l1 import balanced_l1_on_matches

FORMS = ("paper", "released", "smooth_l1")
MAPS = ((5, 3), (2, 2), (1, 1))
PER_CELL = 2
ANCHORS = sum(h * w for h, w in MAPS) * PER_CELL


def boxes_at(generator, *shape):
    corner = torch.rand(*shape, 2, generator=generator) * 90
    return torch.cat((corner, corner + 1 + torch.rand(*shape, 2, generator=generator) * 60), -1)


def scene(device="cpu", dtype=torch.float32, images=2, truths=3, maps=MAPS, per_cell=PER_CELL, seed=0):
    """deltas, anchors, ground truth (N, G, 4), the mask of positives and the row that each anchor learns."""
    g = torch.Generator().manual_seed(seed)
    deltas = [torch.randn(images, 4 * per_cell, h, w, generator=g).to(device, dtype) for h, w in maps]
    count = sum(h * w for h, w in maps) * per_cell
    anchors, truth = boxes_at(g, count), boxes_at(g, images, truths)
    positive = (torch.rand(images, count, generator=g) < 0.4) & (truths > 0)
    index = torch.randint(0, max(truths, 1), (images, count), generator=g)
    return deltas, *(t.to(device) for t in (anchors, truth, positive, index))


def as_list(truth, positive, index, spare=2):
    """The same positives as a list with unused rows, in another order."""
    n, m = positive.nonzero(as_tuple=True)
    locations, boxes = n * positive.shape[1] + m, truth[n, index[n, m]]
    locations = torch.cat((locations, locations.new_full((spare,), -1))).flip(0)
    return locations, torch.cat((boxes, boxes.new_zeros(spare, 4))).flip(0)


def on_matches(deltas, anchors, truth, positive, index, extent=1.0, beta=0.3, **options):
    return balanced_l1_on_matches(
        deltas, anchors, truth, positive=positive, index=index, extent=extent, beta=beta, **options
    )


def loss_and_gradients(run, deltas):
    leaves = [d.detach().clone(memory_format=torch.preserve_format).requires_grad_() for d in deltas]
    loss = run(leaves)
    return loss.detach(), torch.autograd.grad(3 * loss, leaves)
