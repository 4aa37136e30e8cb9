# SPDX-License-Identifier: Apache-2.0
"""What a user can cause: each kind of error carries the exit code that the tools return for it."""


class LibraError(Exception):
    """An error with a one-line message for the user: what is wrong, where, and the remedy."""

    exit_code = 1


class UsageError(LibraError):
    """A flag, a configuration key, or an output folder that cannot be used."""

    exit_code = 2


class InputError(LibraError):
    """A file that is read: data set, image, weights or checkpoint."""

    exit_code = 3


class RunError(LibraError):
    """Stopped while running: non-finite loss, memory, disk, a worker that died."""

    exit_code = 4
