# SPDX-License-Identifier: Apache-2.0
"""report.html of a training run, from what lies in its folders: what `tools/report.py` does, and every training."""

import contextlib
import logging
import platform
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import torch

import detectron_libra
from detectron_libra import machine
from detectron_libra.builders import session
from detectron_libra.builders.set_report import read_set
from detectron_libra.config import Config, diff, parse_config
from detectron_libra.config.dump import show
from detectron_libra.config.fields import values_of
from detectron_libra.engine.saving import FINAL
from detectron_libra.errors import InputError, RunError, UsageError
from detectron_libra.evaluation.files import write_whole
from detectron_libra.report.history import read_history
from detectron_libra.report.run import RunContent, run_page

log = logging.getLogger(__name__)

REPORT, CONFIG, METRICS, LOG = "report.html", "config.yaml", "metrics.jsonl", "log.txt"
#: Lines of a log in which a process says how it computes and what it trains: ``session.start``, ``training.describe``.
_SITTING = re.compile(r"^INFO (?:session|training)\.py: *\d+: (torch .+|.+ parameters .+)$", re.MULTILINE)
#: The sentence of ``pace.conclude`` about a loader that did not keep up.
_SLOW = re.compile(r"^INFO pace\.py: *\d+: (the loader was the bottleneck.+)$", re.MULTILINE)


@contextlib.contextmanager
def reported(folder: Path) -> Iterator[None]:
    """Around a training and its test: writes the report after them, however they end.

    Raises:
        RunError: the report of a run that did not fail cannot be written.
    """
    try:
        yield
    except (InputError, RunError, SystemExit):
        if (folder / CONFIG).is_file():
            try:
                write_report(folder)
            except Exception as e:  # the run's own end is what has to be told
                log.warning("%s could not be written: %s", folder / REPORT, e)
        raise
    log.info("report: %s", write_report(folder))


def write_report(folder: Path) -> Path:
    """Write report.html of a run, finished or not, into its folder.

    Args:
        folder: of a training; holds config.yaml.

    Returns:
        Path of the report.

    Raises:
        InputError: no run, or its configuration cannot be read. RunError: the report cannot be written.
    """
    content = read_run(folder)
    return write_whole(folder / REPORT, run_page(content).encode("utf-8"))


def find_run(folder: Path) -> Path:
    """The folder of a training: ``folder`` itself, or the only one below it where it is an OUTPUT_DIR.

    Raises:
        InputError: there is none. UsageError: there are several.
    """
    if (folder / CONFIG).is_file():
        return folder
    found = sorted(file.parent for file in folder.glob(f"train/*/*/{CONFIG}"))
    if not found:
        raise InputError(f"{folder}: no {CONFIG} in it; name the folder of a training, OUTPUT_DIR/train/…")
    if len(found) > 1:
        raise UsageError(f"{folder}: several trainings, name one of them: {', '.join(map(str, found))}")
    return found[0]


def read_run(folder: Path) -> RunContent:
    """What lies in the folders of a run; what is missing or cannot be read is told in the page.

    Raises:
        InputError: the configuration cannot be read.
    """
    text = _text(folder / CONFIG)
    if not text:
        raise InputError(f"{folder / CONFIG}: not there or empty; is this the folder of a training?")
    cfg = parse_config(text, str(folder / CONFIG))
    output = output_folder(cfg, folder)
    weights = folder / FINAL
    log_text = _text(folder / LOG)
    tests = [read_set(cfg, output, name, weights) for name in cfg.TEST.DATASETS]
    return RunContent(
        title=f"Training of {session.model_type(cfg)} on {', '.join(cfg.TRAIN.DATASETS)}",
        facts=_facts(cfg),
        max_iter=cfg.SOLVER.MAX_ITER,
        eval_period=cfg.TRAIN.EVAL_PERIOD,
        finished=weights.is_file(),
        history=read_history(_text(folder / METRICS).splitlines()),
        tests=tests,
        changed=_changed(cfg),
        config_text=text,
        sittings=list(dict.fromkeys(_SITTING.findall(log_text))),
        advice=_SLOW.findall(log_text)[-1:],
        versions=_versions(),
    )


def output_folder(cfg: Config, folder: Path) -> Path:
    """OUTPUT_DIR of a run as it lies now; it may have been moved since it was trained."""
    depth = len(session.train_folder(cfg).parts) - len(Path(cfg.OUTPUT_DIR).parts)
    return folder.resolve().parents[depth - 1]


def _facts(cfg: Config) -> dict[str, object]:
    return {
        "Model": f"{session.model_type(cfg)}, {cfg.MODEL.CONV_BODY}",
        "Libra parts": session.libra_parts(cfg),
        "Trained on": ", ".join(cfg.TRAIN.DATASETS),
        "Images per step": cfg.TRAIN.IMS_PER_BATCH,
    }


def _changed(cfg: Config) -> list[tuple[str, str, str]]:
    default = Config()
    before, after = values_of(default), values_of(cfg)
    names = [line.partition(":")[0] for line in diff(default, cfg)]
    return [(name, show(after[name]), show(before[name])) for name in names]


def _versions() -> dict[str, object]:
    """Of this process and its machine, whose name stays out."""
    gpu = machine.gpu() if torch.cuda.is_available() else {}
    return {
        "Date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "detectron_libra": detectron_libra.__version__,
        "Commit": machine.commit(),
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "Python": platform.python_version(),
        "System": f"{platform.system()} {platform.machine()}",
        "CPU": f"{machine.cpu_name()}, {machine.cores()} cores",
        "GPU": f"{gpu['cuda_device']}, driver {gpu['driver']}" if gpu else None,
    }


def _text(file: Path) -> str:
    """What a file holds; nothing where it cannot be read."""
    try:
        # a log may be a device that never ends
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    except OSError:
        return ""
