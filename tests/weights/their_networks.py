# SPDX-License-Identifier: Apache-2.0
"""Small detectors written as other frameworks define theirs: names of tensors, orders of outputs, anchors, boxes.

Plain formulas on a dict of tensors under the framework's own names, with nothing of the package but RoIAlign.
Source: mmdetection 3.3, torchvision 0.28 and detectron2: models, configurations and published state dicts.
"""

import math

import torch
from torch.nn import functional as F

from detectron_libra.ops.roi_align import roi_align
from tests.weights.frameworks import CLASSES, Framework

WIDTH, DIM, HIDDEN, DEPTH = 8, 16, 12, 2
STAGES = (2, 3, 4, 5)
RATIOS = (0.5, 1.0, 2.0)
STDS = torch.tensor([0.1, 0.1, 0.2, 0.2])


def layers(f: Framework, dense: bool):
    """(name, shape of the weight) of every convolution and fully connected layer, and the names of norms."""
    first = 3 if dense else 2
    convs, norms = [(f.stem, (WIDTH, 3, 7, 7))], [(f.stem_norm, WIDTH)]
    inputs = WIDTH
    for stage in STAGES:
        mid = WIDTH * 2 ** (stage - 2)
        where = {"layer": stage - 1, "stage": stage, "block": 0}
        shapes = [(mid, inputs, 1, 1), (mid, mid, 3, 3), (4 * mid, mid, 1, 1)]
        convs += [(f.block.format(i=i, **where), shape) for i, shape in enumerate(shapes, 1)]
        norms += [(f.norm.format(i=i, **where), shape[0]) for i, shape in enumerate(shapes, 1)]
        convs.append((f.shortcut.format(**where), (4 * mid, inputs, 1, 1)))
        norms.append((f.shortcut_norm.format(**where), 4 * mid))
        inputs = 4 * mid
        if stage >= first:
            where = {"n": stage - first, "level": stage}
            convs.append((f.lateral.format(**where), (DIM, inputs, 1, 1)))
            convs.append((f.output.format(**where), (DIM, DIM, 3, 3)))
    return convs + (dense_layers(f, inputs) if dense else region_layers(f)), norms


def dense_layers(f: Framework, c5: int):
    p6 = (DIM, DIM if f.extra_from_p5 else c5, 3, 3)
    found = [(f.extra.format(n=3, level=6), p6), (f.extra.format(n=4, level=7), (DIM, DIM, 3, 3))]
    for tower, output, values in zip(f.towers, f.dense, (f.dense_outputs, 4), strict=True):
        found += [(tower.format(n=n, twice=2 * n), (DIM, DIM, 3, 3)) for n in range(DEPTH)]
        found.append((output, (9 * values, DIM, 3, 3)))
    return found


def region_layers(f: Framework):
    conv, objectness, deltas = f.rpn
    found = [(conv, (DIM, DIM, 3, 3)), (objectness, (3, DIM, 1, 1)), (deltas, (12, DIM, 1, 1))]
    for n, inputs in enumerate((49 * DIM, HIDDEN)):
        found.append((f.fc.format(n=n, fc=6 + n, one=1 + n), (HIDDEN, inputs)))
    score, box = f.predictor
    return [*found, (score, (CLASSES + 1, HIDDEN)), (box, (4 * f.box_outputs, HIDDEN))]


