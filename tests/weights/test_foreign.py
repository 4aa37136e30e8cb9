# SPDX-License-Identifier: Apache-2.0
"""Which framework a file is of, and files that are of none."""

import numpy as np
import pytest
import torch

from detectron_libra.errors import InputError
from detectron_libra.weights.foreign import find_tensors, from_state_dict
from tests.weights.frameworks import FRAMEWORKS
from tests.weights.their_networks import random_state


@pytest.mark.parametrize("dense", [True, False], ids=["retinanet", "faster_rcnn"])
@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 1}]
)
def test_frameworks_are_told_apart_by_names_alone(name, dense, wrap):
    raw = random_state(FRAMEWORKS[name], dense=dense)
    weights = from_state_dict(wrap(raw), source="a.pth")
    assert weights.kind == name and weights.source == "a.pth"
    assert weights.settings["RETINANET.RETINANET_ON" if dense else "MODEL.FASTER_RCNN"] is True


def test_a_prefix_of_parallel_training_is_taken_off():
    raw = {f"module.{n}": t for n, t in random_state(FRAMEWORKS["mmdetection"], dense=True).items()}
    assert from_state_dict({"state_dict": raw}, source="a.pth").kind == "mmdetection"


def test_numbers_become_float32_and_everything_else_is_left_out():
    raw = {"a": np.ones(2), "b": torch.ones(1).half(), "c": "text", 4: torch.ones(1), "d": np.array(["text"])}
    found = find_tensors(raw)
    assert {n: t.dtype for n, t in found.items()} == {"a": torch.float32, "b": torch.float32}


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ({}, "no tensors"),
        ({"a": 1}, "no tensors"),
        ({"a\nb.weight": torch.ones(2)}, "no name of a tensor"),
        ({"a" * 1000: torch.ones(2)}, "no name of a tensor"),
        ({"features.0.weight": torch.ones(2)}, "unknown network"),
        ({"conv1.weight": torch.ones(()), "layer1.0.conv1.weight": torch.ones(3)}, "dimensions"),
    ],
)
def test_what_is_no_known_network_is_one_line_that_says_what_is_known(raw, word):
    with pytest.raises(InputError, match=word) as caught:
        from_state_dict(raw, source="a.pth")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("a.pth: ")


@pytest.mark.parametrize("dense", [True, False], ids=["retinanet", "faster_rcnn"])
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_tensor_that_is_missing_or_has_another_shape_is_never_a_traceback(name, dense):
    """What the importer does not notice, the model does."""
    complete = random_state(FRAMEWORKS[name], dense=dense)
    for lacking in complete:
        for other in (None, torch.tensor(1.0), torch.ones(2, 0), torch.ones(5)):
            raw = {n: t for n, t in complete.items() if n != lacking}
            raw |= {} if other is None else {lacking: other}
            try:
                from_state_dict(raw, source="a.pth")
            except InputError as e:
                assert "\n" not in str(e)
