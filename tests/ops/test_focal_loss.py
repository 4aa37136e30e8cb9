# SPDX-License-Identifier: Apache-2.0
"""focal_loss: the textbook formula on permuted logits, gradients, ignored anchors, formats, extremes."""

import pytest
import torch

from detectron_libra.ops.focal_loss import focal_loss

N, A, C, H, W = 2, 3, 4, 3, 5


def example(softmax=False, dtype=torch.float64):
    torch.manual_seed(0)
    logits = torch.randn(N, A * (C + softmax), H, W, dtype=dtype) * 3
    labels = torch.randint(-1, C + 1, (N, H * W * A))
    return logits.requires_grad_(), labels


def textbook(logits, labels, alpha, gamma, softmax, weight=None):
    """The sum over rows, each an anchor with its own logits."""
    rows = logits.permute(0, 2, 3, 1).reshape(labels.numel(), -1)
    flat = labels.flatten()
    weight = torch.ones(len(flat)) if weight is None else weight.flatten()
    total = logits.new_zeros(())
    for row, label, factor in zip(rows, flat.tolist(), weight.tolist(), strict=True):
        if label < 0:
            continue
        if softmax:
            p = row.softmax(0)[label]
            share = alpha if label else 1 - alpha
            total = total - factor * share * (1 - p) ** gamma * p.log()
            continue
        p = row.sigmoid()
        for c in range(C):
            if label == c + 1:
                total = total - factor * alpha * (1 - p[c]) ** gamma * p[c].log()
            else:
                total = total - factor * (1 - alpha) * p[c] ** gamma * (1 - p[c]).log()
    return total


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.3, 1.5), (0.5, 0.0)])
def test_value_and_gradient_equal_the_textbook(softmax, alpha, gamma):
    logits, labels = example(softmax)
    weight = torch.rand(labels.shape)
    for factor in (None, weight):
        ours = focal_loss(
            logits, labels, alpha=alpha, gamma=gamma, num_classes=C, weight=factor, softmax=softmax
        )
        expected = textbook(logits, labels, alpha, gamma, softmax, factor)
        torch.testing.assert_close(ours, expected)
        (got,) = torch.autograd.grad(ours, logits)
        torch.testing.assert_close(got, torch.autograd.grad(expected, logits)[0])


@pytest.mark.parametrize("softmax", [False, True])
def test_gradcheck(softmax):
    logits, labels = example(softmax)
    assert torch.autograd.gradcheck(
        lambda x: focal_loss(x, labels[:1], alpha=0.25, gamma=2.0, num_classes=C, softmax=softmax),
        logits[:1].detach().requires_grad_(),
    )


@pytest.mark.parametrize("softmax", [False, True])
def test_channels_last_gives_the_same_and_keeps_its_format(softmax):
    logits, labels = example(softmax, torch.float32)
    last = logits.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    losses = [
        focal_loss(x, labels, alpha=0.25, gamma=2, num_classes=C, softmax=softmax) for x in (logits, last)
    ]
    torch.testing.assert_close(*losses)
    grads = [torch.autograd.grad(loss, x)[0] for loss, x in zip(losses, (logits, last), strict=True)]
    torch.testing.assert_close(*grads)
    assert grads[1].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("softmax", [False, True])
def test_ignored_anchors_have_no_loss_and_no_gradient(softmax):
    logits, labels = example(softmax)
    focal_loss(logits, labels, alpha=0.25, gamma=2, num_classes=C, softmax=softmax).backward()
    grad = logits.grad.permute(0, 2, 3, 1).reshape(labels.numel(), -1)
    ignored = labels.flatten() < 0
    assert ignored.any()
    assert (grad[ignored] == 0).all()
    assert (grad[~ignored] != 0).any(1).all()
    none = focal_loss(
        logits, torch.full_like(labels, -1), alpha=0.25, gamma=2, num_classes=C, softmax=softmax
    )
    assert none == 0


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_huge_logits_stay_finite(softmax, gamma):
    logits, labels = example(softmax, torch.float32)
    huge = (logits.detach().sign() * 1e4).requires_grad_()
    loss = focal_loss(huge, labels, alpha=0.25, gamma=gamma, num_classes=C, softmax=softmax)
    loss.backward()
    assert loss.isfinite()
    assert loss > 0
    assert huge.grad.isfinite().all()


def test_half_precision_logits_are_summed_in_float32():
    logits, labels = example(dtype=torch.float32)
    half = logits.detach().bfloat16().requires_grad_()
    ours = focal_loss(half, labels, alpha=0.25, gamma=2, num_classes=C)
    expected = focal_loss(half.detach().float(), labels, alpha=0.25, gamma=2, num_classes=C)
    assert ours.dtype == torch.float32
    assert ours == expected
    ours.backward()
    assert half.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(0, A * C, H, W), (N, A * C, 0, W)])
def test_nothing_to_learn_from_is_a_zero_that_can_be_differentiated(shape):
    logits = torch.zeros(shape, requires_grad=True)
    labels = torch.zeros(shape[0], shape[2] * shape[3] * A, dtype=torch.int64)
    loss = focal_loss(logits, labels, alpha=0.25, gamma=2, num_classes=C)
    loss.backward()
    assert loss == 0
    assert logits.grad.shape == shape


def test_shapes_that_do_not_fit_are_refused_by_name():
    logits, labels = example()
    with pytest.raises(ValueError, match="labels"):
        focal_loss(logits, labels[:, 1:], alpha=0.25, gamma=2, num_classes=C)
    with pytest.raises(ValueError, match="weight"):
        focal_loss(logits, labels, alpha=0.25, gamma=2, num_classes=C, weight=torch.ones(3))
    with pytest.raises(ValueError, match="channels"):
        focal_loss(logits, labels, alpha=0.25, gamma=2, num_classes=5)
