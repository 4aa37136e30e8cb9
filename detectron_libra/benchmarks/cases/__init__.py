# SPDX-License-Identifier: Apache-2.0
"""What is measured of each operator, a file each, of the operator's name: `cases(setup)` lists its cases.

The eager formulations are what a detector in plain PyTorch does at that place, in the steps of mmdetection and
torchvision, and are written here anew.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from detectron_libra.benchmarks.case import Case, Setup

#: The operators that have cases, in alphabetical order.
NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def plan(names: list[str] | tuple[str, ...], setup: Setup) -> list[Case]:
    """The cases of these operators; no tensor is made."""
    return [case for name in names for case in import_module(f"{__name__}.{name}").cases(setup)]
