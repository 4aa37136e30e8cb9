# SPDX-License-Identifier: Apache-2.0
"""Weights from a file into a model: everything must fit, but for the class-dependent layers of another class count."""

import logging
from collections.abc import Mapping

from torch import Tensor, nn

from detectron_libra.errors import InputError

log = logging.getLogger(__name__)

#: Layers whose shape follows from the number of classes; the only ones that may start afresh in fine-tuning.
CLASS_DEPENDENT = ("head.cls_pred.", "predictor.cls_score.", "predictor.bbox_pred.")
NAMED = 5  # names that a message lists


def _list(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def apply_weights(
    model: nn.Module, state: Mapping[str, Tensor], source: str, *, other_classes: bool = False
) -> list[str]:
    """Copy weights into a model, by name.

    Args:
        model: where to.
        state: name -> tensor.
        source: the file's name, for messages.
        other_classes: class-dependent layers of another shape keep their fresh values (fine-tuning).

    Returns:
        Names that kept their fresh values.

    Raises:
        InputError: names are missing or unknown, or a shape differs.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    if missing or unknown:
        parts = [f"lacks {_list(missing)}"] * bool(missing) + [f"has unknown {_list(unknown)}"] * bool(
            unknown
        )
        raise InputError(
            f"{source}: not weights of this model: {'; '.join(parts)}; use the configuration they were trained with"
        )
    differing = [name for name in own if own[name].shape != state[name].shape]
    fresh = [n for n in differing if other_classes and any(part in n for part in CLASS_DEPENDENT)]
    wrong = [n for n in differing if n not in fresh]
    if wrong:
        name = wrong[0]
        hint = "; another number of classes?" if any(part in name for part in CLASS_DEPENDENT) else ""
        raise InputError(
            f"{source}: {name} is {_shape(state[name])}, the model's is {_shape(own[name])}"
            f"{f', and {len(wrong) - 1} more differ' if len(wrong) > 1 else ''}{hint}"
        )
    if fresh:
        log.warning("%s: another number of classes; these layers start afresh: %s", source, ", ".join(fresh))
    model.load_state_dict({n: t for n, t in state.items() if n not in fresh}, strict=False)
    return fresh
