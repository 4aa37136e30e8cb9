# SPDX-License-Identifier: Apache-2.0
"""Which boxes of a batch are learned from: fixed sizes, keys drawn on the device, the host reads nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from detectron_libra.modeling.matching import ProposalMatch, RPNMatch
from detectron_libra.ops.sample_by_iou import sample_by_instance, sample_by_iou, sample_uniform


@dataclass(frozen=True)
class IoUSampling:
    """IoU-balanced choice of negatives; the fields are those of ``ops.sample_by_iou``."""

    bins: int = 3
    floor: float = -1.0
    floor_fraction: float = 0.0
    form: str = "paper"


@dataclass(frozen=True)
class InstanceSampling:
    """Instance-balanced choice of positives; ``form`` is that of ``ops.sample_by_instance``."""

    form: str = "paper"


@dataclass(frozen=True)
class RoISampling:
    """Which proposals the second stage learns from.

    Attributes:
        batch_size: proposals per image.
        fg_fraction: largest share of positives among them.
        fg_thresh: IoU from which a proposal is positive.
        bg_hi, bg_lo: negatives have an IoU in [bg_lo, bg_hi).
        iou: how negatives are chosen; None chooses uniformly.
        instance: how positives are chosen; None chooses uniformly.
    """

    batch_size: int
    fg_fraction: float
    fg_thresh: float
    bg_hi: float
    bg_lo: float
    iou: IoUSampling | None = None
    instance: InstanceSampling | None = None


@dataclass(frozen=True)
class Sampled:
    """Chosen proposals, positives first, then negatives, then padding.

    Attributes:
        index: (N, B) int64, rows of the proposals; 0 or any other row in padding.
        valid: (N, B) bool, False in padding.
        positive: (N, B) bool.
    """

    index: Tensor
    valid: Tensor
    positive: Tensor


def random_keys(like: Tensor) -> Tensor:
    """Uniform random numbers in 0..1, of the shape of ``like`` and on its device, from torch's generator."""
    return torch.rand(like.shape, device=like.device)


def choose_negatives(
    iou: Tensor,
    candidates: Tensor,
    num: Tensor,
    keys: Tensor,
    how: IoUSampling | None,
    high: float,
    low: float = 0.0,
) -> Tensor:
    """``num`` (N,) of the candidates (N, M), by IoU where ``how`` says so."""
    if how is None:
        return sample_uniform(candidates, num, keys)
    return sample_by_iou(
        iou,
        candidates,
        num,
        keys,
        bins=how.bins,
        floor=how.floor,
        floor_fraction=how.floor_fraction,
        form=how.form,
        high=high,
        low=low,
    )


def pack(positive: Tensor, negative: Tensor, size: int) -> Sampled:
    """Chosen rows (N, M) as indices (N, size), positives first; at most ``size`` may be chosen per image."""
    kind = torch.where(positive, 0, torch.where(negative, 1, 2))
    kind, index = kind.sort(dim=1, stable=True)
    missing = max(size - kind.shape[1], 0)
    kind = torch.nn.functional.pad(kind[:, :size], (0, missing), value=2)
    index = torch.nn.functional.pad(index[:, :size], (0, missing))
    return Sampled(index, kind < 2, kind == 0)


@torch.no_grad()
def sample_rois(match: ProposalMatch, sampling: RoISampling, *, keys: Tensor | None = None) -> Sampled:
    """Positives and negatives of each image for the second stage.

    At most round(fg_fraction * batch_size) positives, and negatives for the rest; fewer where there are
    fewer.

    Args:
        match: overlap of the proposals with ground truth; rows of IoU -1 are never chosen.
        sampling: how many, and how.
        keys: (N, P) float32, uniform random in 0..1; drawn here by default.

    Returns:
        Sampled of B = batch_size rows per image.

    Source: Detectron's roi_data/fast_rcnn.py; Pang et al., Libra R-CNN, section 3.1.
    """
    s = sampling
    keys = random_keys(match.iou) if keys is None else keys
    foreground = match.iou >= s.fg_thresh
    background = (match.iou >= max(s.bg_lo, 0.0)) & (match.iou < s.bg_hi) & ~foreground
    most = torch.full_like(match.index[:, 0], round(s.fg_fraction * s.batch_size))
    if s.instance is None:
        positive = sample_uniform(foreground, most, keys)
    else:
        positive = sample_by_instance(
            match.index, foreground, most, keys, form=s.instance.form, num_gt=match.num_gt
        )
    left = s.batch_size - positive.sum(1)
    negative = choose_negatives(match.iou, background, left, keys, s.iou, s.bg_hi, s.bg_lo)
    return pack(positive, negative, s.batch_size)


