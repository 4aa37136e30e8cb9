# SPDX-License-Identifier: Apache-2.0
"""What a user can cause: each kind of error carries the exit code that the tools return for it."""

import re

#: Letters that end a line or steer a terminal; names of files and classes may have them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """The text with its control characters written as escapes, so that nobody's file name makes a line of its own."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class LibraError(Exception):
    """An error for the user: what is wrong, where, and the remedy.

    Args:
        lines: one line, or one per thing that is wrong.
    """

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        super().__init__(*map(one_line, lines))

    def __str__(self) -> str:
        return "\n".join(self.args)


class UsageError(LibraError):
    """A flag, a configuration key, or an output folder that cannot be used."""

    exit_code = 2


class InputError(LibraError):
    """A file that is read: data set, image, weights or checkpoint."""

    exit_code = 3


class RunError(LibraError):
    """Stopped while running: non-finite loss, memory, disk, a worker that died."""

    exit_code = 4
