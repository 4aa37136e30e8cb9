# SPDX-License-Identifier: Apache-2.0
"""Where the time of a step goes, on graphs whose parts last a known time."""

import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from detectron_libra.builders.benchmark.ranges import SHARE_OF, SHARES, STEP, Place, in_ranges, named
from detectron_libra.builders.benchmark.shares import NODE, seconds_of_parts, shares


class Slow(torch.autograd.Function):
    """Identity that lasts so many seconds forward, and so many backward."""

    @staticmethod
    def forward(ctx, x, forward_s, backward_s):
        ctx.backward_s = backward_s
        time.sleep(forward_s)
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(ctx.backward_s)
        return gradient, None, None


class Lasting(nn.Module):
    def __init__(self, forward_s, backward_s):
        super().__init__()
        self.seconds = forward_s, backward_s
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return Slow.apply(x * self.weight, *self.seconds)


def parts_of(step, steps=3):
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(steps):
            with record_function(STEP):
                step()
    return seconds_of_parts(found.events(), device="cpu")


def test_forward_and_backward_of_every_part_are_its_own():
    body, neck, head = Lasting(0.02, 0.05), Lasting(0.01, 0.0), Lasting(0.0, 0.03)

    def step():
        features = neck(body(torch.ones(3)))
        loss = (head(features) + head(features * 2)).sum()
        loss.backward()
        time.sleep(0.01)

    places = [
        Place(body, "forward", "backbone"),
        Place(neck, "forward", "fpn"),
        Place(head, "forward", "head"),
    ]
    with in_ranges(places):
        parts = parts_of(step)
    wanted = {"backbone": 0.07, "fpn": 0.01, "head": 0.06, "other": 0.01}
    assert set(parts) == set(wanted)
    for part, seconds in wanted.items():
        # a sleep may last longer, and never less: what another part got would be missing here
        assert parts[part] >= seconds - 0.001, (part, parts)


def test_the_innermost_range_counts():
    def step():
        with named("losses"):
            time.sleep(0.005)
            with named("matching"):
                time.sleep(0.03)
            time.sleep(0.005)

    parts = parts_of(step)
    assert parts["matching"] >= 0.029 and parts["losses"] >= 0.009


def test_what_interrupts_one_step_is_left_out():
    slow = iter((0.0, 2.0, 0.0))

    def step():
        with named("head"):
            time.sleep(0.02 + next(slow))

    assert 0.019 <= parts_of(step, 3)["head"] < 1.0


def test_what_waits_in_a_graph_beside_does_not_take_the_number_of_the_next_node():
    """An operation without a gradient carries the number of the node that is made next, elsewhere."""
    body, head = Lasting(0.0, 0.0), Lasting(0.0, 0.03)

    def step():
        x = body(torch.ones(3))
        with named("matching"):
            torch.ones(3) + 1
        head(x).sum().backward()

    with in_ranges([Place(body, "forward", "backbone"), Place(head, "forward", "head")]):
        parts = parts_of(step)
    assert parts["head"] >= 0.029 and parts["matching"] >= 0


def event(name, start, end, parent=None, *, number=-1, kernels=0.0, annotation=False):
    """What the profiler tells of a function: times in microseconds."""
    made = SimpleNamespace(
        name=name,
        sequence_nr=number,
        time_range=SimpleNamespace(start=start, end=end),
        cpu_time_total=end - start,
        cpu_parent=parent,
        cpu_children=[],
        device_type=DeviceType.CPU,
        is_user_annotation=annotation,
        self_device_time_total=kernels,
    )
    if parent is not None:
        parent.cpu_children.append(made)
    return made


def test_on_a_gpu_kernels_count_and_the_backward_pass_has_a_thread_of_its_own():
    step = event(STEP, 0, 1000, annotation=True, kernels=900.0)
    head = event("part: head", 10, 50, step, annotation=True, kernels=300.0)
    losses = event("part: losses", 60, 90, step)
    forward = [
        event("aten::conv2d", 20, 30, head, number=7, kernels=300.0),
        event("aten::sum", 70, 80, losses, number=8, kernels=20.0),
    ]
    nodes = [
        event(f"{NODE}SumBackward0", 100, 110, number=8),
        event(f"{NODE}ConvolutionBackward0", 120, 200, number=7),
        event(f"{NODE}torch::autograd::AccumulateGrad", 210, 220, number=2**64 - 1),
    ]
    inside = [
        event("aten::expand", 101, 102, nodes[0], kernels=10.0),
        event("aten::convolution_backward", 130, 140, nodes[1], kernels=400.0),
        event("aten::detach", 211, 212, nodes[2], kernels=5.0),
    ]
    update = event("part: optimizer", 300, 310, step)
    last = event("aten::_fused_sgd_", 301, 302, update, kernels=30.0)
    kernel = SimpleNamespace(device_type=DeviceType.CUDA, name="a kernel")
    events = [step, head, losses, *forward, *nodes, *inside, update, last, kernel]
    parts = {part: round(1e6 * seconds) for part, seconds in seconds_of_parts(events, device="cuda").items()}
    assert parts == {"head": 705, "losses": 30, "optimizer": 30, "other": 235}


def test_shares_add_up_to_one_and_have_all_names():
    found = shares({"roi_align": 1.0, "box_head": 2.0, "other": 1.0})
    assert tuple(found) == SHARES and sum(found.values()) == pytest.approx(1)
    assert found["heads"] == pytest.approx(0.75) and found["data"] == 0
    wanted = "data backbone fpn heads matching losses optimizer postprocess other"
    assert set(wanted.split()) == set(SHARES) == set(SHARE_OF.values())


def test_functions_are_as_before_afterwards():
    module, before = nn.Linear(2, 2), torch.nn.functional.relu
    places = [Place(module, "forward", "head"), Place(torch.nn.functional, "relu", "other")]
    with pytest.raises(ZeroDivisionError), in_ranges(places):
        assert "forward" in vars(module) and torch.nn.functional.relu is not before
        raise ZeroDivisionError
    assert "forward" not in vars(module) and torch.nn.functional.relu is before


def test_a_function_that_is_not_there_is_not_passed_over():
    with pytest.raises(AttributeError), in_ranges([Place(torch.nn.functional, "no_such_function", "head")]):
        pass
