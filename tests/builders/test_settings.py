# SPDX-License-Identifier: Apache-2.0
"""Keys that weights need are set where nobody has set them; what somebody has set stays, and is told."""

import json
import logging

import numpy as np
import pytest

from detectron_libra.builders.settings import (
    apply_settings,
    beyond_defaults,
    configuration_for,
    settings_in_use,
)
from detectron_libra.config import load_config
from detectron_libra.errors import InputError, UsageError
from detectron_libra.weights.contents import Weights
from tests.builders import small

RGB = {"PIXEL_ORDER": "RGB", "PIXEL_MEANS": [123.675, 116.28, 103.53], "MODEL.BBOX_REG_WEIGHTS": (1, 1, 1, 1)}


def messages(caplog, level):
    return [r.getMessage() for r in caplog.records if r.levelno == level]


def test_keys_at_their_default_are_set_and_one_line_lists_them(caplog):
    caplog.set_level(logging.INFO)
    cfg = apply_settings(small.config("retinanet"), RGB | {"PIXEL_STDS": [1, 1, 1]}, "w.pth")
    assert cfg.PIXEL_ORDER == "RGB" and cfg.MODEL.BBOX_REG_WEIGHTS == (1, 1, 1, 1)
    np.testing.assert_array_equal(cfg.PIXEL_MEANS.ravel(), RGB["PIXEL_MEANS"])
    (line,) = messages(caplog, logging.INFO)
    assert line.startswith("w.pth needs") and all(name in line for name in RGB)
    assert "PIXEL_STDS" not in line and not messages(caplog, logging.WARNING)
    assert cfg.origins["PIXEL_ORDER"] == "w.pth"


def test_what_the_user_has_set_stays_with_a_warning_that_names_both(caplog, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("PIXEL_ORDER: BGR\nPIXEL_STDS: [1, 1, 1]\n")
    cfg = apply_settings(load_config(str(file)), RGB | {"PIXEL_STDS": [1, 1, 1]}, "w.pth")
    assert cfg.PIXEL_ORDER == "BGR" and cfg.MODEL.BBOX_REG_WEIGHTS == (1, 1, 1, 1)
    (line,) = messages(caplog, logging.WARNING)
    for part in ("w.pth", "PIXEL_ORDER", "'RGB'", "'BGR'", f"{file}:1"):
        assert part in line


def test_the_second_time_there_is_nothing_to_set(caplog):
    cfg = apply_settings(load_config(), RGB, "w.pth")
    caplog.set_level(logging.INFO)
    assert apply_settings(cfg, RGB, "w.pth") is cfg and caplog.text == ""


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"PIXEL_ORDR": "RGB"}, "PIXEL_ORDR, which there is not"),
        ({"PIXEL_ORDER": "XYZ"}, "'XYZ' is not a choice"),
        ({"PIXEL_MEANS": "red"}, "PIXEL_MEANS"),
    ],
)
def test_settings_that_are_none(settings, part):
    with pytest.raises(InputError, match=part) as error:
        apply_settings(load_config(), settings, "w.pth")
    assert str(error.value).startswith("w.pth: needs") and "\n" not in str(error.value)
    with pytest.raises(InputError, match=part):
        beyond_defaults(settings, "w.pth")


def test_settings_that_do_not_go_with_the_configuration():
    with pytest.raises(UsageError, match=r"w\.pth needs LIBRA\.PYRAMID\.ON.*REFINE_LEVEL") as error:
        apply_settings(
            small.config("retinanet", LIBRA__PYRAMID__REFINE_LEVEL=9), {"LIBRA.PYRAMID.ON": True}, "w.pth"
        )
    assert "\n" not in str(error.value)


def test_which_detector_it_is_the_configuration_decides():
    """Of weights of another detector only the backbone matters, and what it is fed with."""
    faster = {"MODEL.FASTER_RCNN": True, "FAST_RCNN.ROI_BOX_HEAD": "a.b", "FPN.MULTILEVEL_ROIS": True}
    backbone = {"PIXEL_ORDER": "RGB", "RESNETS.STRIDE_1X1": False}
    cfg = apply_settings(small.config("retinanet"), faster | backbone, "w.pth")
    assert not cfg.MODEL.FASTER_RCNN and not cfg.FPN.MULTILEVEL_ROIS and not cfg.FAST_RCNN.ROI_BOX_HEAD
    assert cfg.PIXEL_ORDER == "RGB" and not cfg.RESNETS.STRIDE_1X1
    cfg = apply_settings(small.config("fast_rcnn"), faster | backbone, "w.pth")
    assert not cfg.MODEL.FASTER_RCNN


def test_settings_in_use_survive_as_json():
    """A training hands them on with its own weights."""
    cfg = apply_settings(load_config(None, ["PIXEL_ORDER", "BGR"]), RGB, "w.pth")
    stored = json.loads(json.dumps(settings_in_use(cfg, RGB)))
    assert stored["PIXEL_ORDER"] == "BGR"  # the user's, with which it was trained
    again = apply_settings(load_config(), stored, "mine.safetensors")
    np.testing.assert_array_equal(again.PIXEL_MEANS, cfg.PIXEL_MEANS)
    assert again.MODEL.BBOX_REG_WEIGHTS == cfg.MODEL.BBOX_REG_WEIGHTS


def test_the_configuration_is_the_given_one_the_file_s_or_the_recognised_network():
    recognised = {"MODEL.CONV_BODY": "FPN.add_fpn_ResNet50_conv5_body", "PIXEL_ORDER": "RGB"}
    nothing, known = Weights("w", "x", {}), Weights("w", "x", {}, settings=recognised)
    inside = Weights("w", "x", {}, metadata={"config": "PIXEL_STDS: [2, 2, 2]\n"}, settings=recognised)
    assert configuration_for(nothing, None) is None
    assert configuration_for(known, None).PIXEL_ORDER == "RGB"
    assert configuration_for(inside, None, ["DEVICE", "cpu"]).PIXEL_STDS.ravel()[0] == 2
    assert configuration_for(inside, load_config()).PIXEL_STDS.ravel()[0] == 1
    assert configuration_for(nothing, None, ["TEST.SCALE", "99"]).TEST.SCALE == 99


def test_what_is_beyond_the_defaults():
    assert beyond_defaults({"PIXEL_ORDER": "RGB", "PIXEL_STDS": [1, 1, 1]}, "w") == {"PIXEL_ORDER": "RGB"}
