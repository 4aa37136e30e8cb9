# SPDX-License-Identifier: Apache-2.0
"""Names of our parameters and of Detectron's blobs: one set of rules, read in both directions.

A blob is named after the operator that reads it, with ``_w`` and ``_b`` for convolutions and fully connected layers,
``_bn_s`` and ``_bn_b`` for a fixed affine, ``_gn_s`` and ``_gn_b`` for GroupNorm. Which layers there are is found from
the names themselves, ours or Detectron's; :func:`parameter_pairs` then says which belongs to which.

Source: Detectron's modeling/ResNet.py, FPN.py, rpn_heads.py, retinanet_heads.py and fast_rcnn_heads.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

#: Before our own name where Detectron has no blob for a parameter (the balanced pyramid, batch statistics). Without a
#: slash: Detectron takes what stands before one for a device and drops it.
OURS = "libra."
MOMENTUM = "_momentum"
BRANCHES = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
NORMS = {"conv1": "norm1", "conv2": "norm2", "conv3": "norm3", "shortcut": "shortcut_norm"}
C5 = 5  # the stage that is the box head of a model without a pyramid

# Numbers have few digits, so that a name cannot ask for millions of layers.
_OUR_BLOCK = re.compile(r"(?P<place>backbone|regions\.head)\.res(?P<stage>[2-5])\.(?P<block>\d{1,3})\.")
_BLOCK = re.compile(r"res(?P<stage>[2-5])_(?P<block>\d{1,3})_branch")
_LEVEL_BLOB = re.compile(r"fpn_res(\d)_\d+_sum_w")
_EXTRA_BLOB = re.compile(r"fpn_(\d)_w")
_SHARED_BLOBS = tuple(re.compile(rf"{layer}(_fpn\d+)_w") for layer in ("retnet_cls_pred", "conv_rpn"))
_TOWER_BLOB = re.compile(r"retnet_(?:cls|bbox)_conv_n(\d{1,2})_fpn\d+_w")
_HEAD_CONV_BLOB = re.compile(r"head_conv(\d{1,2})_w")


@dataclass(frozen=True)
class Layers:
    """Which layers a model or a file has.

    Attributes:
        blocks: number of residual blocks by stage (2..5).
        c5_place: where stage 5 is: ``backbone``, or ``regions.head`` in a model without a pyramid; "" where it
            is not used.
        norm: ``bn`` (fixed affine) or ``gn``, in the backbone.
        levels: levels of the pyramid that come from the backbone, fine to coarse; empty without a pyramid.
        extra: levels above, of convolutions of their own.
        shared: ``_fpn<l>`` behind the names of layers that all levels share, l being the finest; "" on one level.
        tower: convolutions of a RetinaNet tower.
        head_convs: convolutions of the box head.
        statistics: layers with batch statistics, for which Detectron has no blobs.
    """

    blocks: Mapping[int, int]
    c5_place: str = "backbone"
    norm: str = "bn"
    levels: tuple[int, ...] = ()
    extra: tuple[int, ...] = ()
    shared: str = ""
    tower: int = 0
    head_convs: int = 0
    statistics: frozenset[str] = field(default_factory=frozenset)


def layers_of_model(names: Iterable[str], *, norm: str = "bn") -> Layers:
    """The layers behind the names of a model's state.

    Args:
        names: of parameters and buffers.
        norm: ``bn`` or ``gn``, which names do not tell.
    """
    names = list(names)
    matches = [m for m in map(_OUR_BLOCK.match, names) if m]
    levels = _numbers(r"neck\.output\.(\d+)\.weight", names)
    rpn_or_head = any(n.startswith(("rpn.", "head.")) for n in names)
    return Layers(
        blocks=_counts((int(m["stage"]), int(m["block"])) for m in matches),
        c5_place=next((m["place"] for m in matches if int(m["stage"]) == C5), ""),
        norm=norm,
        levels=levels,
        extra=_numbers(r"neck\.extra\.(\d+)\.weight", names),
        shared=f"_fpn{levels[0]}" if levels and rpn_or_head else "",
        tower=_plain_tower(names),
        head_convs=len(_numbers(r"regions\.head\.convs\.(\d+)\.weight", names, every=3)),
        statistics=frozenset(n.removesuffix(".running_mean") for n in names if n.endswith(".running_mean")),
    )


def layers_of_file(shapes: Mapping[str, Sequence[int]]) -> Layers:
    """The layers behind a file's blobs, name -> shape."""
    names = list(shapes)
    levels = _numbers(_LEVEL_BLOB.pattern, names)
    shared = [m[1] for blob in _SHARED_BLOBS for m in map(blob.fullmatch, names) if m]
    towers = _numbers(_TOWER_BLOB.pattern, names)
    convs = _numbers(_HEAD_CONV_BLOB.pattern, names)
    return Layers(
        blocks=_counts((int(m["stage"]), int(m["block"])) for m in map(_BLOCK.match, names) if m),
        c5_place="backbone" if levels else _c5_place(shapes),
        norm="gn" if "conv1_gn_s" in names or "res2_0_branch2a_gn_s" in names else "bn",
        levels=levels,
        extra=_numbers(_EXTRA_BLOB.pattern, names),
        shared=shared[0] if shared else "",
        tower=max(towers, default=-1) + 1,
        head_convs=max(convs, default=0),
    )


def blob_names(names: Iterable[str], *, norm: str = "bn") -> dict[str, str]:
    """Our names -> blobs, for every parameter and buffer of a model.

    Args:
        names: of the model's state.
        norm: ``bn`` or ``gn``, in the backbone.

    Returns:
        In the order of ``names``; where Detectron has no blob, our own name behind ``libra.``.
    """
    names = list(names)
    known = dict(parameter_pairs(layers_of_model(names, norm=norm)))
    return {name: known.get(name, f"{OURS}{name}") for name in names}


