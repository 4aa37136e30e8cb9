# SPDX-License-Identifier: Apache-2.0
"""Files whose names differ from a wanted one in the case of letters alone."""

from __future__ import annotations

import os


class Letters:
    """Each folder is listed once, however many of its files are asked for.

    What it knows of a folder is that of the first question: make one for a pass over a data set.
    """

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, list[str]]] = {}

    def twins(self, folder: str, name: str) -> list[str]:
        """Names in a folder that equal ``name`` but for the case of letters; none where it cannot be listed."""
        if folder not in self._folders:
            self._folders[folder] = _by_lower_case(folder)
        return self._folders[folder].get(name.lower(), [])


def _by_lower_case(folder: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        names = os.listdir(folder or ".")
    except (OSError, ValueError):
        return {}
    for name in names:
        found.setdefault(name.lower(), []).append(name)
    return found
