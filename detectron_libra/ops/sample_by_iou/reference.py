# SPDX-License-Identifier: Apache-2.0
"""Random choice of boxes in plain PyTorch: fixed shapes whatever is chosen, no look at a value on the host.

Every random decision is a rank among uniform keys that the caller draws. Where a second, independent decision
is needed about boxes whose keys a first one has already used, the keys are stirred (``second_keys``).
"""

import torch
from torch import Tensor

FORMS = ("paper", "released")
KEY_STEPS = 1 << 31  # how finely keys are told apart


def check_form(form: str) -> None:
    """Raises ValueError for a form that does not exist."""
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; use one of {', '.join(FORMS)}")


def second_keys(keys: Tensor) -> Tensor:
    """Keys in 0..1 that follow from ``keys`` but whose order tells nothing about theirs.

    Source: Thomas Mueller's 32-bit integer hash (multiplier 0x45d9f3b), a bijection; no product passes 2^63.
    """
    bits = (keys * KEY_STEPS).long()
    for _ in range(2):
        bits = ((bits ^ (bits >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    bits = bits ^ (bits >> 16)
    return (bits >> 8).to(torch.float32) / (1 << 24)


def rank_in_group(group: Tensor, keys: Tensor, num_groups: int) -> Tensor:
    """Position of each element by key among those of its group, per row.

    Args:
        group: (N, M) int64, 0..num_groups-1.
        keys: (N, M) float32 in 0..1; among equals the lower column comes first.

    Returns:
        (N, M) int64, 0 for the smallest key of the group.
    """
    # Group in the high bits and key in the low ones: one sort does both.
    order = ((group << 32) + (keys * KEY_STEPS).long()).argsort(dim=1, stable=True)
    grouped = group.gather(1, order)
    groups = torch.arange(num_groups, device=group.device).expand(group.shape[0], -1).contiguous()
    starts = torch.searchsorted(grouped, groups)
    position = torch.arange(group.shape[1], device=group.device).expand_as(group)
    return torch.empty_like(group).scatter_(1, order, position - starts.gather(1, grouped))


@torch.no_grad()
def sample_uniform_reference(candidates: Tensor, num: Tensor, keys: Tensor) -> Tensor:
    """See ``sample_uniform``; keys float32."""
    return candidates & (rank_in_group((~candidates).long(), keys, 2) < num[:, None])


def interval_of(iou: Tensor, low: float, high: Tensor, bins: int) -> Tensor:
    """Which of ``bins`` equal parts of [low, high) each IoU (N, M) lies in; ``bins`` for none. high: (N,)."""
    # Divided by a tensor: by a number, CUDA multiplies with its reciprocal, and edges differ in the last bit.
    width = (high - low).clamp(min=0) / torch.full_like(high, bins)
    edges = low + torch.arange(bins + 1, device=iou.device) * width[:, None]
    index = torch.searchsorted(edges.to(iou.dtype).contiguous(), iou.contiguous(), right=True) - 1
    return torch.where((index < 0) | (index > bins), bins, index)


@torch.no_grad()
def sample_by_iou_reference(
    iou: Tensor,
    candidates: Tensor,
    num: Tensor,
    keys: Tensor,
    *,
    bins: int = 3,
    floor: float = -1.0,
    floor_fraction: float = 0.0,
    form: str = "paper",
    high: float = 0.5,
    low: float = 0.0,
    max_iou: Tensor | None = None,
) -> Tensor:
    """See ``sample_by_iou``; iou, keys and max_iou float32."""
    check_form(form)
    if iou.shape[1] == 0:
        return candidates.clone()
    if form == "paper":
        top = torch.full_like(iou[:, 0], high)
    elif max_iou is None:
        top = iou.amax(1)
    else:
        top = max_iou
    if floor > 0:
        low_set = candidates & (iou < floor)
    elif floor == 0:
        low_set = candidates & (iou <= 0)
    else:
        low_set = torch.zeros_like(candidates)
    iou_set = candidates & ~low_set
    wanted = (num.double() * (1 - floor_fraction)).long()

    part = interval_of(iou, max(floor, low if form == "paper" else 0.0, 0.0), top, bins)
    group = torch.where(iou_set, part, torch.where(low_set, bins + 1, bins + 2))
    rank = rank_in_group(group, keys, bins + 3)
    share = wanted // bins if bins > 1 else torch.zeros_like(wanted)
    by_part = iou_set & (part < bins) & (rank < share[:, None])

    from_parts = by_part.sum(1)
    from_iou_set = torch.minimum(wanted, iou_set.sum(1))
    from_low_set = torch.minimum(num - from_iou_set, low_set.sum(1))
    more = num - from_parts - from_low_set
    rest = sample_uniform_reference(iou_set & ~by_part, more, second_keys(keys))
    return by_part | rest | (low_set & (rank < from_low_set[:, None]))


@torch.no_grad()
def sample_by_instance_reference(
    index: Tensor, candidates: Tensor, num: Tensor, keys: Tensor, *, form: str = "paper", num_gt: int
) -> Tensor:
    """See ``sample_by_instance``; keys float32."""
    check_form(form)
    group = torch.where(candidates, index, num_gt)
    rank = rank_in_group(group, keys, num_gt + 1)
    # The first of each ground truth stands for it, which counts them without a table.
    instances = (candidates & (rank == 0)).sum(1).clamp(min=1)
    share = torch.round(num.double() / instances).long() + 1
    balanced = candidates & (rank < share[:, None])
    missing = (num - balanced.sum(1)).clamp(min=0)
    again = second_keys(keys)
    pool = candidates & ~balanced if form == "paper" else candidates
    filled = balanced | sample_uniform_reference(pool, missing, again)
    chosen = torch.where((missing > 0)[:, None], filled, sample_uniform_reference(balanced, num, again))
    return torch.where((candidates.sum(1) <= num)[:, None], candidates, chosen)
