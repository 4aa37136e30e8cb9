# SPDX-License-Identifier: Apache-2.0
"""Keys of training: what is read, how the batches are made, how the weights move."""

from dataclasses import dataclass

from detectron_libra.config.fields import key, section
from detectron_libra.config.schema_imbalance import Sampler


@dataclass(frozen=True)
class Train:
    """Training: data, batches, sampling of anchors and proposals, checkpoints."""

    WEIGHTS: str = key(
        "",
        "Weights to start from: path or address of any file that is read (docs/weights.md); empty: random.",
    )
    DATASETS: tuple[str, ...] = key((), "Names of the training sets.", of=str)
    SCALES: tuple[int, ...] = key((600,), "Shorter side; one is drawn per image.", unit="px", of=int, min=1)
    MAX_SIZE: int = key(1000, "Upper bound of the longer side.", unit="px", min=1)
    IMS_PER_BATCH: int = key(2, "Images per step and process (per GPU).", min=1)
    BATCH_SIZE_PER_IM: int = key(64, "Proposals per image that the Fast R-CNN head is trained on.", min=1)
    FG_FRACTION: float = key(0.25, "Largest share of positives among these proposals.", min=0, max=1)
    FG_THRESH: float = key(0.5, "A proposal is positive from this IoU on.", min=0, max=1)
    BG_THRESH_HI: float = key(0.5, "A proposal is negative below this IoU.", min=0, max=1)
    BG_THRESH_LO: float = key(0.0, "A proposal is negative from this IoU on.", min=0, max=1)
    USE_FLIPPED: bool = key(True, "Train on every image and on its mirror image.")
    BBOX_THRESH: float = key(0.5, "IoU from which a positive proposal learns a box too.", min=0, max=1)
    SNAPSHOT_ITERS: int = key(80000, "Iterations between checkpoints, divided by NUM_GPUS.", min=1)
    PROPOSAL_FILES: tuple[str, ...] = key((), "Proposal files, one per training set.", of=str)
    ASPECT_GROUPING: bool = key(True, "Make batches of images that are all wide or all tall.")
    GENERATE_PROPOSALS_ON_GPU: bool = key(False, "Proposals are made where the model is.", unused=True)
    RPN_POSITIVE_OVERLAP: float = key(0.7, "An anchor is positive from this IoU on.", min=0, max=1)
    RPN_NEGATIVE_OVERLAP: float = key(0.3, "An anchor is negative below this IoU.", min=0, max=1)
    RPN_FG_FRACTION: float = key(0.5, "Largest share of positives among the anchors.", min=0, max=1)
    RPN_BATCH_SIZE_PER_IM: int = key(256, "Anchors per image that the RPN is trained on.", min=1)
    RPN_NMS_THRESH: float = key(0.7, "NMS of proposals; 0 or less: none.", max=1)
    RPN_PRE_NMS_TOP_N: int = key(12000, "Best proposals kept before NMS, per level.", min=0)
    RPN_POST_NMS_TOP_N: int = key(2000, "Best proposals kept after NMS.", min=0)
    RPN_STRADDLE_THRESH: int = key(0, "How far an anchor may leave the image; -1: any.", unit="px", min=-1)
    RPN_MIN_SIZE: int = key(0, "Smallest side of a proposal, in the original image.", unit="px", min=0)
    CROWD_FILTER_THRESH: float = key(0.7, "Proposals inside a crowd by this share are dropped.", min=0, max=1)
    GT_MIN_AREA: int = key(
        -1,
        "Training boxes of a smaller `area` (else width x height) are dropped; -1: none.",
        unit="px^2",
        min=-1,
    )
    FREEZE_CONV_BODY: bool = key(False, "Keep the whole backbone as it is.")
    AUTO_RESUME: bool = key(True, "Continue from the newest checkpoint in the output folder.")
    COPY_WEIGHTS: bool = key(False, "Copy the file of WEIGHTS into the folder of the run.")
    FREEZE_AT: int = key(2, "Stages that are not trained: up to res<n>; 0: none.", choices=(0, 2, 3, 4, 5))
    PRECISION: str = key("fp32", "Arithmetic of the model.", choices=("fp32", "bf16"))
    ON_NONFINITE: str = key(
        "stop",
        "At a loss or gradient that is not finite: stop; skip the step; rollback to the newest checkpoint, with half "
        "the learning rate.",
        choices=("stop", "skip", "rollback"),
    )
    NONFINITE_LIMIT: int = key(
        10, "Steps in a row that `skip` leaves out, and returns of `rollback`, before the run stops.", min=1
    )
    FLIP_VERTICAL: bool = key(False, "Turn half of the images upside down, drawn at random.")
    KEEP_EMPTY: bool = key(False, "Keep images without boxes; Detectron drops them.")
    EVAL_PERIOD: int = key(0, "Iterations between evaluations; 0: only at the end.", min=0)
    EVAL_IN_BACKGROUND: bool = key(
        False, "Measure the detections of EVAL_PERIOD in a thread while the training goes on."
    )
    EVAL_RESULTS: bool = key(
        False,
        "Keep the detections of EVAL_PERIOD: `bbox_<set>_results_iter<N>.json` in the training's folder.",
    )
    CHECKPOINTS_KEPT: int = key(2, "Newest checkpoints that stay on the disk; 0: all.", min=0)
    CLIP_GRAD_NORM: float = key(0.0, "Largest L2 norm of the gradient; 0: no limit.", min=0)
    CHECKPOINT_ACTIVATIONS: bool = key(
        False,
        "Keep the input of each block of the backbone alone and compute the rest again in the backward pass: less "
        "memory, more time. Not with RESNETS.NORM batch, whose statistics would count each batch twice.",
    )


