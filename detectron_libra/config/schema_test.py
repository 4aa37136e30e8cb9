# SPDX-License-Identifier: Apache-2.0
"""Keys of testing: what is detected and how it is measured."""

from dataclasses import dataclass

from detectron_libra.config.fields import key, section
from detectron_libra.config.schema_unused import KpsAug, MaskAug


@dataclass(frozen=True)
class BboxAug:
    """Boxes from several views of the image. A RetinaNet has it here, too; Detectron ignores it there."""

    ENABLED: bool = key(False, "Switch.")
    SCORE_HEUR: str = key(
        "UNION",
        "Scores: UNION of all candidates (with COORD_HEUR UNION); of stored proposals also AVG, the mean of the "
        "views, or ID, that of the image as it is.",
        choices=("UNION", "ID", "AVG"),
    )
    COORD_HEUR: str = key("UNION", "Boxes: as SCORE_HEUR.", choices=("UNION", "ID", "AVG"))
    H_FLIP: bool = key(False, "Add the mirror image.")
    SCALES: tuple[int, ...] = key((), "Further shorter sides.", unit="px", of=int, min=1)
    MAX_SIZE: int = key(4000, "Upper bound of the longer side at SCALES.", unit="px", min=1)
    SCALE_H_FLIP: bool = key(False, "Add the mirror image at each scale.")
    SCALE_SIZE_DEP: bool = key(False, "Has to be False: Detectron has no more than the name of it.")
    AREA_TH_LO: int = key(2500, "Belongs to SCALE_SIZE_DEP.", unit="px^2", unused=True)
    AREA_TH_HI: int = key(32400, "Belongs to SCALE_SIZE_DEP.", unit="px^2", unused=True)
    ASPECT_RATIOS: tuple[float, ...] = key(
        (),
        "Add the image with its width multiplied by each of these, then scaled as usual.",
        of=float,
        above=0,
    )
    ASPECT_RATIO_H_FLIP: bool = key(False, "Add the mirror image at each ratio.")


@dataclass(frozen=True)
class SoftNms:
    """Lower the score of overlapping boxes instead of dropping them. The threshold is TEST.NMS."""

    ENABLED: bool = key(False, "Switch.")
    METHOD: str = key(
        "linear",
        "Factor of the score: 1 - IoU above the threshold; exp(-IoU^2 / SIGMA) at any IoU; 0 above the threshold.",
        choices=("linear", "gaussian", "hard"),
    )
    SIGMA: float = key(0.5, "Width of `gaussian`.", above=0)


@dataclass(frozen=True)
class BboxVote:
    """Each box kept becomes the mean of those it stands for. RetinaNet has it here, too; not so in Detectron."""

    ENABLED: bool = key(False, "Switch.")
    VOTE_TH: float = key(0.8, "IoU from which a box votes.", min=0, max=1)
    SCORING_METHOD: str = key(
        "ID",
        "How the score of the result is made.",
        choices=("ID", "TEMP_AVG", "AVG", "IOU_AVG", "GENERALIZED_AVG", "QUASI_SUM"),
    )
    SCORING_METHOD_BETA: float = key(
        1.0,
        "Temperature of TEMP_AVG, exponent of GENERALIZED_AVG and QUASI_SUM; Detectron always takes 1.",
        above=0,
    )


@dataclass(frozen=True)
class Test:
    """Testing: data, proposals, detections, measures."""

    __test__ = False  # pytest takes a class of this name for tests

    WEIGHTS: str = key("", "Weights to test: path or address of any file that is read (docs/weights.md).")
    DATASETS: tuple[str, ...] = key((), "Names of the test sets.", of=str)
    SCALE: int = key(600, "Shorter side.", unit="px", min=1)
    MAX_SIZE: int = key(1000, "Upper bound of the longer side.", unit="px", min=1)
    NMS: float = key(0.3, "IoU at which NMS drops a detection.", min=0, max=1)
    BBOX_REG: bool = key(True, "Use the regressed boxes; otherwise the proposals or anchors themselves.")
    PROPOSAL_FILES: tuple[str, ...] = key((), "Proposal files, one per test set.", of=str)
    GENERATE_PROPOSALS_ON_GPU: bool = key(False, "Proposals are made where the model is.", unused=True)
    PROPOSAL_LIMIT: int = key(2000, "Proposals read per image from a file.", min=1)
    RPN_NMS_THRESH: float = key(0.7, "NMS of proposals; 0 or less: none.", max=1)
    RPN_PRE_NMS_TOP_N: int = key(12000, "Best proposals kept before NMS, per level.", min=0)
    RPN_POST_NMS_TOP_N: int = key(2000, "Best proposals kept after NMS.", min=0)
    RPN_MIN_SIZE: int = key(0, "Smallest side of a proposal, in the original image.", unit="px", min=0)
    DETECTIONS_PER_IM: int = key(100, "Best detections kept per image; 0: all.", min=0)
    SCORE_THRESH: float = key(0.05, "Detections of a lower score are dropped (Fast R-CNN).", min=0, max=1)
    COMPETITION_MODE: bool = key(True, "Keep the file of results after the evaluation.")
    FORCE_JSON_DATASET_EVAL: bool = key(False, "Measure PASCAL VOC sets as COCO sets only.")
    PRECOMPUTED_PROPOSALS: bool = key(True, "Inferred: False where the model has an RPN or is a RetinaNet.")
    CLASS_SPECIFIC_AR: bool = key(False, "Recall of proposals per class too.", unused=True)
    BBOX_AUG: BboxAug = section(BboxAug)
    MASK_AUG: MaskAug = section(MaskAug)
    KPS_AUG: KpsAug = section(KpsAug)
    SOFT_NMS: SoftNms = section(SoftNms)
    BBOX_VOTE: BboxVote = section(BboxVote)
    PRECISION: str = key("", "Arithmetic of the model; empty: TRAIN.PRECISION.", choices=("", "fp32", "bf16"))
    IMS_PER_BATCH: int = key(1, "Images per step.", min=1)
    CONCEPT_THRESH: float = key(0.5, "A class is predicted when its best box scores this.", min=0, max=1)
    BOX_IOU_THRESH: float = key(0.5, "IoU of a right box in box precision and recall.", min=0, max=1)
    PICTURES: int = key(0, "Pictures with predicted and true boxes to write.", min=0)
