# SPDX-License-Identifier: Apache-2.0
"""Options, pairs, exit codes and output of the tools."""

import errno
import io
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from detectron_libra import cli, logs
from detectron_libra.errors import InputError, RunError, UsageError

ROOT = Path(__file__).parents[1]


def train_parser():
    parser = cli.Parser()
    parser.add_argument("--cfg")
    parser.add_argument("--skip-test", action="store_true")
    parser.add_argument("--range", nargs=2, type=int)
    parser.add_argument("--parts", nargs="+")
    return parser


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        (["--cfg", "c", "--skip-test", "DEVICE", "cpu"], ["DEVICE", "cpu"]),
        (["DEVICE", "cpu", "--skip-test", "--cfg=c"], ["DEVICE", "cpu"]),
        (
            ["SOLVER.BASE_LR", "-1", "--cfg", "c", "EPS", "-.5", "--skip-test"],
            ["SOLVER.BASE_LR", "-1", "EPS", "-.5"],
        ),
        (["TRAIN.SCALES", "(96,)", "--cfg", "c", "--skip-test", "DATASETS", '{"a": 1}'], None),
        (["--cfg", "c", "OUTPUT_DIR", "-odd", "--skip-test"], ["OUTPUT_DIR", "-odd"]),
    ],
)
def test_options_stand_before_and_after_pairs(line, pairs):
    args, opts = cli.parse(line, train_parser())
    assert args.cfg == "c" and args.skip_test
    assert opts == (pairs or ["TRAIN.SCALES", "(96,)", "DATASETS", '{"a": 1}'])


def test_options_take_as_many_words_as_they_should():
    args, opts = cli.parse(["--range", "3", "-1", "--parts", "a", "b", "DEVICE", "cpu"], train_parser())
    assert (args.range, args.parts, opts) == ([3, -1], ["a", "b"], ["DEVICE", "cpu"])


def test_positional_words_and_pairs_together():
    parser = cli.Parser()
    parser.add_argument("image")
    parser.add_argument("--wts")
    args, opts = cli.parse(["TEST.SCALE", "96", "IMG_01.JPG", "--wts", "w"], parser)
    assert (args.image, args.wts, opts) == ("IMG_01.JPG", "w", ["TEST.SCALE", "96"])
    parser = train_parser()
    parser.add_argument("paths", nargs="*")
    args, opts = cli.parse(["images", "--parts", "x", "--skip-test", "a.json", "DEVICE", "cpu"], parser)
    assert (args.paths, args.parts, opts) == (["images", "a.json"], ["x"], ["DEVICE", "cpu"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--bogus"], "--bogus: unknown option"),
        (["--skip"], "--skip: unknown option"),
        (["DEVICE", "cpu", "--bogus", "1"], "--bogus: unknown option"),
        (["--cfg"], "--cfg: the option needs an argument"),
        (["DEVICE"], "DEVICE: the key has no value"),
        (["DEVICE", "--skip-test"], "DEVICE: the key has no value"),
        (["--range", "1", "a"], "--range"),
        (["--skip-test=1"], "--skip-test"),
    ],
)
def test_wrong_options_are_usage_errors(line, message):
    with pytest.raises(UsageError) as e:
        cli.parse(line, train_parser())
    assert message in str(e.value)


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (UsageError("a"), 2, "error: a"),
        (InputError("b"), 3, "error: b"),
        (RunError("c"), 4, "error: c"),
        (MemoryError(), 4, "error: out of memory"),
        (RuntimeError("CUDA out of memory. Tried\nto"), 4, "error: out of memory"),
        (OSError(errno.EMFILE, "Too many open files"), 4, "error: Too many open files; raise the limit"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/x"),
            4,
            "error: out/x: No space left on device; ",
        ),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (KeyError(2), 1, "error: internal error (a bug of ours): KeyError: 2; run with --debug"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(capsys, raised, code, line):
    def main(argv):
        raise raised

    assert cli.run(main, []) == code
    err = capsys.readouterr().err
    assert err.startswith(line) and len(err.splitlines()) == 1
    assert cli.run(main, ["--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_run_returns_what_main_returns():
    assert cli.run(lambda argv: None, []) == 0
    assert cli.run(lambda argv: len(argv) + 4, ["x", "--debug"]) == 5
    with pytest.raises(SystemExit):
        cli.run(lambda argv: sys.exit(143), [])


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield root
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:], root.level = before


def test_the_log_has_detectrons_format_and_goes_to_a_file(capsys, tmp_path, root_logger):
    logs.setup_logging(tmp_path / "log.txt")
    logging.getLogger("x").info("ünï")
    assert capsys.readouterr().out.startswith("INFO test_cli.py: ")
    assert "ünï" in (tmp_path / "log.txt").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="the log cannot be written"):
        logs.setup_logging(tmp_path / "absent" / "log.txt")


def test_a_name_in_the_log_cannot_steer_the_terminal(capsys, root_logger):
    logs.setup_logging()
    logging.getLogger("x").info("class %s\nnext", "a\x1b[2J")
    assert r"class a\x1b[2J" in capsys.readouterr().out


def test_an_error_has_the_lines_that_it_was_given_and_no_others(capsys):
    def main(argv):
        raise UsageError("a\nerror: b\u2028c", "d")

    assert cli.run(main, []) == 2
    assert capsys.readouterr().err == "error: a\\nerror: b\\u2028c\nerror: d\n"
    error = pickle.loads(pickle.dumps(InputError("a", "b")))
    assert str(error) == "a\nb" and error.exit_code == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_stops_no_run(capsys, root_logger):
    logs.setup_logging("/dev/full")
    for _ in range(3):
        logging.getLogger("x").info("line")
    assert capsys.readouterr().err.count("warning: /dev/full") == 1


def tool(*args, **env):
    command = [sys.executable, str(ROOT / "tools/print_config.py"), *args]
    return subprocess.run(command, env={**os.environ, **env}, cwd=ROOT, capture_output=True, check=False)


def test_names_that_the_locale_lacks_do_not_stop_a_tool():
    done = tool("--changed", "OUTPUT_DIR", "été", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0 and b"OUTPUT_DIR" in done.stdout, done.stderr
    done = tool("ÉTÉ", "1", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 2 and done.stderr.startswith(b"error: command line, option 1"), done.stderr


def test_a_reader_that_goes_away_leaves_no_trace():
    command = f"{sys.executable} tools/print_config.py | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


TALKER = """
import logging, os, sys
from detectron_libra import cli, logs

def main(argv):
    logs.setup_logging()
    with open(argv[0], "w"):
        logging.getLogger("x").info("a line")
        logging.getLogger(logs.FOR_PROGRAMS).info("another")
        print("a third")
        os.write(1, b"of a library")
        os.write(2, b"of a library")
        os.read(0, 1)
    return os.path.getsize(argv[0])

sys.exit(cli.run(main))
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_is_printed_where_everything_is_closed_lands_in_no_file(tmp_path, closed):
    (tmp_path / "talker.py").write_text(TALKER)
    command = f"{sys.executable} {tmp_path}/talker.py {tmp_path}/kept </dev/null {closed}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0 and b"Traceback" not in done.stdout + done.stderr, done.stderr


class FullDisk(io.StringIO):
    """Where nothing more fits."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_screen_stops_no_run_and_is_told_once(capsys, monkeypatch, root_logger):
    monkeypatch.setattr("sys.stdout", FullDisk())
    logs.setup_logging()
    for _ in range(3):
        logging.getLogger("x").info("a line")
    told = capsys.readouterr().err
    assert told.count("the log is incomplete") == 1 and "Traceback" not in told
