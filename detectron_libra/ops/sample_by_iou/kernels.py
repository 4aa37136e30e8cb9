# SPDX-License-Identifier: Apache-2.0
"""The kernels of the samplers as torch sees them: they give a mask, so shapes are all there is to say."""

import torch

sample_uniform = torch.ops.detectron_libra.sample_uniform.default
sample_by_iou = torch.ops.detectron_libra.sample_by_iou.default
sample_by_instance = torch.ops.detectron_libra.sample_by_instance.default

FORMS = {"paper": 0, "released": 1}


@torch.library.register_fake("detectron_libra::sample_uniform")
def _(candidates, num, keys):
    return candidates.new_empty(candidates.shape)


@torch.library.register_fake("detectron_libra::sample_by_iou")
def _(iou, candidates, num, keys, max_iou, form, bins, floor, floor_fraction, high, low):
    return candidates.new_empty(candidates.shape)


@torch.library.register_fake("detectron_libra::sample_by_instance")
def _(index, candidates, num, keys, form, num_gt):
    return candidates.new_empty(candidates.shape)
