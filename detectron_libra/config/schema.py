# SPDX-License-Identifier: Apache-2.0
"""Every configuration key: its type, default, unit, range and meaning.

Names and defaults of Detectron's own keys are Detectron's (core/config.py): a plain Detectron YAML gives
plain Detectron. Sections and the whole are frozen: nothing changes a configuration once it is loaded.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from detectron_libra.config.fields import Key, flatten, key, section, values_of
from detectron_libra.config.schema_imbalance import Assigner
from detectron_libra.config.schema_libra import Libra, Loss
from detectron_libra.config.schema_model import FastRcnn, Fpn, GroupNorm, Model, Resnets, Retinanet, Rpn
from detectron_libra.config.schema_test import Test
from detectron_libra.config.schema_train import Data, DataLoader, Solver, Train
from detectron_libra.config.schema_unused import Cluster, Krcnn, Mrcnn, Rfcn

#: Detectron's bound on the logarithm of a box's growth: a box of 16 px becomes at most 1000 px.
LARGEST_LOG_GROWTH = np.log(1000.0 / 16.0)


def _root_dir():
    doc = "Folder that relative paths of old files start from."
    metadata = {"key": Key("", doc, shown="the working directory", unused=True)}
    return field(default_factory=os.getcwd, metadata=metadata)


@dataclass(frozen=True)
class Ops:
    """The fused operators."""

    BACKEND: str = key(
        "auto",
        "compiled refuses to start without the kernels; auto says so and uses plain PyTorch.",
        choices=("auto", "compiled", "reference"),
    )


@dataclass(frozen=True)
class Cpu:
    """Settings of the processor, for speed."""

    THREADS: int = key(0, "Threads of PyTorch; 0: its own choice.", min=0)
    FLUSH_DENORMAL: bool = key(True, "Treat tiny numbers as zero.")
    TUNE_MALLOC: bool = key(True, "Tell glibc to keep freed memory.")


@dataclass(frozen=True)
class Log:
    """What is logged."""

    PERIOD: int = key(20, "Iterations between lines of the log.", min=1)


@dataclass(frozen=True)
class Shapes:
    """A generated data set of shapes (DATASETS: {name: {SHAPES: {...}, DIR: folder}})."""

    IMAGES: int = key(200, "Number of images.", min=1)
    SIZE: tuple[int, ...] = key((160, 160), "Height and width.", unit="px", of=int, length=2, min=16)
    CLASSES: tuple[str, ...] = key(("circle", "square", "triangle"), "Kinds of shapes.", of=str)
    IMBALANCE: float = key(1.0, "How much rarer each class is than the one before.", min=1)
    CROWDING: float = key(0.0, "How close together shapes lie.", min=0, max=1)
    MAX_OBJECTS: int = key(6, "Largest number of shapes in an image.", min=1)
    SEED: int = key(0, "Seed of the random numbers.", min=0)


@dataclass(frozen=True, eq=False)
class Config:
    """The whole configuration; ``cfg.LIBRA.PYRAMID.ON`` reads a key."""

    MODEL: Model = section(Model)
    LIBRA: Libra = section(Libra)
    LOSS: Loss = section(Loss)
    ASSIGNER: Assigner = section(Assigner)
    RETINANET: Retinanet = section(Retinanet)
    FAST_RCNN: FastRcnn = section(FastRcnn)
    RPN: Rpn = section(Rpn)
    FPN: Fpn = section(Fpn)
    RESNETS: Resnets = section(Resnets)
    GROUP_NORM: GroupNorm = section(GroupNorm)
    TRAIN: Train = section(Train)
    SOLVER: Solver = section(Solver)
    TEST: Test = section(Test)
    DATASETS: dict = key(
        {}, "Declared data sets: name -> {IM_DIR, ANN_FN}, {VOC_DIR, SPLIT} or {SHAPES: {...}, DIR}."
    )
    DATA: Data = section(Data)
    DATA_LOADER: DataLoader = section(DataLoader)
    OPS: Ops = section(Ops)
    CPU: Cpu = section(Cpu)
    LOG: Log = section(Log)
    MRCNN: Mrcnn = section(Mrcnn)
    KRCNN: Krcnn = section(Krcnn)
    RFCN: Rfcn = section(Rfcn)
    CLUSTER: Cluster = section(Cluster)
    DEVICE: str = key(
        "auto", "Where the model runs; auto: a GPU where there is one.", choices=("auto", "cpu", "cuda")
    )
    DETERMINISTIC: bool = key(False, "The same seed gives the same run, on a GPU too.")
    CHANNELS_LAST: bool = key(True, "Memory format of images and features.")
    NUM_GPUS: int = key(1, "Number of processes that the schedule was made for.", min=0)
    USE_NCCL: bool = key(False, "Caffe2's choice of communication.", unused=True)
    DEDUP_BOXES: float = key(0.0625, "Precomputed proposals equal at this scale are one; 0: off.", min=0)
    BBOX_XFORM_CLIP: float = key(LARGEST_LOG_GROWTH, "Bound of the logarithm of a box's growth.", above=0)
    PIXEL_MEANS: np.ndarray = key(
        np.array([[[102.9801, 115.9465, 122.7717]]]),
        "Subtracted from the channels, in PIXEL_ORDER.",
        length=3,
    )
    PIXEL_STDS: np.ndarray = key(
        np.ones((1, 1, 3)), "Divides the channels, in PIXEL_ORDER.", length=3, above=0
    )
    PIXEL_ORDER: str = key("BGR", "Order of the model's input channels.", choices=("BGR", "RGB"))
    RNG_SEED: int = key(3, "Seed of every random number.", min=0)
    EPS: float = key(1e-14, "A small number.", unused=True)
    ROOT_DIR: str = _root_dir()
    OUTPUT_DIR: str = key("/tmp", "Folder that everything is written below.")
    MATLAB: str = key("matlab", "Command of MATLAB.", unused=True)
    MEMONGER: bool = key(True, "Caffe2's memory saving.", unused=True)
    MEMONGER_SHARE_ACTIVATIONS: bool = key(False, "Caffe2's memory saving.", unused=True)
    VIS: bool = key(False, "A picture of the detections of every image, as Detectron's (see TEST.PICTURES).")
    VIS_TH: float = key(0.9, "Score of the boxes in these pictures.", min=0, max=1)
    EXPECTED_RESULTS: list = key([], "[[set, task, metric, value or [mean, deviation]], ...] to be reached.")
    EXPECTED_RESULTS_RTOL: float = key(0.1, "Relative tolerance.", min=0)
    EXPECTED_RESULTS_ATOL: float = key(0.005, "Absolute tolerance.", min=0)
    EXPECTED_RESULTS_SIGMA_TOL: int = key(4, "Tolerance in deviations.", min=0)
    EXPECTED_RESULTS_EMAIL: str = key("", "Detectron sent mail.", unused=True)
    DOWNLOAD_CACHE: str = key(
        "/tmp/detectron-download-cache", "Folder of what is downloaded once (http, https)."
    )
    #: No key: where each key that somebody set was set, as ``file:line`` or option.
    origins: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __eq__(self, other: object) -> bool:
        """Equal when every value is; arrays are compared element by element."""
        if not isinstance(other, Config):
            return NotImplemented
        mine, theirs = values_of(self), values_of(other)
        return all(
            np.array_equal(v, theirs[k]) if isinstance(v, np.ndarray) else v == theirs[k]
            for k, v in mine.items()
        )

    __hash__ = None  # type: ignore[assignment]


#: Every key of the configuration: dotted name -> what is known about it.
KEYS: dict[str, Key] = flatten(Config)
