# SPDX-License-Identifier: Apache-2.0
"""The configuration: Detectron's keys and our own as frozen, typed dataclasses, loaded from plain YAML."""

from detectron_libra.config.checks import pyramid_levels
from detectron_libra.config.dump import diff, dump
from detectron_libra.config.load import (
    infer,
    load_config,
    load_with_origins,
    parse_config,
    with_options,
    with_values,
)
from detectron_libra.config.schema import KEYS, Config

__all__ = [
    "KEYS",
    "Config",
    "diff",
    "dump",
    "infer",
    "load_config",
    "load_with_origins",
    "parse_config",
    "pyramid_levels",
    "with_options",
    "with_values",
]
