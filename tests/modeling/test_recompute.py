# SPDX-License-Identifier: Apache-2.0
"""Activations that are computed again: the same bits with less memory alive between the passes."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from detectron_libra.builders.backbone import build_backbone
from detectron_libra.errors import UsageError
from detectron_libra.modeling.backbones import ResNet
from tests.builders.small import config


def passes(recompute, precision=torch.float32, norm="affine"):
    """(features, gradients, bytes that the backward pass keeps) of a small network."""
    torch.manual_seed(0)
    net = ResNet(stage_blocks=(1, 2, 2, 1), block="basic", width=16, norm=norm, recompute=recompute).train()
    x, kept = torch.randn(2, 3, 96, 64), {}

    def keep(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with (
        saved_tensors_hooks(keep, lambda t: t),
        torch.autocast("cpu", precision, enabled=precision != torch.float32),
    ):
        features = net(x)
    parameters = [p for p in net.parameters() if p.requires_grad]
    grads = torch.autograd.grad(
        sum(f.float().square().sum() for f in features.values() if f.requires_grad), parameters
    )
    return list(features.values()), grads, sum(kept.values())


@pytest.mark.parametrize("norm", ["affine", "group"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_same_bits_with_less_kept(precision, norm):
    (features, grads, kept), (again, grads_again, kept_again) = (
        passes(r, precision, norm) for r in (False, True)
    )
    for a, b in zip((*features, *grads), (*again, *grads_again), strict=True):
        assert torch.equal(a, b)
    assert kept_again < 0.6 * kept


def test_the_key_reaches_the_backbone_and_statistics_of_batches_are_refused():
    assert build_backbone(
        config("retinanet", TRAIN__CHECKPOINT_ACTIVATIONS=True, RESNETS__NORM="group")
    ).recompute
    with pytest.raises(UsageError, match="TRAIN.CHECKPOINT_ACTIVATIONS: .*RESNETS.NORM to group"):
        build_backbone(config("retinanet", TRAIN__CHECKPOINT_ACTIVATIONS=True, RESNETS__NORM="batch"))
