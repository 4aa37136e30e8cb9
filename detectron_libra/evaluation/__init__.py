# SPDX-License-Identifier: Apache-2.0
"""Measures detections against ground truth: pure functions on a data set and detections by image id."""

from .boxes import evaluate_boxes
from .coco import evaluate_arrays, evaluate_coco
from .coco_boxes import FoundBoxes, TrueBoxes
from .coco_results import to_coco_results, write_coco_results
from .concept import evaluate_concept
from .pictures import draw, write_pictures
from .results import detections_pickle, log_copypaste, results_dict, write_detections, write_json
from .table import summary_table
from .voc import evaluate_voc
from .voc_files import write_voc_files

__all__ = [
    "FoundBoxes",
    "TrueBoxes",
    "detections_pickle",
    "draw",
    "evaluate_arrays",
    "evaluate_boxes",
    "evaluate_coco",
    "evaluate_concept",
    "evaluate_voc",
    "log_copypaste",
    "results_dict",
    "summary_table",
    "to_coco_results",
    "write_coco_results",
    "write_detections",
    "write_json",
    "write_pictures",
    "write_voc_files",
]
