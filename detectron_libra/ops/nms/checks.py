# SPDX-License-Identifier: Apache-2.0
"""What nms, soft-NMS and box voting ask of their arguments, and how they line boxes up by group."""

import torch
from torch import Tensor


def check_boxes(boxes: Tensor, name: str, **rows: Tensor) -> None:
    """Refuses boxes that are not (K, 4) floating and rows that are not (K,) beside them; groups are int64.

    Raises: RuntimeError that names the argument and what it is.
    """
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise RuntimeError(f"{name} must be (K, 4), not {tuple(boxes.shape)}")
    if not boxes.is_floating_point():
        raise RuntimeError(f"{name} must be floating, not {boxes.dtype}")
    for row_name, row in rows.items():
        if row.shape != boxes.shape[:1]:
            raise RuntimeError(
                f"{row_name} must be ({boxes.shape[0]},) as {name} has, not {tuple(row.shape)}"
            )
        if row.device != boxes.device:
            raise RuntimeError(f"{row_name} is on {row.device} and {name} on {boxes.device}")
        if row_name.endswith("groups"):
            if row.dtype != torch.int64:
                raise RuntimeError(f"{row_name} must be int64, not {row.dtype}")
        elif not row.is_floating_point():
            raise RuntimeError(f"{row_name} must be floating, not {row.dtype}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> int:
    """The number of `value` among `choices`.

    Raises: ValueError that names the argument and the choices.
    """
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(choices)}")
    return choices.index(value)


def check_positive(name: str, value: float) -> None:
    """Raises: ValueError where `value` is not above 0."""
    if not value > 0:
        raise ValueError(f"{name}={value} must be above 0")


def in_working_dtype(*tensors: Tensor) -> list[Tensor]:
    """The tensors without gradients, in float64 where one of them is, otherwise in float32."""
    wide = any(t.dtype == torch.float64 for t in tensors)
    return [t.detach().to(torch.float64 if wide else torch.float32) for t in tensors]


def by_group(groups: Tensor) -> Tensor:
    """(K,) int64: indices that put groups (K,) one after the other, their order within a group unchanged."""
    return groups.argsort(stable=True)
