# SPDX-License-Identifier: Apache-2.0
"""Weights from a file into a model: at test everything must fit; a training may begin with a part of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from detectron_libra.errors import InputError
from detectron_libra.weights.contents import OURS, Weights

log = logging.getLogger(__name__)

#: Layers that begin afresh where the number of classes is another one: the scores, and the boxes where every class
#: has its own.
SCORES = ("head.cls_pred.", "predictor.cls_score.")
BOXES = ("predictor.bbox_pred.", "head.box_pred.")
#: Parts that another kind of detector on the same backbone has: an RPN, or a second stage. They may stay unused.
OTHER_KINDS = ("rpn.", "regions.")
#: A stage that is the end of the backbone in a model with a pyramid, and the head of one without.
RES5 = ("backbone.res5.", "regions.head.res5.")
#: Of batch normalisation; where a file has none, fresh ones leave the affine layer that it does have.
STATISTICS = ("running_mean", "running_var")
#: A counter of batch normalisation that nothing reads.
COUNTER = "num_batches_tracked"
#: What a loss remembers of its data: of use to a run that goes on, which reads its checkpoint as a whole.
LOSSES = ("class_loss.", "box_loss.", "regions.class_loss.", "regions.box_loss.")
NAMED = 5  # names that a message lists


def apply_weights(
    model: nn.Module, weights: Weights, *, training: bool = False, class_layers: Sequence[str] = SCORES
) -> list[str]:
    """Copies weights into a model, by name.

    At test, and for files of our own, every layer of the model must be in the file and every layer of the file in the
    model. A training from another program's file takes what fits: layers that the file lacks keep their fresh values,
    but for those of the backbone, and what the model has no place for stays unused. What a loss remembers is never
    taken.

    Args:
        model: where to.
        weights: what a file holds.
        training: the model is going to be trained; layers that depend on the classes may be of another number of them
            and keep their fresh values.
        class_layers: parts of the names of these layers.

    Returns:
        Names that kept their fresh values.

    Raises:
        InputError: layers are missing or unknown, or a shape differs.
    """
    own = _without_losses(model.state_dict())
    state = _with_res5_of(own, _without_losses(weights.state))
    missing = [name for name in own if name not in state and not name.endswith(COUNTER)]
    unknown = [name for name in state if name not in own]
    if training and weights.kind != OURS:
        _report_partial(weights, missing, nothing_fits=len(unknown) == len(state))
    else:
        _require_all(weights, missing, [n for n in unknown if not n.startswith(OTHER_KINDS)])
    if unknown:
        log.info("%s: not used by this model: %s", weights.source, _list(unknown))
    fresh = _differing(own, state, weights.source, class_layers, training=training)
    if fresh:
        log.warning(
            "%s: another number of classes; these layers start afresh: %s", weights.source, ", ".join(fresh)
        )
    taken = {name: tensor for name, tensor in state.items() if name in own and name not in fresh}
    model.load_state_dict(taken, strict=False)
    return missing + fresh


def _without_losses(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(LOSSES)}


def _with_res5_of(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """``state`` with the last stage where this model has it."""
    there = next((place for place in RES5 if any(name.startswith(place) for name in own)), RES5[0])
    other = RES5[1 - RES5.index(there)]
    return {
        there + name.removeprefix(other) if name.startswith(other) else name: tensor
        for name, tensor in state.items()
    }


def _require_all(weights: Weights, missing: list[str], unknown: list[str]) -> None:
    if weights.backbone_only:
        raise InputError(
            f"{weights.source}: weights of a backbone, to begin a training with (TRAIN.WEIGHTS), no detector"
        )
    lacks = [f"lacks {_list(missing)}"] * bool(missing)
    has = [f"has unknown {_list(unknown)}"] * bool(unknown)
    if lacks or has:
        raise InputError(
            f"{weights.source}: not weights of this model: {'; '.join(lacks + has)}; "
            "use the configuration they were trained with"
        )


def _report_partial(weights: Weights, missing: list[str], *, nothing_fits: bool) -> None:
    """Says what a training does without; InputError where that is too much."""
    source = weights.source
    trunk = [n for n in missing if n.startswith("backbone.") and not n.endswith(STATISTICS)]
    if trunk or nothing_fits:
        raise InputError(
            f"{source}: not weights of this backbone: lacks {_list(trunk or missing)}; "
            "set MODEL.CONV_BODY and RESNETS to what they were trained with"
        )
    if missing and weights.backbone_only:
        log.info(
            "%s: weights of a backbone; %d tensors of the other layers start afresh", source, len(missing)
        )
    elif missing:
        log.warning("%s: not in it, so these start afresh: %s", source, ", ".join(missing))


def _differing(
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    source: str,
    class_layers: Sequence[str],
    *,
    training: bool,
) -> list[str]:
    """Names of another shape; InputError but for layers of another number of classes in a training."""
    differing = [name for name in own if name in state and own[name].shape != state[name].shape]
    other_classes = any(part in name for name in differing for part in SCORES)
    by_classes = [n for n in differing if other_classes and any(part in n for part in class_layers)]
    wrong = [n for n in differing if not training or n not in by_classes]
    if not wrong:
        return by_classes
    name = wrong[0]
    others = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
    remedy = "MODEL.NUM_CLASSES" if wrong == by_classes else "the configuration"
    raise InputError(
        f"{source}: {name} is {_shape(state[name])}, the model's is {_shape(own[name])}{others}; "
        f"set {remedy} to that of the training"
    )


def _list(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
