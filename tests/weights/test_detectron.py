# SPDX-License-Identifier: Apache-2.0
"""Weights of Detectron go in and out without losing a bit, and their files are those that Detectron reads."""

import logging
import pickle
import pickletools

import numpy as np
import pytest
import torch

from detectron_libra.errors import InputError, RunError
from detectron_libra.weights.cfg_text import read_cfg
from detectron_libra.weights.detectron import leave_unused, read_pickle, write_pickle
from detectron_libra.weights.placing import place_c5
from tests.builders import small
from tests.weights import detectors, pickles

CFG = """\
!!python/object/new:utils.collections.AttrDict
dictitems:
  MODEL: !!python/object/new:utils.collections.AttrDict
    dictitems: {TYPE: generalized_rcnn, BBOX_REG_WEIGHTS: !!python/tuple [10.0, 10.0, 5.0, 5.0]}
    state: {__immutable__: true}
  RESNETS: !!python/object/new:utils.collections.AttrDict
    dictitems: {STRIDE_1X1: false, TRANS_FUNC: bottleneck_transformation}
    state: {__immutable__: true}
  RPN: !!python/object/new:utils.collections.AttrDict
    dictitems: {SIZES: !!python/tuple [32, 64]}
    state: {__immutable__: true}
state: {__immutable__: true}
"""
SMALL = ["retinanet", "faster_rcnn", "c4", "rpn_only", "fast_rcnn"]


def small_state(kind, seed=0):
    """A small detector's shapes filled with numbers, Libra's parts included."""
    return detectors.fill(detectors.build_detector(small.libra(kind), 4), seed)


def trained(kind):
    model = detectors.build_detector(small.libra(kind), 4)
    return {n: torch.randn(p.shape) for n, p in model.named_parameters() if p.requires_grad}


def same(a, b):
    assert list(a) == list(b)
    for name, tensor in a.items():
        other = b[name]
        assert tensor.dtype == other.dtype and tensor.shape == other.shape, name
        assert torch.equal(
            tensor.view(torch.uint8) if tensor.ndim else tensor,
            other.view(torch.uint8) if other.ndim else other,
        )


@pytest.mark.parametrize("name", detectors.LISTED)
def test_weights_of_listed_models_come_back_bit_for_bit(tmp_path, name):
    """The models of Detectron's tables with fewer channels."""
    base, changes = detectors.LISTED[name]
    state = detectors.fill(detectors.build(base, changes | detectors.NARROW))
    assert write_pickle(tmp_path / "model.pkl", state=state, config_text="MODEL: {TYPE: x}") == []
    weights = read_pickle(tmp_path / "model.pkl")
    assert not weights.preserved and not weights.backbone_only and weights.kind == "detectron"
    same(state, weights.state)


@pytest.mark.slow
@pytest.mark.parametrize("name", detectors.LISTED)
def test_weights_of_full_size_come_back_bit_for_bit(tmp_path, name):
    """And the blobs in between are those of Detectron's table: names, shapes, float32."""
    state = detectors.fill(detectors.build(*detectors.LISTED[name]))
    write_pickle(tmp_path / "model.pkl", state=state, config_text="MODEL: {TYPE: x}")
    with (tmp_path / "model.pkl").open("rb") as file:
        stored = pickle.load(file, encoding="latin1")["blobs"]
    listed = {blob: shape for blob, (shape, _) in detectors.table(name).items()}
    assert {blob: a.shape for blob, a in stored.items()} == listed
    assert all(a.dtype == np.float32 for a in stored.values())
    del stored
    same(state, read_pickle(tmp_path / "model.pkl").state)


@pytest.mark.parametrize("kind", SMALL)
def test_libras_parts_momentum_and_unknown_blobs_come_back_too(tmp_path, kind):
    """Nothing that a file holds is lost on the way through ours."""
    state, momentum = small_state(kind), trained(kind)
    preserved = {
        "fc1000_w": np.ones((10, 8), np.float32),
        "mask_fcn1_w": np.asfortranarray(np.eye(3)),
        "n": np.array(3),
    }
    unknown = write_pickle(
        tmp_path / "a.pkl", state=state, config_text="A: 1", momentum=momentum, preserved=preserved
    )
    assert unknown == [name for name in state if name.startswith("balance.")]
    assert bool(unknown) == (kind != "c4")
    weights = read_pickle(tmp_path / "a.pkl")
    same(state, weights.state)
    same(momentum, weights.momentum)
    assert list(weights.preserved) == list(preserved)
    for name, array in preserved.items():
        assert np.array_equal(weights.preserved[name], array) and weights.preserved[name].dtype == array.dtype
    write_pickle(
        tmp_path / "b.pkl",
        state=weights.state,
        config_text=weights.metadata["config"],
        momentum=weights.momentum,
        preserved=weights.preserved,
    )
    assert (tmp_path / "a.pkl").read_bytes() == (tmp_path / "b.pkl").read_bytes()


