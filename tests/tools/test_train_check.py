# SPDX-License-Identifier: Apache-2.0
"""`train_net.py --check` as a process: one line, nothing read but the file, nothing written."""

import os

import yaml

from tests.tools.runs import TINY, refused, run, write_config

#: As Detectron's own files have them: weights and proposals at addresses, data that is not there.
FAST_RCNN = {
    "MODEL": {"TYPE": "generalized_rcnn", "CONV_BODY": "FPN.add_fpn_ResNet50_conv5_body", "NUM_CLASSES": 81},
    "NUM_GPUS": 8,
    "RESNETS": TINY["RESNETS"],
    "FPN": {"FPN_ON": True, "MULTILEVEL_ROIS": True, "DIM": 16},
    "FAST_RCNN": {"ROI_BOX_HEAD": "fast_rcnn_heads.add_roi_2mlp_head", "ROI_XFORM_METHOD": "RoIAlign"},
    "TRAIN": {
        "WEIGHTS": "https://weights.invalid/R-50.pkl",
        "DATASETS": "('coco_2014_train',)",
        "PROPOSAL_FILES": "('https://weights.invalid/rpn_proposals.pkl',)",
        "SCALES": "(800,)",
        "MAX_SIZE": 1333,
    },
    "TEST": {"DATASETS": "('coco_2014_minival',)"},
    "OUTPUT_DIR": ".",
}


def write(folder, values):
    file = folder / "model.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def test_one_line_and_nothing_else_comes_of_a_check(tmp_path):
    file = write_config(tmp_path)
    done = run("train_net.py", "--cfg", file, "--check")
    assert done.code == 0 and done.err == ""
    (line,) = done.out.splitlines()
    assert line.startswith(f"{file}: RetinaNet, ") and "2 training steps" in line
    assert os.listdir(tmp_path) == [file.name]


def test_weights_proposals_and_data_are_not_looked_for(tmp_path):
    file = write(tmp_path, FAST_RCNN)
    done = run("train_net.py", "--cfg", file, "--check", "TRAIN.FREEZE_AT", "2")
    assert done.code == 0 and done.err == "", done.err
    assert "FastRCNN" in done.out and "81 classes" in done.out
    assert os.listdir(tmp_path) == [file.name]


def test_masks_are_refused_with_the_key_and_the_remedy(tmp_path):
    values = FAST_RCNN | {"MODEL": FAST_RCNN["MODEL"] | {"MASK_ON": True}}
    refused(run("train_net.py", "--cfg", write(tmp_path, values), "--check"), 2, "MODEL.MASK_ON False")
    values["MODEL"] = FAST_RCNN["MODEL"] | {"KEYPOINTS_ON": True}
    refused(run("train_net.py", "--cfg", write(tmp_path, values), "--check"), 2, "MODEL.KEYPOINTS_ON False")


def test_a_check_does_not_go_with_resuming(tmp_path):
    refused(run("train_net.py", "--cfg", write(tmp_path, FAST_RCNN), "--check", "--resume"), 2, "--check")
