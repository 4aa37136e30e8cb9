# SPDX-License-Identifier: Apache-2.0
"""What is not in the kit fits into its slots without a change of a detector: five methods of others, in short forms.

They are put in the place of the plain part, since only the schema knows names. Each trains, sees what its paper needs
to see, and keeps its state where a checkpoint finds it.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from detectron_libra.builders import imbalance
from detectron_libra.builders.detector import build_detector
from detectron_libra.modeling.box_coding import decode
from detectron_libra.modeling.layout import cat_levels, gather_rows
from detectron_libra.modeling.overlap import paired_iou
from tests.builders.small import config
from tests.builders.test_imbalance import learning, second_part
from tests.modeling.scenes import batch, targets

CLASSES = 3


def one_hot(labels):
    """(..., K) targets of sigmoids; background and what is ignored have none."""
    return F.one_hot(labels.clamp(min=0), CLASSES + 1)[..., 1:].float()


class EqualizationV2(nn.Module):
    """Classes whose positives have pulled less than their negatives get weights (Tan et al., CVPR 2021)."""

    def __init__(self, gamma=12.0, mu=0.8, alpha=4.0):
        super().__init__()
        self.gamma, self.mu, self.alpha = gamma, mu, alpha
        self.unweighted = []
        self.register_buffer("positive", torch.zeros(CLASSES))
        self.register_buffer("negative", torch.zeros(CLASSES))

    def weighted(self, logits, wanted, learns):
        ratio = (self.gamma * (self.positive / (self.negative + 1e-10) - self.mu)).sigmoid()
        weight = torch.where(wanted > 0, 1 + self.alpha * (1 - ratio), ratio) * learns[..., None]
        pull = (logits.detach().sigmoid() - wanted).abs() * weight
        self.positive += (pull * wanted).reshape(-1, CLASSES).sum(0)
        self.negative += (pull * (1 - wanted)).reshape(-1, CLASSES).sum(0)
        each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        self.unweighted.append((each * learns[..., None]).sum().item() / learns.sum().item())
        return (weight * each).sum()


class DenseEqualization(EqualizationV2):
    def forward(self, lesson):
        labels = lesson.match.labels
        return (
            self.weighted(lesson.outputs.logits_per_anchor(), one_hot(labels), labels >= 0)
            / lesson.normalizer
        )


class RegionEqualization(EqualizationV2):
    """As in the paper, classes are sigmoids of their own, and a test has to score them so."""

    def forward(self, lesson):
        loss = self.weighted(lesson.logits[:, 1:], one_hot(lesson.classes), lesson.valid)
        background = F.binary_cross_entropy_with_logits(
            lesson.logits[:, 0], (lesson.classes == 0).float(), reduction="none"
        )
        return (loss + (background * lesson.valid).sum()) / lesson.normalizer

    def probabilities(self, logits):
        scores = logits.sigmoid()
        return torch.cat([scores[:, :1], scores[:, 1:] * (1 - scores[:, :1])], 1)


class GradientHarmonizing(nn.Module):
    """Anchors count less the more others have a gradient of the same size (Li et al., AAAI 2019)."""

    def __init__(self, bins=10, momentum=0.75):
        super().__init__()
        self.bins, self.momentum = bins, momentum
        self.register_buffer("density", torch.zeros(bins))

    def forward(self, lesson):
        logits, wanted = lesson.outputs.logits_per_anchor(), one_hot(lesson.match.labels)
        learns = (lesson.match.labels >= 0)[..., None].expand_as(logits)
        size = (logits.detach().sigmoid() - wanted).abs()
        place = (size * self.bins).long().clamp(max=self.bins - 1)
        counts = torch.zeros(self.bins).scatter_add_(0, place.flatten(), learns.float().flatten())
        self.density.lerp_(counts, 1 - self.momentum)
        weight = learns / self.density.clamp(min=1)[place] * learns.sum() / (counts > 0).sum()
        loss = F.binary_cross_entropy_with_logits(logits, wanted, weight=weight, reduction="sum")
        return loss / learns.sum()


class QualityFocal(nn.Module):
    """A positive is to say the IoU of its box (Li et al., NeurIPS 2020)."""

    def forward(self, lesson):
        logits, labels = lesson.outputs.logits_per_anchor(), lesson.match.labels
        anchors = lesson.outputs.all_anchors.expand(len(labels), -1, -1)
        found = decode(
            cat_levels(lesson.outputs.deltas, 4).detach(), anchors, extent=0.0, clip_shrinking=True
        )
        truth = gather_rows(lesson.targets.boxes, lesson.match.index)
        wanted = one_hot(labels) * paired_iou(found, truth, extent=0.0)[..., None].clamp(min=0)
        self.quality = wanted.amax().item()
        off = (logits.sigmoid() - wanted).abs().square() * (labels >= 0)[..., None]
        loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return (off * loss).sum() / lesson.normalizer


class PrimeRegions(nn.Module):
    """PISA: positives whose boxes fit best count more, and scores have to follow the fit (Cao et al., CVPR 2020)."""

    def forward(self, lesson):
        positive = (lesson.classes > 0) & lesson.valid
        boxes = lesson.deltas[torch.arange(len(positive)), lesson.classes]
        fit = paired_iou(
            decode(
                boxes.detach(),
                lesson.regions,
                weights=(10.0, 10.0, 5.0, 5.0),
                extent=0.0,
                clip_shrinking=True,
            ),
            lesson.matched,
            extent=0.0,
        )
        rank = torch.where(positive, -fit, 9.0).argsort().argsort()
        count = positive.sum().clamp(min=1)
        weight = torch.where(positive, 2 * (count - rank) / (count + 1), 1.0) * lesson.valid
        each = F.cross_entropy(lesson.logits, lesson.classes, reduction="none")
        score = lesson.logits.softmax(1).gather(1, lesson.classes[:, None]).squeeze(1)
        misfit = (score * (1 - fit) * positive).sum() / count
        return (each * weight).sum() / lesson.normalizer + 0.1 * misfit

    def probabilities(self, logits):
        return logits.softmax(-1)


class HardestFirst:
    """Negatives that the detector takes for objects most (OHEM: Shrivastava et al., CVPR 2016)."""

    def __init__(self):
        self.shapes = []

    def __call__(self, boxes, num, keys):
        logits = boxes.logits()
        assert not logits.requires_grad and boxes.targets.boxes.shape[1] == boxes.num_gt
        self.shapes.append(logits.shape)
        hard = -logits.log_softmax(-1)[..., 0] if logits.shape[-1] > CLASSES else logits.amax(-1)
        rank = hard.masked_fill(~boxes.candidates, -torch.inf).argsort(1, descending=True).argsort(1)
        return boxes.candidates & (rank < num[:, None])


def falls(values):
    """By a quarter somewhere: that of quality focal loss rises again once boxes fit better than scores say."""
    return min(values) < 0.75 * values[0]


@pytest.mark.parametrize(
    ("kind", "slot", "make"),
    [
        ("retinanet", "DENSE_CLASS_LOSSES", DenseEqualization),
        ("faster_rcnn", "REGION_CLASS_LOSSES", RegionEqualization),
        ("retinanet", "DENSE_CLASS_LOSSES", GradientHarmonizing),
        ("retinanet", "DENSE_CLASS_LOSSES", QualityFocal),
        ("faster_rcnn", "REGION_CLASS_LOSSES", PrimeRegions),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_losses_of_others_train_and_keep_their_state(monkeypatch, tmp_path, kind, slot, make):
    monkeypatch.setitem(getattr(imbalance, slot), "plain", lambda cfg, classes, weights: make())
    model, found = learning(kind, tmp_path, {}, steps=24 if kind == "retinanet" else 48)
    loss = second_part(model).class_loss
    values = getattr(loss, "unweighted", [step["cls"] for step in found])
    assert type(loss) is make and falls(values), values
    for name, value in loss.named_buffers():
        assert value.any()
        assert any(key.endswith(f"class_loss.{name}") for key in model.state_dict())
    if make is QualityFocal:
        assert 0 < loss.quality < 1


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn"])
def test_a_sampler_of_others_may_ask_for_scores_and_ground_truth(monkeypatch, tmp_path, kind):
    sampler = HardestFirst()
    monkeypatch.setitem(imbalance.NEGATIVE_SAMPLERS, "iou_balanced", lambda cfg: sampler)
    on = {"LIBRA__IOU_SAMPLING__ON": True}
    if kind == "retinanet":
        on["LIBRA__IOU_SAMPLING__NEGATIVES_PER_IM"] = 40
    _, found = learning(kind, tmp_path, on, steps=24)
    assert falls([step["cls"] for step in found]) and len(sampler.shapes) == 24
    assert {shape[2] for shape in sampler.shapes} == {CLASSES if kind == "retinanet" else CLASSES + 1}


def test_detections_have_the_scores_that_the_loss_means(monkeypatch):
    """Sigmoids may all be large at once, a softmax may not."""
    monkeypatch.setitem(imbalance.REGION_CLASS_LOSSES, "plain", lambda *_: RegionEqualization())
    cfg = config("faster_rcnn", TEST__SCORE_THRESH=0.0, TEST__NMS=0.99)
    torch.manual_seed(0)
    model = build_detector(cfg, CLASSES + 1).eval()
    score = model.regions.predictor.cls_score
    nn.init.zeros_(score.weight)
    score.bias.data = torch.tensor([-3.0, 3.0, 3.0, 3.0])
    with torch.no_grad():
        (found,) = model(batch([(64, 64)], targets([])))
    scores = torch.tensor(3.0).sigmoid().square().expand(len(found.scores))
    torch.testing.assert_close(found.scores, scores)
    assert len(scores)
