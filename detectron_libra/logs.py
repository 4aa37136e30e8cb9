# SPDX-License-Identifier: Apache-2.0
"""Where log lines go: the screen, beside a progress bar, and a file."""

import contextlib
import logging
import os
import sys

from tqdm import tqdm

from detectron_libra.errors import UsageError, one_line

LOG_FORMAT = "%(levelname)s %(filename)s:%(lineno)4d: %(message)s"
#: Lines for programs; on a terminal the progress bar says the same.
FOR_PROGRAMS = "detectron_libra.json_stats"


def setup_logging(log_file: str | os.PathLike | None = None) -> None:
    """Send the log to stdout, and to a file as well; what cannot be written stops nothing.

    Raises:
        UsageError: the file cannot be opened.
    """
    handlers: list[logging.Handler] = [_Console(sys.stdout)]
    if log_file is not None:
        try:
            handlers.append(_LogFile(log_file, encoding="utf-8", errors="backslashreplace"))
        except OSError as e:
            raise UsageError(f"{os.fspath(log_file)}: the log cannot be written: {e.strerror}") from None
    for handler in handlers:
        handler.setFormatter(_Format(LOG_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)


class _Format(logging.Formatter):
    """Detectron's format; lines for programs stand alone, as Detectron prints them.

    A message may have lines, tables do; what else is in a name of a file or a class must not steer a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        if record.name == FOR_PROGRAMS:
            return record.getMessage()
        return "\n".join(map(one_line, super().format(record).split("\n")))


class _SaysItOnce(logging.Handler):
    """A handler whose disk may fill up: one line says so, and nothing stops."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.failed:
            self.failed = True
            where = getattr(self, "baseFilename", "stdout")
            with contextlib.suppress(OSError):
                print(f"warning: {where}: {sys.exc_info()[1]}; the log is incomplete", file=sys.stderr)


class _Console(_SaysItOnce, logging.StreamHandler):
    """Log lines that do not run into a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == FOR_PROGRAMS and self.stream.isatty():
            return
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


class _LogFile(_SaysItOnce, logging.FileHandler):
    """A log file that closes whatever its disk says."""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()
