# SPDX-License-Identifier: Apache-2.0
"""Names of another framework's tensors to ours by rules, frozen normalisations folded: what all importers share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from detectron_libra.errors import InputError

#: (pattern of a layer's name, our name of it or a function of the match); the whole name has to match.
Rule = tuple[str, str | Callable[[re.Match[str]], str]]

STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"
LAYERS = ("cls_score", "bbox_pred")


def resnet_rules(prefix: str) -> list[Rule]:
    """torchvision's names of a ResNet's layers, which mmdetection has too, behind ``prefix``."""
    block = rf"{re.escape(prefix)}layer([1-4])\.(\d{{1,3}})\."

    def ours(name: str) -> Callable[[re.Match[str]], str]:
        return lambda m: f"backbone.res{int(m[1]) + 1}.{m[2]}.{m.expand(name)}"

    return [
        (rf"{re.escape(prefix)}conv1", "backbone.stem.conv"),
        (rf"{re.escape(prefix)}bn1", "backbone.stem.norm"),
        (rf"{block}conv([123])", ours(r"conv\3")),
        (rf"{block}bn([123])", ours(r"norm\3")),
        (rf"{block}downsample\.0", ours("shortcut")),
        (rf"{block}downsample\.1", ours("shortcut_norm")),
    ]


def as_tensor(value: object) -> Tensor | None:
    """A tensor or an array of numbers as float32 on the CPU (other kinds as they are); None for anything else."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor):
        return None
    value = value.detach().cpu()
    return value.float() if value.is_floating_point() else value


def as_array(tensor: Tensor) -> np.ndarray:
    """The same numbers for NumPy."""
    return tensor.contiguous().numpy()


def translate(
    tensors: Mapping[str, Tensor], rules: Sequence[Rule], *, parts: str, eps: float, source: str
) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    """Tensors under our names, and those that no rule knows.

    Args:
        tensors: name of the framework -> float32 tensor.
        rules: how layers are called.
        parts: pattern of the beginnings of names that the rules claim to know completely: another tensor there
            belongs to a network that ours is not.
        eps: added to the variances of the backbone's frozen normalisations, which become a scale and a shift.
        source: the file's name, for messages.

    Returns:
        name of ours -> tensor; name of the framework -> array.

    Raises:
        InputError: a tensor inside ``parts`` that no rule knows, or two of the same name of ours.
    """
    state: dict[str, Tensor] = {}
    preserved: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        if kind == COUNTER:
            continue
        ours = our_name(layer, rules)
        if ours is None or not (kind in ("weight", "bias") or kind in STATISTICS and "backbone." in ours):
            if re.match(parts, name):
                raise InputError(
                    f"{source}: {name} is of a network that is not built here (ResNet, FPN, RetinaNet, Faster R-CNN "
                    "with two fully connected layers)"
                )
            preserved[name] = as_array(tensor)
            continue
        if f"{ours}.{kind}" in state:
            raise InputError(
                f"{source}: {name} and another tensor are both {ours}.{kind}; remove one of them"
            )
        state[f"{ours}.{kind}"] = tensor
    return fold_norms(state, eps=eps, source=source), preserved


def our_name(layer: str, rules: Sequence[Rule]) -> str | None:
    """What the first rule that knows a layer calls it; None where none does."""
    for pattern, new in rules:
        if match := re.fullmatch(pattern, layer):
            return new(match) if callable(new) else match.expand(new)
    return None


def fold_norms(state: Mapping[str, Tensor], *, eps: float, source: str) -> dict[str, Tensor]:
    """Normalisations with frozen statistics as scale and shift: weight / sqrt(var + eps), bias - mean * scale.

    Raises:
        InputError: a part of one is missing or has another size, or a variance is not positive.
    """
    folded = {name: t for name, t in state.items() if not name.endswith(STATISTICS)}
    for layer in (name.rpartition(".")[0] for name in state if name.endswith("running_mean")):
        parts = [state.get(f"{layer}.{kind}") for kind in ("weight", "bias", *STATISTICS)]
        if any(p is None or p.shape != parts[0].shape for p in parts):  # type: ignore[union-attr]
            raise InputError(f"{source}: the normalisation {layer} is not complete; fetch the file anew")
        weight, bias, mean, var = (p.double() for p in parts)  # type: ignore[union-attr]
        if not bool((var + eps > 0).all()):
            raise InputError(f"{source}: a variance of {layer} is not positive; fetch the file anew")
        scale = weight / (var + eps).sqrt()
        folded[f"{layer}.weight"], folded[f"{layer}.bias"] = scale.float(), (bias - mean * scale).float()
    return folded


def put_background_first(state: dict[str, Tensor]) -> None:
    """The predictor of a two-stage detector that has the background last and no boxes for it, in our order, in place.

    Classes: the background, then the others. Boxes, four numbers per class or four in all: four unused ones first.
    """
    for name in (f"regions.predictor.{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")):
        rows = state.get(name)
        if rows is not None and rows.dim():
            boxes = ".bbox_pred." in name
            state[name] = torch.cat((torch.zeros_like(rows[:4]), rows) if boxes else (rows[-1:], rows[:-1]))


def octaves_first(rows: Tensor, ratios: int, octaves: int) -> Tensor:
    """Channels of anchors that run through the sizes within each ratio, in our order: ratios within each size."""
    by_anchor = rows.view(ratios, octaves, -1, *rows.shape[1:])
    return by_anchor.transpose(0, 1).reshape(rows.shape)
