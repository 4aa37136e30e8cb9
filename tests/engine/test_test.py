# SPDX-License-Identifier: Apache-2.0
"""Detection over a loader: every image once, by id, without touching the model's mode or gradients."""

import signal

import pytest

from detectron_libra.engine.signals import StopFlag
from detectron_libra.engine.test import detect
from tests.engine.toy import Data, Toy


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_image_has_its_detections(precision):
    model = Toy().train()
    found, images_per_s = detect(model, Data(0, 3), precision=precision)
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
    assert all(len(d) == 1 and not d.scores.requires_grad for d in found.values())
    assert images_per_s > 0
    assert model.training


def test_results_do_not_depend_on_dropout():
    model = Toy()
    first, second = (detect(model, Data(0, 3)).detections for _ in range(2))
    assert all(first[k].scores.equal(second[k].scores) for k in first)


def test_a_stop_is_heeded_between_batches():
    stop = StopFlag()
    stop.signal = signal.SIGTERM
    with pytest.raises(SystemExit) as error:
        detect(Toy(), Data(0, 3), stop=stop)
    assert error.value.code == 143