def test_batch_statistics_come_back(tmp_path):
    model = detectors.build_detector(small.config("retinanet", RESNETS__NORM="batch"), 4)
    state = detectors.fill(model)
    unknown = write_pickle(tmp_path / "a.pkl", state=state)
    assert "backbone.stem.norm.running_mean" in unknown and "backbone.stem.norm.weight" in unknown
    same(state, read_pickle(tmp_path / "a.pkl").state)


def test_half_and_bfloat_states_are_stored_as_float32(tmp_path):
    state = {
        n: t.to(torch.bfloat16) if t.is_floating_point() else t for n, t in small_state("retinanet").items()
    }
    write_pickle(tmp_path / "a.pkl", state=state)
    read = read_pickle(tmp_path / "a.pkl").state
    assert all(torch.equal(read[n], t.float()) for n, t in state.items() if t.is_floating_point())


def test_files_need_nothing_that_python_2_and_numpy_1_lack(tmp_path):
    """Protocol 2, the old names of NumPy, and any encoding of the reader gives the same arrays."""
    state = small_state("faster_rcnn")
    write_pickle(tmp_path / "a.pkl", state=state, config_text="A: 1")
    data = (tmp_path / "a.pkl").read_bytes()
    operations = [(op, arg) for op, arg, _ in pickletools.genops(data)]
    assert max(op.proto for op, _ in operations) == 2
    assert {arg for op, arg in operations if op.name == "GLOBAL"} == {
        "numpy.core.multiarray _reconstruct",
        "numpy ndarray",
        "numpy dtype",
        "_codecs encode",
    }
    for encoding in ("ASCII", "latin1", "bytes"):
        stored = pickle.loads(data, encoding=encoding)
        assert set(stored) == {"blobs", "cfg"}
        assert np.array_equal(stored["blobs"]["fc6_w"], state["regions.head.fc6.weight"].numpy())
    assert "!!python/object/new:detectron.utils.collections.AttrDict" in stored["cfg"]


def zoo_file(tmp_path, cfg=CFG, **changes):
    """A small file as the zoo's are: of Python 2, with momentum and blobs that no detector uses."""
    state = small_state("c4")
    write_pickle(tmp_path / "tmp.pkl", state=state, momentum=trained("c4"))
    blobs = pickle.loads((tmp_path / "tmp.pkl").read_bytes())
    blobs |= {"fc1000_b": np.zeros(1000, np.float32), "conv1_b": np.zeros(8, np.float32)} | changes
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickles.python2({"blobs": blobs, **({"cfg": cfg} if cfg else {})}))
    return path, state


def test_files_of_python_2_are_read(tmp_path):
    path, state = zoo_file(tmp_path)
    weights = read_pickle(path)
    same(state, weights.state)
    assert set(weights.preserved) == {"fc1000_b", "conv1_b"}
    assert set(weights.momentum) == set(trained("c4"))
    assert read_cfg(weights.metadata["config"], "f")["RPN"] == {"SIZES": [32, 64]}


def test_settings_are_what_the_weights_need_and_shapes_do_not_show(tmp_path):
    settings = read_pickle(zoo_file(tmp_path)[0]).settings
    assert settings == {
        "MODEL.BOX_GEOMETRY": "detectron",
        "MODEL.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
        "PIXEL_ORDER": "BGR",
        "PIXEL_MEANS": [[[102.9801, 115.9465, 122.7717]]],
        "PIXEL_STDS": [[[1.0, 1.0, 1.0]]],
        "RESNETS.STRIDE_1X1": False,
        "RESNETS.TRANS_FUNC": "bottleneck_transformation",
        "RPN.SIZES": (32, 64),
    }


def test_files_from_before_the_box_weights_get_ones_and_bare_ones_nothing(tmp_path):
    """As Detectron does: a configuration without the key means factors of 1, no configuration nothing."""
    old = CFG.replace(", BBOX_REG_WEIGHTS: !!python/tuple [10.0, 10.0, 5.0, 5.0]", "")
    assert read_pickle(zoo_file(tmp_path, old)[0]).settings["MODEL.BBOX_REG_WEIGHTS"] == (1.0, 1.0, 1.0, 1.0)
    assert "MODEL.BBOX_REG_WEIGHTS" not in read_pickle(zoo_file(tmp_path, None)[0]).settings


def test_weights_of_imagenet_are_a_backbone_alone_in_a_bare_dictionary(tmp_path):
    state = {n: t for n, t in small_state("retinanet").items() if n.startswith("backbone.")}
    write_pickle(tmp_path / "a.pkl", state=state, preserved={"pred_w": np.ones((10, 64), np.float32)})
    with (tmp_path / "a.pkl").open("rb") as file:
        assert "conv1_w" in pickle.load(file)
    weights = read_pickle(tmp_path / "a.pkl")
    assert (
        weights.backbone_only and list(weights.preserved) == ["pred_w"] and "config" not in weights.metadata
    )
    assert set(weights.settings) == {"PIXEL_ORDER", "PIXEL_MEANS", "PIXEL_STDS"}
    same(state, weights.state)


