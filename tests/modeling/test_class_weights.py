# SPDX-License-Identifier: Apache-2.0
"""Weights of classes: the papers' formulas, mean 1, and what becomes of a class without boxes."""

import numpy as np
import pytest
import torch

from detectron_libra.modeling.class_weights import class_weights

COUNTS = np.array([5000, 300, 12, 1])
FORMULAS = {
    "inverse": lambda n, beta: 1 / n,
    "square_root": lambda n, beta: 1 / np.sqrt(n),
    "effective_number": lambda n, beta: (1 - beta) / (1 - beta**n),
}


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.99999])
@pytest.mark.parametrize("kind", FORMULAS)
def test_weights_are_the_formula_with_mean_one(kind, beta):
    """Cui et al.: proportional to 1 / E_n, E_n = (1 - beta^n) / (1 - beta), and adding up to K."""
    raw = FORMULAS[kind](COUNTS.astype(float), beta)
    found = class_weights(torch.from_numpy(COUNTS), kind, beta=beta)
    np.testing.assert_allclose(found.numpy(), raw * len(raw) / raw.sum(), rtol=1e-6)
    assert found.dtype == torch.float32 and found.mean().item() == pytest.approx(1)


def test_beta_goes_from_equal_weights_to_the_inverse():
    counts = torch.from_numpy(COUNTS)
    assert class_weights(counts, "effective_number", beta=0.0).tolist() == [1, 1, 1, 1]
    close = class_weights(counts, "effective_number", beta=1 - 1e-9)
    torch.testing.assert_close(close, class_weights(counts, "inverse"), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_class_without_boxes_weighs_one_and_leaves_the_others_as_they_are(kind):
    found = class_weights(torch.tensor([0, 40, 10, 0]), kind)
    torch.testing.assert_close(found[1:3], class_weights(torch.tensor([40, 10]), kind))
    assert found[0] == found[3] == 1
    assert class_weights(torch.tensor([0, 0]), kind).tolist() == [1, 1]


def test_another_kind_is_an_error():
    with pytest.raises(ValueError, match="square_root"):
        class_weights(torch.tensor([1]), "cubic")
