# SPDX-License-Identifier: Apache-2.0
"""Detection over a loader: every image once, by id, without touching the model's mode or gradients."""

import signal

import pytest
import torch
from torch import nn

from detectron_libra.engine.signals import StopFlag
from detectron_libra.engine.test import detect
from detectron_libra.geometry import CONTINUOUS
from detectron_libra.modeling.merging import Merging
from detectron_libra.modeling.suppression import Candidates, DetectionRule
from tests.engine.toy import Data, Toy


class Viewer(nn.Module):
    """Remembers what it was shown; the n-th batch finds the same box everywhere, with the score n / 10."""

    detection = DetectionRule(0.25, 0.5, 100, CONTINUOUS, 4.0)

    def __init__(self):
        super().__init__()
        self.seen, self.asked = [], []

    def candidates(self, batch, **options):
        self.seen.append([meta.image_id for meta in batch.metas])
        self.asked.append(options)
        one = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([len(self.seen) / 10]), torch.tensor([1])
        return [Candidates(*one) for _ in batch.metas]


def views_of(count, images):
    """Batches of Data, each so many times in a row."""
    return [batch for batch in Data(0, images) for _ in range(count)]


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


def test_views_of_an_image_are_suppressed_together():
    """The union is one image: of the same box in three views the best stays."""
    model = Viewer()
    found = detect(model, views_of(3, 2), merging=Merging(3)).detections
    assert model.seen == [[0, 1]] * 3 + [[2, 3]] * 3 and model.asked == [{}] * 6
    assert {k: d.scores.tolist() for k, d in found.items()} == {
        k: [pytest.approx(0.3 if k < 2 else 0.6)] for k in range(4)
    }


def test_a_mean_of_views_asks_for_low_scores_too():
    """0.1 and 0.2 are below the threshold of 0.25, and so is their mean; 0.3 and 0.4 are not."""
    model = Viewer()
    found = detect(model, views_of(2, 2), merging=Merging(2, "AVG", "AVG")).detections
    assert model.asked == [{"every": True}] * 4
    assert [len(found[k]) for k in range(4)] == [0, 0, 1, 1]
    assert found[3].scores.tolist() == [pytest.approx(0.35)]


def test_a_stop_is_heeded_between_views():
    stop, model = StopFlag(), Viewer()

    def batches():
        for k, batch in enumerate(views_of(4, 1)):
            if k == 2:
                stop.signal = signal.SIGINT
            yield batch

    with pytest.raises(SystemExit) as error:
        detect(model, batches(), stop=stop, merging=Merging(4))
    assert error.value.code == 130 and len(model.seen) == 2
