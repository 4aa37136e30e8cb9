# SPDX-License-Identifier: Apache-2.0
"""How images are read: the decoder, which has to be installed, and where decoded images are kept."""

import os
from pathlib import Path

from detectron_libra.builders.rules import geometry_of
from detectron_libra.config.schema import Config
from detectron_libra.data.cache import GIB
from detectron_libra.data.caching import CacheSettings
from detectron_libra.data.jpeg import PILLOW, module_of
from detectron_libra.errors import UsageError
from detectron_libra.files import ensure_writable


def require_reader(cfg: Config) -> None:
    """Raises UsageError where the library of DATA.READER is not installed; called before any data is read."""
    if cfg.DATA.READER != PILLOW:
        module_of(cfg.DATA.READER)


def require_cache(cfg: Config) -> None:
    """Raises UsageError where the folder of DATA.CACHE disk cannot be written to; called before any data is read."""
    if cfg.DATA.CACHE == "disk":
        folder = cache_folder(cfg)
        try:
            ensure_writable(folder)
        except UsageError as e:
            cause = getattr(e.__cause__, "strerror", None) or e
            raise UsageError(
                f"DATA.CACHE disk: {folder}: cannot be written to ({cause}); set DATA.CACHE_DIR to another folder"
            ) from e


def cache_folder(cfg: Config) -> Path:
    """DATA.CACHE_DIR, or a folder of ours in the user's cache folder (XDG Base Directory Specification)."""
    if cfg.DATA.CACHE_DIR:
        return Path(cfg.DATA.CACHE_DIR)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detectron_libra/images"


def cache_settings(cfg: Config) -> CacheSettings:
    """Of the training images."""
    return CacheSettings(cfg.DATA.CACHE, int(cfg.DATA.CACHE_GB * GIB), cache_folder(cfg))


def drafts(cfg: Config) -> bool:
    """Whether large JPEGs are decoded at a fraction; not where Detectron's arithmetic resizes the whole image."""
    return cfg.DATA.DRAFT and not geometry_of(cfg).resize_in_float
