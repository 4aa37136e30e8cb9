# SPDX-License-Identifier: Apache-2.0
"""Weights of other frameworks, told apart by the names of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from detectron_libra.errors import InputError
from detectron_libra.weights import detectron2, mmdet, torchvision
from detectron_libra.weights.contents import Weights
from detectron_libra.weights.translate import as_tensor

KNOWN = (
    "mmdetection 2 and 3 (RetinaNet, Faster and Fast R-CNN, with and without Libra), torchvision (ResNet, ResNeXt, "
    "fasterrcnn_resnet50_fpn, retinanet_resnet50_fpn), detectron2 (ImageNet, RetinaNet and Faster R-CNN with FPN)"
)
#: (names are of this framework, its importer); mmdetection's backbone has torchvision's names behind a prefix.
IMPORTERS: tuple[tuple[Callable, Callable], ...] = (
    (mmdet.recognise, mmdet.from_mmdet),
    (torchvision.recognise, torchvision.from_torchvision),
    (detectron2.recognise, detectron2.from_detectron2),
)
#: Where a checkpoint keeps its weights: mmdetection; detectron2 and torchvision's reference scripts.
PLACES = ("state_dict", "model")
LONGEST_NAME = 200
PARALLEL = "module."  # before every name in a file that a wrapped model was saved to


def from_state_dict(raw: Mapping, *, source: str) -> Weights:
    """Weights of another framework under our names.

    Args:
        raw: what the file holds: tensors or NumPy arrays by name, or a checkpoint with such a dict in it.
        source: the file's name, for messages.

    Raises:
        InputError: no weights, of no framework that is known, or of a network that is not built here.
    """
    tensors = find_tensors(raw)
    if not tensors:
        raise InputError(f"{source}: holds no tensors by name; known are files of {KNOWN}")
    strange = next((n for n in tensors if not n.isprintable() or len(n) > LONGEST_NAME), None)
    if strange is not None:
        raise InputError(f"{source}: {strange[:40]!r} is no name of a tensor; fetch the file anew")
    for recognise, importer in IMPORTERS:
        if recognise(tensors.keys()):
            return importer(tensors, source=source, metadata=raw)
    first = ", ".join(list(tensors)[:3])
    raise InputError(f"{source}: tensors of an unknown network ({first}, ...); known are files of {KNOWN}")


def find_tensors(raw: Mapping) -> dict[str, Tensor]:
    """Tensors by name, float32 where they are floating; everything else left out."""
    inner = next((raw[key] for key in PLACES if isinstance(raw.get(key), Mapping)), raw)
    tensors = {name: as_tensor(value) for name, value in inner.items() if isinstance(name, str)}
    found = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    if found and all(name.startswith(PARALLEL) for name in found):
        return {name[len(PARALLEL) :]: tensor for name, tensor in found.items()}
    return found
