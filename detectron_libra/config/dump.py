# SPDX-License-Identifier: Apache-2.0
"""A configuration as text: YAML that loads back equal, the difference of two, the table of all keys."""

from typing import Any

import numpy as np
import yaml

from detectron_libra.config.decode import decode, shorten
from detectron_libra.config.fields import Key, sections, values_of
from detectron_libra.config.schema import KEYS, Config


def dump(cfg: Config) -> str:
    """Every key as plain YAML; ``parse_config`` reads it back equal, floats to the last bit."""
    tree: dict[str, Any] = {}
    for name, value in values_of(cfg).items():
        *path, leaf = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = plain(value)
    return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)


def diff(old: Config, new: Config) -> list[str]:
    """``KEY: old -> new`` for every key that differs."""
    before, after = values_of(old), values_of(new)
    lines = []
    for name, value in before.items():
        if not np.array_equal(value, after[name]) if isinstance(value, np.ndarray) else value != after[name]:
            lines.append(f"{name}: {show(value)} -> {show(after[name])}")
    return lines


def show(value: Any) -> str:
    """A value as a user would write it on the command line."""
    return repr(plain(value)) if not isinstance(value, tuple) else repr(value)


def markdown() -> str:
    """The reference of all keys, made from their declarations."""
    lines = [
        "# Configuration keys",
        "",
        "Made by `python tools/print_config.py --markdown > docs/keys.md`; do not edit.",
        "Keys marked *no effect* parse so that Detectron's files do.",
    ]
    groups: dict[str, list[str]] = {"": []}
    for name in sections(Config):
        groups[name] = []
    for name, key in KEYS.items():
        groups[name.rpartition(".")[0]].append(_row(name, key))
    titles = {"": "The whole run."} | {name: (cls.__doc__ or "") for name, cls in sections(Config).items()}
    for group, rows in groups.items():
        if rows:
            lines += ["", f"## {group or 'Top level'}", "", titles[group], ""]
            lines += ["| key | default | range | meaning |", "|---|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def plain(value: Any) -> Any:
    """A value of a key as plain data, which YAML and JSON can hold and ``decode.coerce`` takes back."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return [v if isinstance(v, str) else plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if (
        isinstance(value, str)
        and decode(value) is not value
        and (decode(value) is None or isinstance(decode(value), str))
    ):
        return repr(value)  # text that would be read as something else
    return value


def _row(name: str, key: Key) -> str:
    default = key.shown or f"`{show(key.default)}`"
    meaning = f"{'*no effect* ' if key.unused else ''}{key.doc}"
    return f"| `{name}` | {default} | {_range(key)} | {meaning} |".replace("\n", " ")


def _range(key: Key) -> str:
    if key.choices:
        return ", ".join(f"`{shorten(c)}`" for c in key.choices)
    parts = [f"> {key.above}"] if key.above is not None else []
    parts += [f">= {key.min}"] if key.min is not None else []
    parts += [f"<= {key.max}"] if key.max is not None else []
    kind = f"{key.kind.__name__} of {key.of.__name__}" if key.of else key.kind.__name__
    kind = {"float64": "float", "ndarray": "numbers"}.get(kind, kind)
    return " ".join([kind, ", ".join(parts), key.unit]).strip()
