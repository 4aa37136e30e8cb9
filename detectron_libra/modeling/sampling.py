# SPDX-License-Identifier: Apache-2.0
"""Which boxes of a batch are learned from: fixed sizes, keys drawn on the device, the host reads nothing."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from detectron_libra.modeling.matching import AnchorMatch, ProposalMatch, RPNMatch
from detectron_libra.modeling.slots import BoxCandidates, BoxSampler
from detectron_libra.ops.sample_by_iou import sample_by_instance, sample_by_iou, sample_uniform
from detectron_libra.structures import Targets


@dataclass(frozen=True)
class UniformSampling:
    """Every candidate is as likely as the next."""

    def __call__(self, boxes: BoxCandidates, num: Tensor, keys: Tensor) -> Tensor:
        """(N, M) bool, see ``slots.BoxSampler``."""
        return sample_uniform(boxes.candidates, num, keys)


@dataclass(frozen=True)
class IoUSampling:
    """IoU-balanced choice of negatives; the fields are those of ``ops.sample_by_iou``."""

    bins: int = 3
    floor: float = -1.0
    floor_fraction: float = 0.0
    form: str = "paper"

    def __call__(self, boxes: BoxCandidates, num: Tensor, keys: Tensor) -> Tensor:
        """(N, M) bool, see ``slots.BoxSampler``."""
        return sample_by_iou(
            boxes.iou,
            boxes.candidates,
            num,
            keys,
            bins=self.bins,
            floor=self.floor,
            floor_fraction=self.floor_fraction,
            form=self.form,
            high=boxes.high,
            low=boxes.low,
        )


@dataclass(frozen=True)
class InstanceSampling:
    """Instance-balanced choice of positives; ``form`` is that of ``ops.sample_by_instance``."""

    form: str = "paper"

    def __call__(self, boxes: BoxCandidates, num: Tensor, keys: Tensor) -> Tensor:
        """(N, M) bool, see ``slots.BoxSampler``."""
        return sample_by_instance(
            boxes.index, boxes.candidates, num, keys, form=self.form, num_gt=boxes.num_gt
        )


@dataclass(frozen=True)
class RoISampling:
    """Which proposals the second stage learns from.

    Attributes:
        batch_size: proposals per image.
        fg_fraction: largest share of positives among them.
        fg_thresh: IoU from which a proposal is positive.
        bg_hi, bg_lo: negatives have an IoU in [bg_lo, bg_hi).
        negatives, positives: how they are chosen.
    """

    batch_size: int
    fg_fraction: float
    fg_thresh: float
    bg_hi: float
    bg_lo: float
    negatives: BoxSampler = UniformSampling()
    positives: BoxSampler = UniformSampling()


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


def pack(positive: Tensor, negative: Tensor, size: int) -> Sampled:
    """Chosen rows (N, M) as indices (N, size), positives first; at most ``size`` may be chosen per image."""
    kind = torch.where(positive, 0, torch.where(negative, 1, 2))
    kind, index = kind.sort(dim=1, stable=True)
    missing = max(size - kind.shape[1], 0)
    kind = torch.nn.functional.pad(kind[:, :size], (0, missing), value=2)
    index = torch.nn.functional.pad(index[:, :size], (0, missing))
    return Sampled(index, kind < 2, kind == 0)


@torch.no_grad()
def sample_rois(
    match: ProposalMatch,
    sampling: RoISampling,
    *,
    targets: Targets | None = None,
    logits: Callable[[], Tensor] | None = None,
    keys: Tensor | None = None,
) -> Sampled:
    """Positives and negatives of each image for the second stage.

    At most round(fg_fraction * batch_size) positives, and negatives for the rest; fewer where there are
    fewer.

    Args:
        match: overlap of the proposals with ground truth; rows of IoU -1 are never chosen.
        sampling: how many, and how.
        targets, logits: for a sampler that asks for them, as in ``BoxCandidates``.
        keys: (N, P) float32, uniform random in 0..1; drawn here by default.

    Returns:
        Sampled of B = batch_size rows per image.

    Source: Detectron's roi_data/fast_rcnn.py; Pang et al., Libra R-CNN, section 3.1.
    """
    s = sampling
    keys = random_keys(match.iou) if keys is None else keys

    def boxes(candidates: Tensor, low: float, high: float) -> BoxCandidates:
        return BoxCandidates(candidates, match.iou, match.index, low, high, match.num_gt, targets, logits)

    foreground = match.iou >= s.fg_thresh
    background = (match.iou >= max(s.bg_lo, 0.0)) & (match.iou < s.bg_hi) & ~foreground
    most = torch.full_like(match.index[:, 0], round(s.fg_fraction * s.batch_size))
    positive = s.positives(boxes(foreground, s.fg_thresh, torch.inf), most, keys)
    left = s.batch_size - positive.sum(1)
    negative = s.negatives(boxes(background, s.bg_lo, s.bg_hi), left, keys)
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
    match: AnchorMatch,
    num: int,
    sampler: BoxSampler,
    *,
    high: float,
    targets: Targets | None = None,
    logits: Callable[[], Tensor] | None = None,
    keys: Tensor | None = None,
) -> Tensor:
    """A number of negatives per image for a dense detector, which otherwise learns from all of them.

    Args:
        match: of its anchors; those of label 0 are the negatives.
        num: how many per image.
        sampler: how.
        high: IoU below which an anchor is a negative.
        targets, logits: for a sampler that asks for them, as in ``BoxCandidates``.
        keys: (N, M) float32, uniform random in 0..1; drawn here by default.

    Returns:
        (N, M) bool, chosen; all where there are fewer than ``num``.
    """
    keys = random_keys(match.iou) if keys is None else keys
    wanted = torch.full((match.iou.shape[0],), num, dtype=torch.int64, device=match.iou.device)
    objects = 0 if targets is None else targets.boxes.shape[1]
    background = match.labels == 0
    return sampler(
        BoxCandidates(background, match.iou, match.index, 0.0, high, objects, targets, logits), wanted, keys
    )