def our_names(shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Blobs -> our names, for every blob of a file that a model of ours can use; momentum is no blob here.

    Args:
        shapes: name -> shape, of all that the file holds.
    """
    blobs = {name: shape for name, shape in shapes.items() if not name.endswith(MOMENTUM)}
    known = {blob: ours for ours, blob in parameter_pairs(layers_of_file(blobs))}
    found = {blob: known[blob] for blob in blobs if blob in known}
    return found | {blob: blob.removeprefix(OURS) for blob in blobs if blob.startswith(OURS)}


def parameter_pairs(layers: Layers) -> Iterator[tuple[str, str]]:
    """(our parameter, Detectron's blob) for everything that these layers can have; not all of it need be there."""
    for ours, blob, kind in _layer_pairs(layers):
        if ours in layers.statistics:
            continue
        weight, bias = ("_w", "_b") if kind == "layer" else (f"_{kind}_s", f"_{kind}_b")
        yield f"{ours}.weight", f"{blob}{weight}"
        # Convolutions before a norm have no bias here; the files of ImageNet hold one that is zero.
        if kind != "layer" or not _in_body(ours):
            yield f"{ours}.bias", f"{blob}{bias}"


def _layer_pairs(layers: Layers) -> Iterator[tuple[str, str, str]]:
    yield from _body(layers)
    yield from _pyramid(layers)
    yield from _rpn(layers)
    yield from _retinanet(layers)
    yield from _box_head(layers)


def _body(layers: Layers) -> Iterator[tuple[str, str, str]]:
    yield "backbone.stem.conv", "conv1", "layer"
    yield "backbone.stem.norm", "conv1" if layers.norm == "gn" else "res_conv1", layers.norm
    for stage, count in layers.blocks.items():
        place = layers.c5_place if stage == C5 else "backbone"
        for block in range(count if place else 0):
            for conv, branch in BRANCHES.items():
                ours, blob = f"{place}.res{stage}.{block}", f"res{stage}_{block}_{branch}"
                yield f"{ours}.{conv}", blob, "layer"
                yield f"{ours}.{NORMS[conv]}", blob, layers.norm


def _pyramid(layers: Layers) -> Iterator[tuple[str, str, str]]:
    for level in layers.levels:
        stage = f"res{level}_{layers.blocks.get(level, 0) - 1}_sum"  # the sum that ends the stage
        inner = f"fpn_inner_{stage}" + ("" if level == layers.levels[-1] else "_lateral")
        for ours, blob in (("lateral", inner), ("output", f"fpn_{stage}")):
            yield f"neck.{ours}.{level}", blob, "layer"
            yield f"neck.{ours}_norm.{level}", blob, "gn"
    for level in layers.extra:
        yield f"neck.extra.{level}", f"fpn_{level}", "layer"


def _rpn(layers: Layers) -> Iterator[tuple[str, str, str]]:
    for ours, blob in (("conv", "conv_rpn"), ("objectness", "rpn_cls_logits"), ("deltas", "rpn_bbox_pred")):
        yield f"rpn.{ours}", f"{blob}{layers.shared}", "layer"


def _retinanet(layers: Layers) -> Iterator[tuple[str, str, str]]:
    for ours, blob in (("cls", "cls"), ("box", "bbox")):
        for i in range(layers.tower):  # with a ReLU behind each
            yield f"head.{ours}_tower.{2 * i}", f"retnet_{blob}_conv_n{i}{layers.shared}", "layer"
        yield f"head.{ours}_pred", f"retnet_{blob}_pred{layers.shared}", "layer"


def _box_head(layers: Layers) -> Iterator[tuple[str, str, str]]:
    for i in range(layers.head_convs):  # with a norm, or its empty place, and a ReLU behind each
        yield f"regions.head.convs.{3 * i}", f"head_conv{i + 1}", "layer"
        yield f"regions.head.convs.{3 * i + 1}", f"head_conv{i + 1}", "gn"
    for name in ("fc6", "fc7"):
        yield f"regions.head.{name}", name, "layer"
    for name in ("cls_score", "bbox_pred"):
        yield f"regions.predictor.{name}", name, "layer"


def _in_body(layer: str) -> bool:
    return layer.startswith(("backbone.", "regions.head.res"))


def _plain_tower(names: list[str]) -> int:
    # Towers with norms do not exist in Detectron: theirs stay under our names.
    found = _numbers(r"head\.(?:cls|box)_tower\.(\d+)\.weight", names)
    return len(found) if all(index == 2 * i for i, index in enumerate(found)) else 0


def _c5_place(shapes: Mapping[str, Sequence[int]]) -> str:
    """Where stage 5 belongs without a pyramid; a proposal network on stage 4 only carries it along."""
    if "fc6_w" in shapes or not any(n.startswith(("conv_rpn", "cls_score")) for n in shapes):
        return "backbone"
    if "cls_score_w" in shapes:
        return "regions.head"
    read, made = shapes.get("conv_rpn_w", ()), shapes.get("res5_0_branch2c_w", ())
    return "backbone" if read[1:2] == made[:1] else ""


def _counts(blocks: Iterable[tuple[int, int]]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for stage, block in blocks:
        counts[stage] = max(counts.get(stage, 0), block + 1)
    return dict(sorted(counts.items()))


def _numbers(pattern: str, names: Iterable[str], *, every: int = 1) -> tuple[int, ...]:
    found = {int(m[1]) for m in map(re.compile(pattern).fullmatch, names) if m}
    return tuple(sorted(n for n in found if n % every == 0))