def test_stage_5_of_imagenet_weights_goes_where_the_model_has_it(tmp_path):
    c4 = small_state("c4")
    body = {n: t for n, t in c4.items() if "predictor" not in n and not n.startswith("rpn.")}
    as_backbone = {n.replace("regions.head.", "backbone."): t for n, t in body.items()}
    write_pickle(tmp_path / "a.pkl", state=as_backbone)
    weights = read_pickle(tmp_path / "a.pkl")
    assert set(place_c5(weights, c4).state) == set(body)
    assert place_c5(weights, small_state("retinanet")) is weights


def test_group_norm_is_written_and_found_by_its_names(tmp_path):
    functions = {
        f"RESNETS__{f}_FUNC": v
        for f, v in (("TRANS", "bottleneck_gn_transformation"), ("STEM", "basic_gn_stem"))
    }
    model = detectors.build_detector(small.config("retinanet", **functions), 4)
    state = detectors.fill(model)
    write_pickle(tmp_path / "a.pkl", state=state, norm="group")
    weights = read_pickle(tmp_path / "a.pkl")
    same(state, weights.state)
    assert weights.settings["RESNETS.TRANS_FUNC"] == "bottleneck_gn_transformation"
    assert "conv1_gn_s" in pickle.loads((tmp_path / "a.pkl").read_bytes())


def test_doubles_that_fit_are_exact_and_others_are_told(tmp_path, caplog):
    fits, rounds = np.full((8, 3, 7, 7), 0.5), np.full(8, 0.1)
    path, _ = zoo_file(tmp_path, conv1_w=fits, res_conv1_bn_s=rounds, res_conv1_bn_b=np.ones(8, np.float16))
    with caplog.at_level(logging.WARNING):
        state = read_pickle(path).state
    assert state["backbone.stem.conv.weight"].dtype == state["backbone.stem.norm.bias"].dtype == torch.float32
    assert (state["backbone.stem.conv.weight"] == 0.5).all()
    assert (
        "digits beyond float32 are dropped in res_conv1_bn_s" in caplog.text and "conv1_w" not in caplog.text
    )


def test_what_a_model_does_not_use_is_preserved_as_detectron_does(tmp_path):
    """The proposal network in a file of alternating training, for a Fast R-CNN."""
    state, momentum = small_state("faster_rcnn"), trained("faster_rcnn")
    write_pickle(tmp_path / "a.pkl", state=state, momentum=momentum)
    names = set(small_state("fast_rcnn"))
    weights = leave_unused(read_pickle(tmp_path / "a.pkl"), names)
    assert set(weights.state) == names and not [n for n in weights.momentum if n.startswith("rpn.")]
    assert "conv_rpn_fpn2_w" in weights.preserved and "conv_rpn_fpn2_w_momentum" in weights.preserved
    write_pickle(
        tmp_path / "b.pkl", state=weights.state, momentum=weights.momentum, preserved=weights.preserved
    )
    again = read_pickle(tmp_path / "b.pkl")
    assert set(again.state) == set(state) and torch.equal(
        again.state["rpn.conv.weight"], state["rpn.conv.weight"]
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"model": {"stem.conv1.weight": np.ones(1)}, "__author__": "x"}, "not weights of Detectron"),
        ([1, 2], "not weights of Detectron"),
        ({"blobs": [1]}, "not weights of Detectron"),
        ({"conv1_w": np.ones(1), "more": [1]}, "'more' holds no array"),
        ({"conv1_w": np.ones(1), 7: np.ones(1)}, "'7' holds no array"),
        ({"conv1_w": np.ones(1, np.complex64)}, "conv1_w holds complex64"),
        ({"blobs": {"conv1_w": np.ones(1)}, "cfg": 3}, "cfg: holds no text"),
        (
            {"blobs": {"conv1_w": np.ones(1)}, "cfg": "!!python/object/apply:os.system [x]"},
            "cfg: .*os.system",
        ),
    ],
)
def test_files_of_another_kind_are_told_in_one_line(tmp_path, content, reason):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content, 2))
    with pytest.raises(InputError, match=reason) as error:
        read_pickle(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.pkl"
    write_pickle(path, state=small_state("retinanet"))
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("detectron_libra.weights.detectron.write_pickle_of", full)
    with pytest.raises(RunError, match=r"a\.pkl: \d+ bytes cannot be written \(No space left on device\)"):
        write_pickle(path, state=small_state("retinanet", seed=1))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.pkl"]
