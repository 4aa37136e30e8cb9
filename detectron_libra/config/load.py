# SPDX-License-Identifier: Apache-2.0
"""A configuration from a YAML file and ``KEY VALUE`` options, with every fault of both in one error.

Source of the rules of merging: Detectron's core/config.py. A file may name another one it builds on:
``_BASE_: other.yaml``, relative to itself; its own values win.
"""

import logging
import os
from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from detectron_libra.config import datasets, reader
from detectron_libra.config.checks import contradictions
from detectron_libra.config.decode import coerce, decode, nearest, shorten
from detectron_libra.config.fields import construct, sections, values_of
from detectron_libra.config.renamed import DEPRECATED, RENAMED
from detectron_libra.config.schema import KEYS, Config
from detectron_libra.errors import UsageError

logger = logging.getLogger(__name__)
SECTIONS = sections(Config)


def load_config(path: str | os.PathLike | None = None, opts: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file with options on top.

    Args:
        path: the file; None: every key at its default.
        opts: ``[KEY, VALUE, KEY, VALUE, ...]``; DATASETS add to those of the file.
    Raises:
        UsageError: everything that is wrong, a line each.
    """
    return load_with_origins(path, opts)[0]


def load_with_origins(
    path: str | os.PathLike | None = None, opts: Sequence[str] = ()
) -> tuple[Config, dict[str, str]]:
    """``load_config``, and where each value that is no default came from: key -> ``file:line`` or option."""
    merge = _Merge()
    if path is not None:
        merge.file(os.fspath(path), ())
    merge.options(opts)
    return merge.finish(), merge.origin


def parse_config(text: str, name: str = "configuration") -> Config:
    """The configuration of YAML text, such as ``dump`` wrote. Raises UsageError as ``load_config``."""
    merge = _Merge()
    merge.tree(*reader.parse(text, name), name, ())
    return merge.finish()


def with_values(cfg: Config, values: AnyMapping[str, Any], where: str = "value") -> Config:
    """``cfg`` with other values: dotted name -> value, from ``where``. Raises UsageError as ``load_config``."""
    merge = _Merge(cfg)
    for name, raw in values.items():
        merge.assign(name, raw, where)
    return merge.finish()


def with_options(cfg: Config, opts: Sequence[str]) -> Config:
    """``cfg`` with ``[KEY, VALUE, ...]`` on top. Raises UsageError as ``load_config``."""
    merge = _Merge(cfg)
    merge.options(opts)
    return merge.finish()


def infer(cfg: Config) -> Config:
    """``cfg`` with the keys that follow from others. Source: Detectron's assert_and_infer_cfg."""
    values = values_of(cfg)
    values["RPN.RPN_ON"] |= cfg.MODEL.FASTER_RCNN or cfg.MODEL.RPN_ONLY
    values["TEST.PRECOMPUTED_PROPOSALS"] &= not (values["RPN.RPN_ON"] or cfg.RETINANET.RETINANET_ON)
    return replace(construct(Config, values), origins=cfg.origins)


class _Merge:
    """Values under way to a configuration, where they came from, and what is wrong."""

    def __init__(self, cfg: Config | None = None) -> None:
        self.values = values_of(cfg or Config())
        self.origin = dict(cfg.origins) if cfg else {}
        self.faults: list[str] = []
        self.faulty: set[str] = set()

    def fault(self, where: str, name: str, message: str) -> None:
        self.faults.append(f"{where}: {name}: {message}")
        self.faulty.add("DATASETS" if name.startswith("DATASETS") else name)

    def file(self, path: str, outer: tuple[str, ...]) -> None:
        real = os.path.realpath(path)
        if real in outer:
            raise UsageError(f"{path}: _BASE_ leads back to this file; remove it in one of them")
        self.tree(*reader.read(path), path, (*outer, real))

    def tree(self, tree: reader.Mapping, faults: list[str], path: str, outer: tuple[str, ...]) -> None:
        self.faults += faults
        base = tree.pop("_BASE_", None)
        if isinstance(base, str):
            self.file(os.path.join(os.path.dirname(path), base), outer)
        elif base is not None:
            self.fault(tree.where["_BASE_"], "_BASE_", f"{shorten(base)} is no path")
        self.mapping(tree, path, "")

    def options(self, opts: Sequence[str]) -> None:
        if len(opts) % 2:
            raise UsageError(f"options must be pairs of KEY and VALUE: {opts[-1]!r} is left over")
        for i in range(0, len(opts), 2):
            self.assign(opts[i], opts[i + 1], f"command line, option {i // 2 + 1}")

    def mapping(self, tree: dict, where: str, prefix: str) -> None:
        places = getattr(tree, "where", {})
        for name, raw in tree.items():
            self.assign(f"{prefix}{name}", raw, places.get(name, where))

    def assign(self, name: str, raw: Any, where: str) -> None:
        if name in SECTIONS:
            self.section(name, decode(raw), where)
        elif name == "DATASETS" or name.startswith("DATASETS."):
            added = raw if name == "DATASETS" else datasets.nested(name, raw)
            if added is not None:
                self.values["DATASETS"] = datasets.merge(self.values["DATASETS"], added, where, self.fault)
            self.origin["DATASETS"] = where
        elif name in KEYS:
            self.value(name, raw, where)
        elif name in DEPRECATED:
            logger.warning("%s: %s has no effect any more and is skipped", where, name)
        elif name in RENAMED:
            new, hint = RENAMED[name]
            self.fault(where, name, f"the key is called {new} now{f' ({hint})' if hint else ''}")
        else:
            self.fault(where, name, f"unknown key{nearest(name, [*KEYS, *SECTIONS])}")

    def section(self, name: str, tree: Any, where: str) -> None:
        if isinstance(tree, dict):
            self.mapping(tree, where, f"{name}.")
        elif tree is not None:
            self.fault(where, name, f"{shorten(tree)} is a value; {name} is a section of keys")

    def value(self, name: str, raw: Any, where: str) -> None:
        try:
            self.values[name] = coerce(raw, KEYS[name])
            self.origin[name] = where
        except (ValueError, RecursionError) as e:
            self.fault(where, name, str(e))

    def finish(self) -> Config:
        cfg = infer(replace(construct(Config, self.values), origins=self.origin))
        if "DATASETS" not in self.faulty:
            where = self.origin.get("DATASETS", "default")
            for name, message in datasets.incomplete(cfg.DATASETS).items():
                self.fault(where, f"DATASETS.{name}", message)
        for keys, message in contradictions(cfg):
            if not self.faulty.intersection(keys):
                where = next((self.origin[k] for k in keys if k in self.origin), "default")
                self.faults.append(f"{where}: {keys[0]}: {message}")
        if self.faults:
            raise UsageError(*self.faults)
        return cfg