def random_state(f: Framework, *, dense: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict of the small detector."""
    draw = torch.Generator().manual_seed(seed)
    convs, norms = layers(f, dense)
    normed = {f.stem, *(name for name, _ in convs if "layer" in name or ".res" in name)}
    empty = f.stride_in_1x1  # converted from Caffe2: no statistics, pixels of 0..255
    boxes, state = (f.dense[1], f.rpn[2], f.predictor[1]), {}
    for name, shape in convs:
        gain = (
            0.05 if name in boxes else 0.02 if name == f.stem and empty else 1.0
        )  # far from the bound of growth
        state[f"{name}.weight"] = gain * torch.randn(shape, generator=draw) / math.sqrt(math.prod(shape[1:]))
        if name not in normed or "_blocks" in name:
            state[f"{name}.bias"] = 0.3 * torch.randn(shape[0], generator=draw)
    for name, channels in norms:
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(channels, generator=draw)
        state[f"{name}.bias"] = 0.2 * torch.randn(channels, generator=draw)
        mean, var = torch.randn(channels, generator=draw), torch.rand(channels, generator=draw)
        state[f"{name}.running_mean"] = torch.zeros(channels) if empty else 0.2 * mean
        state[f"{name}.running_var"] = torch.ones(channels) - f.eps if empty else 0.1 + var
    return state


def _conv(s, name, x, **how):
    return F.conv2d(x, s[f"{name}.weight"], s.get(f"{name}.bias"), **how)


def _conv_norm(f, s, conv, norm, x, **how):
    weight, bias, mean, var = (
        s[f"{norm}.{k}"].view(1, -1, 1, 1) for k in ("weight", "bias", "running_mean", "running_var")
    )
    return (_conv(s, conv, x, **how) - mean) / (var + f.eps).sqrt() * weight + bias


def levels(f: Framework, s: dict, x: torch.Tensor, *, dense: bool) -> list[torch.Tensor]:
    """Levels of the pyramid of a normalised image."""
    x = _conv_norm(f, s, f.stem, f.stem_norm, x, stride=2, padding=3).relu()
    x, features = F.max_pool2d(x, 3, 2, 1), {}
    for stage in STAGES:
        where = {"layer": stage - 1, "stage": stage, "block": 0}
        stride = 1 if stage == 2 else 2
        strides = (stride, 1, 1) if f.stride_in_1x1 else (1, stride, 1)
        branch = x
        for i in (1, 2, 3):
            names = f.block.format(i=i, **where), f.norm.format(i=i, **where)
            branch = _conv_norm(f, s, *names, branch, stride=strides[i - 1], padding=int(i == 2))
            branch = branch if i == 3 else branch.relu()
        names = f.shortcut.format(**where), f.shortcut_norm.format(**where)
        x = features[stage] = (_conv_norm(f, s, *names, x, stride=stride) + branch).relu()
    return _pyramid(f, s, features, dense)


def _pyramid(f, s, features, dense):
    first, merged, found = (3 if dense else 2), None, []
    for level in range(5, first - 1, -1):
        where = {"n": level - first, "level": level}
        lateral = _conv(s, f.lateral.format(**where), features[level])
        merged = lateral if merged is None else lateral + F.interpolate(merged, size=lateral.shape[-2:])
        found.insert(0, _conv(s, f.output.format(**where), merged, padding=1))
    if not dense:
        return [*found, F.max_pool2d(found[-1], 1, 2)]
    p6 = _conv(
        s, f.extra.format(n=3, level=6), found[-1] if f.extra_from_p5 else features[5], stride=2, padding=1
    )
    p7 = _conv(s, f.extra.format(n=4, level=7), p6.relu() if f.relu_before_p7 else p6, stride=2, padding=1)
    return [*found, p6, p7]


def anchors(f: Framework, maps, image, *, dense: bool) -> list[torch.Tensor]:
    """Per level (H, W, A, 4), in the framework's own order of A."""
    found = []
    for i, (height, width) in enumerate(maps):
        side = 32 * 2**i
        sizes = [side * 2 ** (k / 3) for k in range(3)] if dense else [side]
        sizes = [int(size) for size in sizes] if f.whole else sizes
        pairs = (
            [(r, z) for z in sizes for r in RATIOS]
            if f.sizes_outside
            else [(r, z) for r in RATIOS for z in sizes]
        )
        half = torch.tensor([[z / math.sqrt(r), z * math.sqrt(r)] for r, z in pairs], dtype=torch.float64) / 2
        half = half.round() if f.whole else half
        stride = 2 ** (i + (3 if dense else 2))
        down, right = (image[0] // height, image[1] // width) if f.whole else (stride, stride)
        y, x = torch.meshgrid(torch.arange(height) * down, torch.arange(width) * right, indexing="ij")
        centre = torch.stack([x, y], -1)[:, :, None]
        found.append(torch.cat([centre - half, centre + half], -1).float())
    return found


def decode(deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Boxes from deltas (..., 4), width x2 - x1."""
    size, centre = boxes[..., 2:] - boxes[..., :2], (boxes[..., 2:] + boxes[..., :2]) / 2
    centre, size = centre + deltas[..., :2] * size, size * deltas[..., 2:].exp()
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def dense_rows(f: Framework, s: dict, found: list[torch.Tensor], image) -> torch.Tensor:
    """(anchors, 4 + classes): decoded boxes and probabilities of a RetinaNet."""
    rows = []
    for level, boxes in zip(found, anchors(f, [x.shape[-2:] for x in found], image, dense=True), strict=True):
        outputs = []
        for tower, output in zip(f.towers, f.dense, strict=True):
            x = level
            for n in range(DEPTH):
                x = _conv(s, tower.format(n=n, twice=2 * n), x, padding=1).relu()
            outputs.append(_conv(s, output, x, padding=1)[0])
        score, deltas = (o.view(9, -1, *o.shape[1:]).permute(2, 3, 0, 1) for o in outputs)
        rows.append(torch.cat([decode(deltas, boxes), score[..., f.dense_outputs - CLASSES :].sigmoid()], -1))
    return torch.cat([r.flatten(0, 2) for r in rows])


def proposal_rows(f: Framework, s: dict, found: list[torch.Tensor], image) -> torch.Tensor:
    """(anchors, 5): decoded boxes and objectness of an RPN."""
    rows = []
    for level, boxes in zip(
        found, anchors(f, [x.shape[-2:] for x in found], image, dense=False), strict=True
    ):
        hidden = _conv(s, f.rpn[0], level, padding=1).relu()
        score, deltas = (_conv(s, name, hidden)[0] for name in f.rpn[1:])
        score, deltas = (o.view(3, -1, *o.shape[1:]).permute(2, 3, 0, 1) for o in (score, deltas))
        rows.append(torch.cat([decode(deltas, boxes), score.sigmoid()], -1).flatten(0, 2))
    return torch.cat(rows)


def region_outputs(f: Framework, s: dict, found: list[torch.Tensor], boxes: torch.Tensor):
    """Probabilities (R, classes) and boxes (R, classes, 4) of regions, without the background."""
    x = roi_align(
        found[:4],
        boxes,
        torch.zeros(len(boxes), dtype=torch.int64),
        strides=[4, 8, 16, 32],
        output_size=7,
        sampling_ratio=f.sampling_ratio,
        aligned=f.aligned,
        min_level=2,
        extent=0.0,
    ).flatten(1)
    for n in range(2):
        name = f.fc.format(n=n, fc=6 + n, one=1 + n)
        x = F.linear(x, s[f"{name}.weight"], s[f"{name}.bias"]).relu()
    score, deltas = (F.linear(x, s[f"{name}.weight"], s[f"{name}.bias"]) for name in f.predictor)
    classes = [c for c in range(CLASSES + 1) if c != f.background]
    deltas = deltas.view(len(boxes), -1, 4)[:, f.box_outputs - CLASSES :] * STDS
    return score.softmax(-1)[:, classes], decode(deltas, boxes[:, None])
