# SPDX-License-Identifier: Apache-2.0
"""Random choice of boxes, balanced by IoU or by instance; the random numbers are an argument.

What a row of keys chooses is the same, box for box, in the kernels and in plain PyTorch, on every device and
for any number of threads. Keys lie in 0..1 and are told apart in steps of 2^-31; of equal ones the lower
column comes first. Outputs have a fixed size, and the host reads nothing from the device.
"""

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.sample_by_iou.reference import (
    FORMS,
    check_form,
    sample_by_instance_reference,
    sample_by_iou_reference,
    sample_uniform_reference,
)

if is_built():
    from detectron_libra.ops.sample_by_iou import kernels

__all__ = [
    "FORMS",
    "sample_by_instance",
    "sample_by_instance_reference",
    "sample_by_iou",
    "sample_by_iou_reference",
    "sample_uniform",
    "sample_uniform_reference",
]


def sample_uniform(candidates: Tensor, num: Tensor, keys: Tensor) -> Tensor:
    """``num`` of the candidates of each image, each as likely as the next; all where there are fewer.

    Args:
        candidates: (N, M) bool.
        num: (N,) int64; none where it is 0 or less.
        keys: (N, M) floating, read as float32, uniform random in 0..1.

    Returns:
        (N, M) bool, the chosen ones.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not match, naming the argument.
    """
    keys = _checked(candidates, num, keys)
    if use_compiled(candidates):
        return kernels.sample_uniform(candidates, num, keys)
    return sample_uniform_reference(candidates, num, keys)


def sample_by_iou(
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
    """IoU-balanced choice of negatives: the same number from each interval of IoU, as far as it holds enough.

    The interval of IoU is cut into ``bins`` parts; each gives num / bins boxes at random; what is missing
    (empty parts, the remainder) comes at random from the rest. Form "paper" cuts [max(floor, low), high), so
    that every part can hold negatives. Form "released" cuts [max(floor, 0), largest IoU of any box), as the
    published code does: once ground truth is among the boxes that is [0, 1), and the last part stays empty.

    Args:
        iou: (N, M) floating, read as float32, largest IoU of each box with a ground truth. A NaN is in no
            part: its box comes only with the rest.
        candidates: (N, M) bool, the negatives.
        num: (N,) int64, how many to choose; none where it is 0 or less.
        keys: (N, M) floating, read as float32, uniform random in 0..1.
        bins: number of parts, at least 1; 1 chooses uniformly.
        floor: boxes with less IoU form a separate set that is drawn uniformly; at 0 these are the boxes with
            IoU 0, and a negative value makes no such set.
        floor_fraction: share of ``num`` meant for that set, 0..1.
        form: "paper" or "released".
        high, low: the IoU below which, and from which, a box is a negative (form "paper").
        max_iou: (N,) floating, upper end for form "released"; by default the largest of ``iou``.

    Returns:
        (N, M) bool, chosen: min(num, number of candidates) per image.

    Raises:
        ValueError: a form that does not exist, bins or floor_fraction out of range.
        RuntimeError: shapes, dtypes or devices that do not match, naming the argument.

    Source: Pang et al., Libra R-CNN, section 3.1; the authors' IoUBalancedNegSampler. That one turns its
        floor -1 into 0 after the first call; here floor -1 is always its first call, and floor 0 a later one.
    """
    check_form(form)
    if bins < 1:
        raise ValueError(f"bins is {bins}; there must be at least 1")
    if not 0 <= floor_fraction <= 1:
        raise ValueError(f"floor_fraction is {floor_fraction}; it must be in 0..1")
    keys = _checked(candidates, num, keys)
    iou = _floats(iou, "iou", candidates)
    if max_iou is not None:
        max_iou = _floats(max_iou, "max_iou", candidates, per_box=False)
    if use_compiled(candidates):
        numbers = (kernels.FORMS[form], bins, floor, floor_fraction, high, low)
        return kernels.sample_by_iou(iou, candidates, num, keys, max_iou, *numbers)
    return sample_by_iou_reference(
        iou,
        candidates,
        num,
        keys,
        bins=bins,
        floor=floor,
        floor_fraction=floor_fraction,
        form=form,
        high=high,
        low=low,
        max_iou=max_iou,
    )


def sample_by_instance(
    index: Tensor, candidates: Tensor, num: Tensor, keys: Tensor, *, form: str = "paper", num_gt: int
) -> Tensor:
    """Instance-balanced choice of positives: about the same number for each ground truth.

    Each of the n ground truths with candidates gives at most round(num / n) + 1 of them at random (halves to
    even); what is missing is drawn from the remaining candidates, what is too much is dropped at random. Form
    "released" draws the missing ones from all candidates, as published code does: some are drawn twice,
    and fewer than ``num`` come out.

    Args:
        index: (N, M) int64, ground truth of each box, 0..num_gt-1 for candidates.
        candidates: (N, M) bool, the positives.
        num: (N,) int64, how many to choose, at least 0.
        keys: (N, M) floating, read as float32, uniform random in 0..1.
        form: "paper" or "released".
        num_gt: G.

    Returns:
        (N, M) bool; all candidates where there are at most ``num``.

    Raises:
        ValueError: a form that does not exist.
        RuntimeError: shapes, dtypes or devices that do not match, naming the argument; an index out of range
            where the host can see it (CPU; on the GPU such a candidate is never chosen for its ground truth).

    Source: the authors' InstanceBalancedPosSampler.
    """
    check_form(form)
    keys = _checked(candidates, num, keys)
    _check_like(index, "index", candidates)
    if index.dtype != torch.int64:
        raise RuntimeError(f"index must be int64, not {index.dtype}")
    if use_compiled(candidates):
        return kernels.sample_by_instance(index, candidates, num, keys, kernels.FORMS[form], num_gt)
    return sample_by_instance_reference(index, candidates, num, keys, form=form, num_gt=num_gt)


def _checked(candidates: Tensor, num: Tensor, keys: Tensor) -> Tensor:
    """The keys as float32, after a look at what all samplers are given."""
    if candidates.dim() != 2 or candidates.dtype != torch.bool:
        raise RuntimeError(
            f"candidates must be (N, M) bool, not {tuple(candidates.shape)} {candidates.dtype}"
        )
    _check_like(num, "num", candidates, per_box=False)
    if num.dtype != torch.int64:
        raise RuntimeError(f"num must be int64, not {num.dtype}")
    return _floats(keys, "keys", candidates)


def _floats(t: Tensor, name: str, candidates: Tensor, *, per_box: bool = True) -> Tensor:
    _check_like(t, name, candidates, per_box=per_box)
    if not t.is_floating_point():
        raise RuntimeError(f"{name} must be floating, not {t.dtype}")
    t = t.detach() if t.requires_grad else t
    return t if t.dtype == torch.float32 else t.float()


def _check_like(t: Tensor, name: str, candidates: Tensor, *, per_box: bool = True) -> None:
    shape = candidates.shape if per_box else candidates.shape[:1]
    if t.shape != shape:
        raise RuntimeError(f"{name} must be {tuple(shape)} as candidates asks, not {tuple(t.shape)}")
    if t.device != candidates.device:
        raise RuntimeError(f"{name} is on {t.device} and candidates on {candidates.device}")
