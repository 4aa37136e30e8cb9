# SPDX-License-Identifier: Apache-2.0
"""Weights of Detectron go in and out without losing a bit, and their files are those that Detectron reads."""

import pickle
import pickletools

import numpy as np
import pytest
import torch

from detectron_libra.errors import RunError
from detectron_libra.weights.detectron import read_pickle, write_pickle
from tests.builders import small
from tests.weights import detectors

SMALL = ["retinanet", "faster_rcnn", "c4", "rpn_only", "fast_rcnn"]


@pytest.mark.parametrize("name", detectors.LISTED)
def test_weights_of_listed_models_come_back_bit_for_bit(tmp_path, name):
    """The models of Detectron's tables with fewer channels."""
    base, changes = detectors.LISTED[name]
    state = detectors.fill(detectors.build(base, changes | detectors.NARROW))
    assert write_pickle(tmp_path / "model.pkl", state=state, config_text="MODEL: {TYPE: x}") == []
    weights = read_pickle(tmp_path / "model.pkl")
    assert not weights.preserved and not weights.backbone_only and weights.kind == "detectron"
    detectors.same(state, weights.state)


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
    detectors.same(state, read_pickle(tmp_path / "model.pkl").state)


@pytest.mark.parametrize("kind", SMALL)
def test_libras_parts_momentum_and_unknown_blobs_come_back_too(tmp_path, kind):
    """Nothing that a file holds is lost on the way through ours."""
    state, momentum = detectors.small_state(kind), detectors.trained(kind)
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
    detectors.same(state, weights.state)
    detectors.same(momentum, weights.momentum)
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
    detectors.same(state, read_pickle(tmp_path / "a.pkl").state)


def test_half_and_bfloat_states_are_stored_as_float32(tmp_path):
    state = {
        n: t.to(torch.bfloat16) if t.is_floating_point() else t
        for n, t in detectors.small_state("retinanet").items()
    }
    write_pickle(tmp_path / "a.pkl", state=state)
    read = read_pickle(tmp_path / "a.pkl").state
    assert all(torch.equal(read[n], t.float()) for n, t in state.items() if t.is_floating_point())


def test_files_need_nothing_that_python_2_and_numpy_1_lack(tmp_path):
    """Protocol 2, the old names of NumPy, and any encoding of the reader gives the same arrays."""
    state = detectors.small_state("faster_rcnn")
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


def test_weights_of_imagenet_are_a_backbone_alone_in_a_bare_dictionary(tmp_path):
    state = {n: t for n, t in detectors.small_state("retinanet").items() if n.startswith("backbone.")}
    write_pickle(tmp_path / "a.pkl", state=state, preserved={"pred_w": np.ones((10, 64), np.float32)})
    with (tmp_path / "a.pkl").open("rb") as file:
        assert "conv1_w" in pickle.load(file)
    weights = read_pickle(tmp_path / "a.pkl")
    assert (
        weights.backbone_only and list(weights.preserved) == ["pred_w"] and "config" not in weights.metadata
    )
    assert set(weights.settings) == {"PIXEL_ORDER", "PIXEL_MEANS", "PIXEL_STDS"}
    detectors.same(state, weights.state)


def test_our_metadata_comes_back_and_decides_the_settings(tmp_path):
    """Weights of our own geometry must not come back as those of Detectron's."""
    words = {
        "config": "MODEL: {BOX_GEOMETRY: continuous}",
        "class_names": '["a"]',
        "settings": '{"PIXEL_ORDER": "RGB"}',
    }
    write_pickle(tmp_path / "a.pkl", state=detectors.small_state("c4"), config_text="A: 1", metadata=words)
    weights = read_pickle(tmp_path / "a.pkl")
    assert weights.metadata == words and weights.settings == {"PIXEL_ORDER": "RGB"}
    assert set(pickle.loads((tmp_path / "a.pkl").read_bytes())) == {"blobs", "cfg", "detectron_libra"}


def test_group_norm_is_written_and_found_by_its_names(tmp_path):
    functions = {
        f"RESNETS__{f}_FUNC": v
        for f, v in (("TRANS", "bottleneck_gn_transformation"), ("STEM", "basic_gn_stem"))
    }
    model = detectors.build_detector(small.config("retinanet", **functions), 4)
    state = detectors.fill(model)
    write_pickle(tmp_path / "a.pkl", state=state, norm="group")
    weights = read_pickle(tmp_path / "a.pkl")
    detectors.same(state, weights.state)
    assert weights.settings["RESNETS.TRANS_FUNC"] == "bottleneck_gn_transformation"
    assert "conv1_gn_s" in pickle.loads((tmp_path / "a.pkl").read_bytes())


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.pkl"
    write_pickle(path, state=detectors.small_state("retinanet"))
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("detectron_libra.weights.detectron.write_pickle_of", full)
    with pytest.raises(RunError, match=r"a\.pkl: \d+ bytes cannot be written \(No space left on device\)"):
        write_pickle(path, state=detectors.small_state("retinanet", seed=1))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.pkl"]