@dataclass(frozen=True)
class DataLoader:
    """Detectron's loader."""

    NUM_THREADS: int = key(4, "Worker processes, at most one per core (see DATA.WORKERS).", min=0)
    MINIBATCH_QUEUE_SIZE: int = key(64, "Length of a queue that does not exist here.", unused=True)
    BLOBS_QUEUE_CAPACITY: int = key(8, "Length of a queue that does not exist here.", unused=True)


@dataclass(frozen=True)
class Data:
    """Reading of the data."""

    WORKERS: int = key(
        -1, "Worker processes; 0: none; -1: DATA_LOADER.NUM_THREADS, at most the cores.", min=-1
    )
    CHECK: str = key(
        "quick",
        "Check of all data sets before the first step, by the worker processes: full decodes every image; quick "
        "reads header and end of each, and decodes those that look cut.",
        choices=("full", "quick", "off"),
    )
    SAMPLER: Sampler = section(Sampler)
    DRAFT: bool = key(True, "Let the JPEG decoder shrink large images (geometry `continuous` only).")
    READER: str = key(
        "pillow",
        "What decodes JPEGs, in training, testing and prediction: another library than Pillow has to be installed.",
        choices=("pillow", "simplejpeg", "opencv"),
    )
    CACHE: str = key(
        "none",
        "Keep decoded training images: in memory that the workers share, or in a folder for later runs.",
        choices=("none", "ram", "disk"),
    )
    CACHE_GB: float = key(
        2.0, "Most that is kept; further images are decoded every time.", unit="GiB", above=0
    )
    CACHE_DIR: str = key(
        "",
        "Folder of `CACHE: disk`, which runs may share; empty: detectron_libra/images in the user's cache folder.",
    )
    TIMEOUT_S: int = key(
        300, "A worker that is silent for so long counts as hung; 0: never.", unit="s", min=0
    )


@dataclass(frozen=True)
class Solver:
    """The optimizer and its schedule."""

    BASE_LR: float = key(0.001, "Learning rate after the warm-up.", above=0)
    LR_POLICY: str = key(
        "step",
        "Schedule of the learning rate; cosine is another word for cosine_decay.",
        choices=(
            "step",
            "steps_with_decay",
            "steps_with_lrs",
            "cosine_decay",
            "cosine",
            "exp_decay",
        ),
    )
    GAMMA: float = key(0.1, "Factor of the learning rate at each step.", above=0)
    STEP_SIZE: int = key(30000, "Iterations between steps (`step`).", min=1)
    STEPS: list[int] = key([], "Iterations at which a step begins; the first is 0.", of=int, min=0)
    LRS: list[float] = key([], "Learning rate of each step (`steps_with_lrs`).", of=float, above=0)
    MAX_ITER: int = key(40000, "Iterations of the training.", min=1)
    MOMENTUM: float = key(0.9, "Momentum of SGD.", min=0, max=1)
    WEIGHT_DECAY: float = key(0.0005, "L2 decay of weights; biases have none.", min=0)
    WEIGHT_DECAY_GN: float = key(0.0, "L2 decay of the parameters of normalisation layers.", min=0)
    WARM_UP_ITERS: int = key(500, "Iterations of the warm-up.", min=0)
    WARM_UP_FACTOR: float = key(
        1.0 / 3.0, "Factor of the learning rate at the first iteration.", min=0, max=1
    )
    WARM_UP_METHOD: str = key("linear", "Shape of the warm-up.", choices=("constant", "linear"))
    SCALE_MOMENTUM: bool = key(True, "Rescale the momentum when the learning rate jumps.")
    SCALE_MOMENTUM_THRESHOLD: float = key(1.1, "Ratio of learning rates that is a jump.", min=1)
    LOG_LR_CHANGE_THRESHOLD: float = key(1.1, "Ratio of learning rates that is logged.", unused=True)
    OPTIMIZER: str = key("sgd", "Kind of optimizer.", choices=("sgd", "adamw"))
    BIAS_LR_FACTOR: float = key(2.0, "Learning rate of biases over that of weights.", above=0)
    BIAS_DECAY: bool = key(False, "Biases decay as weights do.")
    REFERENCE_BATCH: int = key(
        0,
        "Images per step that the schedule was made for: BASE_LR is multiplied by (images per step) / this; "
        "0: taken as written.",
        min=0,
    )
