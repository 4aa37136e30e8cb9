# SPDX-License-Identifier: Apache-2.0
"""The keys that Detectron has too, with the values it would have: for files that Detectron reads."""

from typing import Any

import numpy as np

from detectron_libra.config.fields import values_of
from detectron_libra.config.schema import Config

#: Sections, and beginnings of keys, that are ours alone.
OUR_SECTIONS = ("LIBRA.", "LOSS.", "ASSIGNER.", "DATA.", "DATASETS", "OPS.", "CPU.", "LOG.")
#: Further keys of ours, in sections of Detectron's.
OUR_KEYS = frozenset(
    {
        "MODEL.BOX_GEOMETRY",
        "RETINANET.HEAD_NORM",
        "RETINANET.HEAD_DIM",
        "FPN.EXTRA_RELU",
        "FPN.EXTRA_SOURCE",
        "FPN.NORM",
        "RESNETS.BLOCK",
        "RESNETS.STAGE_BLOCKS",
        "RESNETS.WIDTH",
        "RESNETS.NORM",
        "TRAIN.PRECISION",
        "TRAIN.NONFINITE_LIMIT",
        "TRAIN.ON_NONFINITE",
        "TRAIN.FLIP_VERTICAL",
        "TRAIN.KEEP_EMPTY",
        "TRAIN.EVAL_PERIOD",
        "TRAIN.CHECKPOINT_ACTIVATIONS",
        "TRAIN.EVAL_IN_BACKGROUND",
        "TRAIN.EVAL_RESULTS",
        "TRAIN.CHECKPOINTS_KEPT",
        "TRAIN.CLIP_GRAD_NORM",
        "SOLVER.OPTIMIZER",
        "SOLVER.BIAS_LR_FACTOR",
        "SOLVER.BIAS_DECAY",
        "SOLVER.REFERENCE_BATCH",
        "TEST.PRECISION",
        "TEST.IMS_PER_BATCH",
        "TEST.CONCEPT_THRESH",
        "TEST.BOX_IOU_THRESH",
        "TEST.PICTURES",
        "DEVICE",
        "DETERMINISTIC",
        "CHANNELS_LAST",
        "PIXEL_STDS",
        "PIXEL_ORDER",
    }
)
#: Our own keys that change what weights mean, by how they begin.
OF_WEIGHTS = ("MODEL.", "RETINANET.", "FPN.", "RESNETS.", "PIXEL_", "LIBRA.PYRAMID.")


def is_ours(key: str) -> bool:
    """Whether Detectron has no such key."""
    return key in OUR_KEYS or key.startswith(OUR_SECTIONS)


def detectron_values(cfg: Config) -> dict[str, Any]:
    """Detectron's keys as nested dictionaries, tuples as tuples; arrays as lists, as it reads them."""
    tree: dict[str, Any] = {}
    for name, value in values_of(cfg).items():
        if is_ours(name):
            continue
        *path, leaf = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    if cfg.SOLVER.LR_POLICY == "cosine":
        tree["SOLVER"]["LR_POLICY"] = "cosine_decay"
    return tree


def only_ours(cfg: Config) -> dict[str, Any]:
    """What weights depend on and Detectron's keys cannot say: key -> value, where it is no default."""
    plain = values_of(Config())
    return {
        name: value
        for name, value in values_of(cfg).items()
        if is_ours(name) and name.startswith(OF_WEIGHTS) and not np.array_equal(value, plain[name])
    }
