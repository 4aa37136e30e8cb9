# SPDX-License-Identifier: Apache-2.0
"""Numbers of running reference code: small files under tests/data/golden, the rest beside the checkout when there."""

import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
PLACES = (ROOT / "tests/data/golden", ROOT.parent / "shared/golden")


def load(name: str):
    """(arrays, description) of a golden file; skips the test visibly where it is not at hand."""
    for place in PLACES:
        if (place / f"{name}.npz").exists():
            meta = json.loads((place / f"{name}.json").read_text())
            return dict(np.load(place / f"{name}.npz")), meta
    pytest.skip(f"golden file {name}.npz is not at hand (looked in {', '.join(map(str, PLACES))})")
