# SPDX-License-Identifier: Apache-2.0
"""Runs are compared bit by bit: one thread, and a random state that one test does not hand to the next."""

import pytest
import torch

from detectron_libra.engine import rng


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with rng.preserved():
        yield
    torch.set_num_threads(before)