def draw_with_replacement(candidates: Tensor, num: Tensor, size: int, keys: Tensor) -> Tensor:
    """What ``num`` (N,) <= size draws with replacement hit of candidates (N, M); all where no more."""
    count = candidates.sum(1, keepdim=True)
    rank = (keys[:, :size] * count).long().clamp(max=candidates.shape[1] - 1)
    drawn = (~candidates).long().argsort(dim=1, stable=True).gather(1, rank)
    made = torch.arange(drawn.shape[1], device=num.device) < num[:, None]
    # Draws that are not made land in a column of their own, which is then cut off.
    hit = torch.zeros_like(candidates[:, :1]).expand(-1, candidates.shape[1] + 1).clone()
    hit.scatter_(1, torch.where(made, drawn, candidates.shape[1]), True)
    return torch.where(count <= num[:, None], candidates, hit[:, :-1] & candidates)


@torch.no_grad()
def sample_rpn(
    match: RPNMatch,
    *,
    batch_size: int,
    fg_fraction: float,
    with_replacement: bool = True,
    keys: Tensor | None = None,
) -> Tensor:
    """Labels of the anchors that the region proposal network learns from.

    Args:
        match: candidates.
        batch_size: anchors per image.
        fg_fraction: largest share of positives.
        with_replacement: negatives are drawn with replacement, so that fewer different ones come out, and
            may hit an anchor that is also foreground and so turn it into background: Detectron's
            behaviour. Otherwise each is drawn once, and foreground is never background.
        keys: (2, N, M) float32, uniform random in 0..1, for positives and negatives; drawn here by default.

    Returns:
        (N, M) int64: 1, 0, and -1 for anchors that are not learned from.

    Source: Detectron's roi_data/rpn.py.
    """
    if keys is None:
        keys = torch.rand((2, *match.iou.shape), device=match.iou.device)
    most = torch.full_like(match.index[:, 0], int(fg_fraction * batch_size))
    positive = sample_uniform(match.foreground, most, keys[0])
    left = batch_size - positive.sum(1)
    if with_replacement:
        negative = draw_with_replacement(match.background, left, batch_size, keys[1])
    else:
        negative = sample_uniform(match.background & ~match.foreground, left, keys[1])
    return torch.where(negative, 0, torch.where(positive, 1, -1))


@torch.no_grad()
def sample_negatives(
    iou: Tensor,
    background: Tensor,
    num: int,
    sampling: IoUSampling | None,
    *,
    high: float,
    keys: Tensor | None = None,
) -> Tensor:
    """A number of negatives per image for a dense detector, which otherwise learns from all of them.

    Args:
        iou: (N, M) float32, largest IoU of each anchor with a ground truth.
        background: (N, M) bool, the negatives.
        num: how many per image.
        sampling: how; None chooses uniformly.
        high: IoU below which an anchor is a negative.
        keys: (N, M) float32, uniform random in 0..1; drawn here by default.

    Returns:
        (N, M) bool, chosen; all where there are fewer than ``num``.
    """
    keys = random_keys(iou) if keys is None else keys
    wanted = torch.full((iou.shape[0],), num, dtype=torch.int64, device=iou.device)
    return choose_negatives(iou, background, wanted, keys, sampling, high)
