# SPDX-License-Identifier: Apache-2.0
"""Seesaw loss: the formulas of the paper term by term, its gradient, and the count of what was seen."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from detectron_libra.modeling.seesaw import SeesawLoss, log_seesaw_factors
from tests.modeling.test_class_losses import LABELS, VALID, lesson, region_logits

COUNTS = torch.tensor([1000, 40, 3])
POSITIVE = (LABELS > 0) & VALID


def loss_with(counts=COUNTS, **options):
    """In evaluation mode, which counts nothing."""
    loss = SeesawLoss(num_classes=3, **options).eval()
    loss.counts.copy_(counts)
    return loss


def factors_of_the_paper(logits, label, counts, p, q):
    """S_ij by its definition, one class after another."""
    sigma = np.exp(logits) / np.exp(logits).sum()
    factors = np.ones(len(logits))
    for j in range(len(logits)):
        if j == label:
            continue
        mitigation = 1.0 if counts[label] <= counts[j] else (counts[j] / counts[label]) ** p
        compensation = 1.0 if sigma[j] <= sigma[label] else (sigma[j] / sigma[label]) ** q
        factors[j] = mitigation * compensation
    return factors


def loss_of_the_paper(logits, label, counts, p, q):
    """-log sigma^_i, sigma^_i = e^z_i / (sum over j != i of S_ij e^z_j + e^z_i)."""
    weighted = factors_of_the_paper(logits, label, counts, p, q) * np.exp(logits)
    return -np.log(weighted[label] / weighted.sum())


@pytest.mark.parametrize(("p", "q"), [(0.8, 2.0), (0.8, 0.0), (0.0, 2.0), (1.0, 0.5)])
def test_factors_are_mitigation_times_compensation(p, q):
    logits = region_logits()[:, 1:].detach()
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    found = log_seesaw_factors(logits, labels, COUNTS, p=p, q=q).exp()
    for row, z, label in zip(found, logits.double().numpy(), labels.tolist(), strict=True):
        expected = factors_of_the_paper(z, label, COUNTS.tolist(), p, q)
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-5)


def test_the_loss_is_object_or_not_plus_the_papers_loss_of_positives():
    logits = region_logits()
    z = logits.detach().double().numpy()
    expected = 0.0
    for row, label, valid in zip(z, LABELS.tolist(), VALID.tolist(), strict=True):
        background = np.exp(row[0]) / np.exp(row).sum()
        if valid:
            expected -= np.log(1 - background if label else background)
        if valid and label:
            expected += loss_of_the_paper(row[1:], label - 1, COUNTS.tolist(), 0.8, 2.0)
    found = loss_with()(lesson(logits))
    assert found.item() == pytest.approx(expected / VALID.sum().item(), rel=1e-5)


def test_without_factors_it_is_the_cross_entropy():
    """Reading the softmax as a product changes nothing by itself."""
    a, b = region_logits(), region_logits()
    ours, plain = loss_with(p=0.0, q=0.0)(lesson(a)), F.cross_entropy(b[:4], LABELS[:4])
    torch.testing.assert_close(ours, plain)
    ours.backward()
    plain.backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_the_gradient_on_other_classes_is_scaled_by_the_factors():
    """The rule: dL/dz_j = S_ij (sigma_j / sigma_i) sigma^_i for j != i; factors themselves are not learned."""
    logits = region_logits().detach().double().requires_grad_()
    loss_with()(lesson(logits)).backward()
    either = logits.detach().clone().requires_grad_()
    objectness = either[:, 1:].logsumexp(1) - either[:, 0]
    target = POSITIVE.double()
    (F.binary_cross_entropy_with_logits(objectness, target, reduction="none") * VALID).sum().backward()
    found = (logits.grad * VALID.sum() - either.grad)[:, 1:]
    for row, z, label, positive in zip(
        found.numpy(), logits.detach().numpy()[:, 1:], LABELS.tolist(), POSITIVE.tolist(), strict=True
    ):
        expected = np.zeros(3)
        if positive:
            i = label - 1
            sigma = np.exp(z) / np.exp(z).sum()
            factors = factors_of_the_paper(z, i, COUNTS.tolist(), 0.8, 2.0)
            hat = sigma[i] / (factors * sigma).sum()
            expected = factors * sigma / sigma[i] * hat
            expected[i] = hat - 1
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_a_rare_class_is_spared_by_a_frequent_one_and_not_the_other_way_round():
    logits = torch.zeros(1, 3)
    frequent = log_seesaw_factors(logits, torch.tensor([0]), COUNTS, p=0.8, q=2.0).exp()[0]
    rare = log_seesaw_factors(logits, torch.tensor([2]), COUNTS, p=0.8, q=2.0).exp()[0]
    assert frequent.tolist() == pytest.approx([1, (40 / 1000) ** 0.8, (3 / 1000) ** 0.8])
    assert rare.tolist() == [1, 1, 1]


def test_positives_are_counted_in_training_only_without_padding():
    loss = SeesawLoss(num_classes=3)
    for _ in range(2):
        loss(lesson(region_logits()))
    assert loss.counts.tolist() == [2, 2, 2]
    loss.eval()(lesson(region_logits()))
    assert loss.counts.tolist() == [2, 2, 2] and "counts" in loss.state_dict()


@pytest.mark.parametrize("valid", [VALID, torch.zeros(6, dtype=torch.bool)], ids=["background", "nothing"])
def test_without_positives_it_is_finite_and_nothing_is_counted(valid):
    loss, logits = SeesawLoss(num_classes=3), region_logits()
    value = loss(lesson(logits, torch.zeros_like(LABELS), valid))
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all() and loss.counts.tolist() == [0, 0, 0]


def test_it_learns():
    """A hundred steps on four regions: every one gets its class."""
    logits = region_logits().detach().requires_grad_()
    loss, optimizer = SeesawLoss(num_classes=3), torch.optim.Adam([logits], lr=0.1)
    values = []
    for _ in range(100):
        optimizer.zero_grad()
        value = loss(lesson(logits))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.1 * values[0] and logits[:4].argmax(1).tolist() == LABELS[:4].tolist()
