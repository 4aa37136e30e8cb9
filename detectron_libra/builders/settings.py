# SPDX-License-Identifier: Apache-2.0
"""Configuration keys that weights need, such as the order of the colours: set where nobody has set them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detectron_libra.config import KEYS, Config, parse_config, with_options, with_values
from detectron_libra.config.decode import coerce
from detectron_libra.config.dump import plain, show
from detectron_libra.config.fields import values_of
from detectron_libra.errors import InputError, UsageError
from detectron_libra.weights.contents import Weights

log = logging.getLogger(__name__)

#: Keys that say which detector it is. Weights set them where there is no configuration at all.
DETECTOR = frozenset(
    {
        "MODEL.TYPE",
        "MODEL.CONV_BODY",
        "MODEL.FASTER_RCNN",
        "RETINANET.RETINANET_ON",
        "FAST_RCNN.ROI_BOX_HEAD",
        "FPN.FPN_ON",
    }
)
#: Beginnings of the keys of a backbone and of what it is fed with.
BACKBONE = ("PIXEL_", "RESNETS.", "DATA.")
#: Keys that a training hands on with its weights whatever they began with: how images are decoded.
DECODING = ("DATA.READER", "DATA.DRAFT")


def apply_settings(cfg: Config, settings: Mapping[str, object], source: str) -> Config:
    """A configuration that suits weights.

    Args:
        settings: key -> value that the weights need; see ``weights.contents.Weights``.
        source: the weights' file, for messages.

    Returns:
        ``cfg`` with these values where the key was left at its default. Where somebody has set it to another value,
        this value stays, and a warning names both.

    Raises:
        InputError: the file names a key or a value that there is not. UsageError: the values do not go together with
        the others.
    """
    values, chosen = values_of(cfg), {}
    for name, raw in _that_matter(cfg, settings).items():
        needed = _value(name, raw, source)
        if np.array_equal(values[name], needed):
            continue
        if name in cfg.origins:
            log.warning(
                "%s was trained with %s %s; %s sets it to %s, which stays",
                source,
                name,
                show(needed),
                cfg.origins[name],
                show(values[name]),
            )
        else:
            chosen[name] = needed
    if not chosen:
        return cfg
    log.info(
        "%s needs, so it is set: %s", source, ", ".join(f"{name} {show(v)}" for name, v in chosen.items())
    )
    try:
        return with_values(cfg, chosen, source)
    except UsageError as e:
        raise UsageError(f"{source} needs {', '.join(chosen)}: {'; '.join(str(e).splitlines())}") from e


def configuration_for(weights: Weights, cfg: Config | None, opts: Sequence[str] = ()) -> Config | None:
    """The configuration that weights are used with: the given one, else the one inside the file, else the network that
    the importer recognised; with options on top, and with the keys that the weights need.

    Returns:
        None where nothing says what the network is.

    Raises:
        UsageError: it has faults.
    """
    if cfg is None and weights.metadata.get("config"):
        cfg = parse_config(weights.metadata["config"], weights.source)
    if cfg is None and not opts and "MODEL.CONV_BODY" not in weights.settings:
        return None
    return apply_settings(with_options(cfg or Config(), opts), weights.settings, weights.source)


def settings_in_use(cfg: Config, settings: Mapping[str, object]) -> dict[str, Any]:
    """The same keys with the values that the configuration has, as plain data: what a training hands on."""
    values = values_of(cfg)
    return {name: plain(values[name]) for name in _that_matter(cfg, settings)}


def beyond_defaults(settings: Mapping[str, object], source: str) -> dict[str, Any]:
    """Those that no configuration has by itself. Raises InputError as ``apply_settings``."""
    values = values_of(Config())
    needed = {name: _value(name, raw, source) for name, raw in settings.items()}
    return {name: value for name, value in needed.items() if not np.array_equal(value, values[name])}


def _that_matter(cfg: Config, settings: Mapping[str, object]) -> Mapping[str, object]:
    """Without those of the detector, which the configuration chooses; for another one, those of the backbone alone."""
    if not cfg.MODEL.CONV_BODY:
        return settings
    one_stage = cfg.RETINANET.RETINANET_ON
    other = bool(settings.get("RETINANET.RETINANET_ON" if not one_stage else "FAST_RCNN.ROI_BOX_HEAD"))
    return {
        name: value
        for name, value in settings.items()
        if name not in DETECTOR and (not other or name.startswith(BACKBONE))
    }


def _value(name: str, raw: object, source: str) -> Any:
    if name not in KEYS:
        raise InputError(
            f"{source}: needs the key {name}, which there is not; was it written by a newer version?"
        )
    try:
        return coerce(raw, KEYS[name])
    except ValueError as e:
        raise InputError(f"{source}: needs {name}, and {e}; was it written by a newer version?") from e
