# SPDX-License-Identifier: Apache-2.0
"""torchvision's compiled operators, where they can be loaded."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any


@cache
def torchvision() -> tuple[Any, str]:
    """(torchvision.ops, "torchvision 0.28.0"), or (None, why not)."""
    try:
        package = importlib.import_module("torchvision")
        ops = importlib.import_module("torchvision.ops")
        if not importlib.import_module("torchvision.extension")._has_ops():
            return None, "torchvision has no compiled operators"
    except Exception as e:  # a package built for another torch fails in many ways
        return None, f"torchvision cannot be loaded ({type(e).__name__}: {str(e).splitlines()[0]})"
    return ops, f"torchvision {package.__version__}"
