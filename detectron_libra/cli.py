# SPDX-License-Identifier: Apache-2.0
"""What every tool shares: options around ``KEY VALUE`` pairs, the log, a line and an exit code per error."""

import argparse
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from detectron_libra.config.load import SECTIONS
from detectron_libra.config.schema import KEYS
from detectron_libra.errors import LibraError, RunError, UsageError

#: Exit code of a process that a signal from the keyboard ended.
INTERRUPTED = 130
#: Descriptor of stderr, the last of the three that every program begins with.
_LAST_STANDARD = 2
#: In errors of torch about it.
_SHARED_MEMORY = "shared memory"
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
#: Limits of the machine that any file or process may meet, and what to do.
_LIMITS = {
    errno.EMFILE: "raise the limit on open files (ulimit -n) or lower DATA_LOADER.NUM_THREADS",
    errno.ENFILE: "the machine has too many open files; close other programs",
    errno.EAGAIN: "raise the limit on processes (ulimit -u) or lower DATA_LOADER.NUM_THREADS",
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room: a quota is used up",
}


def parse(argv: Sequence[str], parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """Options of a tool and ``KEY VALUE`` pairs, in any order.

    A value may begin with a dash (``SOLVER.WEIGHT_DECAY -1``) or a bracket. With a parser that has positional
    arguments, only words that begin with the name of a key or a section are taken for keys.

    Returns:
        (the parser's namespace, [KEY, VALUE, KEY, VALUE, ...]).
    Raises:
        UsageError: an option that does not exist or lacks its argument, or a key without a value.
    """
    options = parser._option_string_actions  # argparse has no public list of its options
    takes_words = any(not a.option_strings for a in parser._actions)
    words, flags, places, pairs = list(argv), [], [], []
    while words:
        word = words.pop(0)
        name, joined, _ = word.partition("=")
        if name in options:
            flags += _option(word, options[name], words, joined=bool(joined))
        elif _is_flag(word):
            raise UsageError(f"{word}: unknown option; --help lists them")
        elif takes_words and not _is_key(word):
            places.append(word)
        elif not words or words[0].partition("=")[0] in options:
            raise UsageError(f"{word}: the key has no value; options are pairs of KEY and VALUE")
        else:
            pairs += [word, words.pop(0)]
    try:
        return parser.parse_args([*places, *flags]), pairs
    except argparse.ArgumentError as e:
        raise UsageError(str(e)) from None


def run(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Call a tool's ``main`` and turn what it raises into a line on stderr and an exit code.

    ``--debug`` anywhere, or LIBRA_DEBUG=1, shows the traceback too.

    Returns:
        The exit code: what ``main`` returns (None is 0); 2, 3, 4 as the error's class says; 130 for Ctrl-C;
        1 for a bug of ours.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or os.environ.get("LIBRA_DEBUG", "") not in ("", "0")
    _open_what_is_closed()
    _guard_stdout()
    try:
        return main([w for w in words if w != "--debug"]) or 0
    except KeyboardInterrupt:
        return _report("interrupted", INTERRUPTED, debug)
    except LibraError as e:
        return _report(str(e), e.exit_code, debug)
    except BrokenPipeError:
        return 0  # whoever read our output had enough of it
    except Exception as e:
        text = " ".join(str(e).split())
        if isinstance(e, MemoryError) or any(phrase in text.lower() for phrase in _OUT_OF_MEMORY):
            remedy = "lower TRAIN.IMS_PER_BATCH, TRAIN.SCALES or DATA.WORKERS"
            return _report(f"out of memory: {text or 'no more of it'}; {remedy}", RunError.exit_code, debug)
        if isinstance(e, RuntimeError) and _SHARED_MEMORY in text:
            remedy = "make /dev/shm writable and larger, or set DATA.WORKERS 0"
            return _report(f"{text}; {remedy}", RunError.exit_code, debug)
        if isinstance(e, OSError) and e.errno in _LIMITS:
            where = f"{e.filename}: " if e.filename else ""
            return _report(f"{where}{e.strerror}; {_LIMITS[e.errno]}", RunError.exit_code, debug)
        return _report(
            f"internal error (a bug of ours): {type(e).__name__}: {text}; run with --debug", 1, debug
        )


def boolean(text: str) -> bool:
    """For an option that takes true or false.

    Raises:
        argparse.ArgumentTypeError: another word.
    """
    word = text.lower()
    if word not in ("true", "false", "1", "0", "yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return word in ("true", "1", "yes")


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not word[1:2].isdigit() and word not in ("-", "--")


def _is_key(word: str) -> bool:
    return word in KEYS or word in SECTIONS or word.partition(".")[0] in {*SECTIONS, "DATASETS"}


def _option(word: str, action: argparse.Action, words: list[str], *, joined: bool) -> list[str]:
    """An option and the arguments that belong to it, taken off ``words``."""
    if action.nargs == 0 or joined:
        return [word]
    if action.nargs is None:
        if not words:
            raise UsageError(f"{word}: the option needs an argument")
        return [f"{word}={words.pop(0)}"]  # one word, so that the argument may begin with a dash
    taken = [word]
    limit = action.nargs if isinstance(action.nargs, int) else 1 if action.nargs == "?" else len(words)
    while words and len(taken) <= limit and not _is_flag(words[0]) and not _is_key(words[0]):
        taken.append(words.pop(0))
    return taken


def _report(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    for line in message.splitlines() or [""]:
        print(f"error: {line}", file=sys.stderr)
    return code


def _open_what_is_closed() -> None:
    """Something for the descriptors 0 to 2 to point at, and for the streams that Python leaves out without them.

    The next file that is opened, a checkpoint perhaps, would take such a number, and what libraries print would land
    in it.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD:
        pass  # the lowest free number
    os.close(handle)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115  for as long as the process is
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _guard_stdout() -> None:
    """Make stdout survive a reader that goes away and names that its encoding lacks."""
    if type(sys.stdout) is io.TextIOWrapper:
        sys.stdout.flush()
        sys.stdout = _Stdout(
            sys.stdout.buffer,
            encoding=sys.stdout.encoding,
            errors="backslashreplace",
            line_buffering=sys.stdout.line_buffering,
        )


class Parser(argparse.ArgumentParser):
    """argparse with our kind of error: one line, exit code 2, no abbreviated options."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


class _Stdout(io.TextIOWrapper):
    """Text to a pipe; when its reader has gone, to nowhere, and the work goes on."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._to_nowhere()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._to_nowhere()

    def _to_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def check_writable(option: str, file: Path) -> None:
    """Refuse a file that a tool is to write at its end: now rather than after minutes of work.

    Args:
        option: as the user writes it, such as ``--json``.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        file.parent.mkdir(parents=True, exist_ok=True)
        probe = file.with_name(f"{file.name}.tmp{os.getpid()}")
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise UsageError(f"{option} {file}: cannot be written ({e.strerror})") from None
