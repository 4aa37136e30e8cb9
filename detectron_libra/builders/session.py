# SPDX-License-Identifier: Apache-2.0
"""What a process sets once, before it computes anything: device, threads, backend of the operators, random numbers."""

import logging
import os
import random
from pathlib import Path

import numpy as np
import torch
from torch import nn

from detectron_libra.config.schema import Config
from detectron_libra.engine.cpu import tune_cpu
from detectron_libra.errors import UsageError
from detectron_libra.ops import backend

log = logging.getLogger(__name__)


def pick_device(cfg: Config) -> torch.device:
    """The device that DEVICE asks for.

    Raises:
        UsageError: a GPU is asked for and there is none.
    """
    if cfg.DEVICE == "cuda" and not torch.cuda.is_available():
        raise UsageError("DEVICE: cuda, but torch sees no GPU; set it to auto or cpu")
    use_gpu = cfg.DEVICE != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def start(cfg: Config) -> torch.device:
    """Set up the process and log how it will compute.

    Returns:
        The device of the model.
    """
    settings = tune_cpu(
        threads=cfg.CPU.THREADS, flush_denormal=cfg.CPU.FLUSH_DENORMAL, tune_malloc=cfg.CPU.TUNE_MALLOC
    )
    device = pick_device(cfg)
    backend.set_backend(cfg.OPS.BACKEND)
    if cfg.DETERMINISTIC:
        # cuBLAS reads it when it starts; without it some products differ from run to run.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    log.info("torch %s on %s; %s; %s", torch.__version__, device, settings, backend.describe())
    return device


def place(cfg: Config, model: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device, in the memory format of CHANNELS_LAST."""
    layout = torch.channels_last if cfg.CHANNELS_LAST else torch.contiguous_format
    return model.to(device, memory_format=layout)  # type: ignore[call-overload]


def seed(number: int) -> None:
    """Start every generator of random numbers anew."""
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002  for libraries that use the global generator
    torch.manual_seed(number)


def train_folder(cfg: Config) -> Path:
    """OUTPUT_DIR/train/<data sets joined by ':'>/<MODEL.TYPE>, as Detectron has it."""
    return Path(cfg.OUTPUT_DIR) / "train" / ":".join(cfg.TRAIN.DATASETS) / model_type(cfg)


def test_folder(cfg: Config, dataset: str) -> Path:
    """OUTPUT_DIR/test/<data set>/<MODEL.TYPE>, as Detectron has it."""
    return Path(cfg.OUTPUT_DIR) / "test" / dataset / model_type(cfg)


def model_type(cfg: Config) -> str:
    """MODEL.TYPE, which names folders."""
    return cfg.MODEL.TYPE or ("retinanet" if cfg.RETINANET.RETINANET_ON else "generalized_rcnn")


def libra_parts(cfg: Config) -> str:
    """Names of the parts of Libra R-CNN that are switched on."""
    libra = cfg.LIBRA
    parts = {
        "balanced L1": libra.BALANCED_L1.ON,
        "balanced pyramid": libra.PYRAMID.ON,
        "IoU-balanced sampling": libra.IOU_SAMPLING.ON,
        "instance-balanced sampling": libra.INSTANCE_SAMPLING.ON,
    }
    return ", ".join(name for name, on in parts.items() if on) or "none"
