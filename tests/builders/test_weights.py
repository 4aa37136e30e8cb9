# SPDX-License-Identifier: Apache-2.0
"""What a file of weights is, its content says: every kind is read under any name, and mistakes are named."""

import gzip
import json
import os
import pickle

import numpy as np
import pytest
import torch

import detectron_libra
from detectron_libra.builders import weights as builders_weights
from detectron_libra.builders.detector import build_detector
from detectron_libra.builders.weights import class_names_of, put_into, read_weights, with_classes
from detectron_libra.engine.weights_file import save_safetensors
from detectron_libra.errors import InputError
from detectron_libra.weights.contents import OURS, Weights
from detectron_libra.weights.detectron import write_pickle
from detectron_libra.weights.download import place_of
from tests.builders import small
from tests.weights.server import Answer, serving


@pytest.fixture(scope="module")
def state():
    """Weights of a small RetinaNet, as Detectron could have them."""
    torch.manual_seed(0)
    return build_detector(small.config("retinanet"), 4).state_dict()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def torchvision_names() -> dict[str, torch.Tensor]:
    """A ResNet-18 of torchvision with 8 channels, under torchvision's names."""
    tensors = {
        "conv1.weight": torch.rand(8, 3, 7, 7),
        "fc.weight": torch.rand(5, 64),
        "fc.bias": torch.rand(5),
    }

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{name}.{part}"] = torch.rand(channels) + 0.5

    norm("bn1", 8)
    for layer in range(1, 5):
        width = 4 * 2**layer
        for block in range(2):
            first = layer > 1 and block == 0
            name = f"layer{layer}.{block}"
            tensors[f"{name}.conv1.weight"] = torch.rand(width, width // 2 if first else width, 3, 3)
            tensors[f"{name}.conv2.weight"] = torch.rand(width, width, 3, 3)
            norm(f"{name}.bn1", width)
            norm(f"{name}.bn2", width)
            if first:
                tensors[f"{name}.downsample.0.weight"] = torch.rand(width, width // 2, 1, 1)
                norm(f"{name}.downsample.1", width)
    return tensors


def read(path, key="TEST.WEIGHTS") -> Weights:
    return read_weights(path, key=key, cache="/nowhere")


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_file_of_ours_under_any_name(state, tmp_path, trained):
    metadata = {"format": OURS, "class_names": '["a", "b", "c"]', "settings": '{"PIXEL_ORDER": "RGB"}'}
    save_safetensors(tmp_path / "w.pkl", state, metadata)
    weights = read(tmp_path / "w.pkl")
    assert weights.kind == OURS and equal(weights.state, state)
    assert class_names_of(weights) == ("a", "b", "c") and weights.settings == {"PIXEL_ORDER": "RGB"}

    checkpoint = tmp_path / "w.safetensors"
    checkpoint.write_bytes((trained.folder / "model_iter7.pt").read_bytes())
    weights = read(checkpoint)
    assert weights.kind == OURS and class_names_of(weights) == ("circle", "square", "triangle")
    assert equal(weights.state, read(trained.weights).state)


def test_names_of_ours_without_a_word_about_them(state, tmp_path):
    """What ``model.state_dict()`` gives, saved by somebody else's program."""
    save_safetensors(tmp_path / "a", state, {})
    torch.save(state, tmp_path / "b")
    for name in "ab":
        weights = read(tmp_path / name)
        assert weights.kind == OURS and equal(weights.state, state) and class_names_of(weights) is None


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_of_detectron_under_any_name(state, tmp_path, protocol):
    write_pickle(tmp_path / "w.pkl", state=state, config_text="MODEL: {NUM_CLASSES: 4}\n")
    written = builders_weights.load_pickle(tmp_path / "w.pkl")
    other = tmp_path / "w.pt"
    other.write_bytes(pickle.dumps(written, protocol=protocol))
    weights = read(other)
    assert weights.kind == "detectron" and equal(weights.state, state)
    assert weights.settings["MODEL.BOX_GEOMETRY"] == "detectron"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torchvision_in_both_formats_of_torch(tmp_path, zipped):
    torch.save(torchvision_names(), tmp_path / "w.pkl", _use_new_zipfile_serialization=zipped)
    weights = read(tmp_path / "w.pkl")
    assert weights.kind == "torchvision" and weights.backbone_only
    assert weights.settings["PIXEL_ORDER"] == "RGB"
    assert "backbone.res5.1.conv2.weight" in weights.state


def test_another_program_s_safetensors(tmp_path):
    save_safetensors(tmp_path / "w.safetensors", torchvision_names(), {"format": "pt"})
    assert read(tmp_path / "w.safetensors").kind == "torchvision"


def test_a_pickle_of_detectron2(tmp_path):
    """{"model": {name: array}}; its ImageNet weights have Caffe2's names."""
    tensors = {name: tensor.numpy() for name, tensor in torchvision_names().items()}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": tensors, "__author__": "somebody"}, protocol=2))
    assert read(tmp_path / "w.pkl").backbone_only


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (gzip.compress(b"weights"), "gzip"),
        (json.dumps({"a": 1}).encode(), "JSON"),
        (b"\x89PNG\r\n", "image"),
        (b"MODEL:\n  TYPE: retinanet\n", "no kind that is known"),
        (b"PK\x03\x04 no archive", "damaged"),
        (b"\x80\x02no pickle", "pickle"),
        (b"\x10\0\0\0\0\0\0\0{no header     }", "damaged"),
        (pickle.dumps([1, 2, 3]), "holds a list"),
        (pickle.dumps({"a": np.zeros(3)}), "unknown network"),
    ],
)
def test_what_is_taken_for_weights_by_mistake_is_named(tmp_path, content, part):
    path = tmp_path / "w.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith("TEST.WEIGHTS: ") and str(path) in message and part in message
    assert "\n" not in message


def test_a_file_that_is_not_there_a_folder_and_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.pkl")
    for path, part in (
        (tmp_path / "gone.pkl", "no such file"),
        (tmp_path, "a folder"),
        (tmp_path / "pipe.pkl", "a pipe or a device"),
    ):
        with pytest.raises(InputError, match=f"^TEST.WEIGHTS: {path}: {part}"):
            read(path)


@pytest.mark.parametrize("wrong", ['{"a": 1}', "[1, 2]", "no json"])
def test_class_names_that_are_none(state, tmp_path, wrong):
    save_safetensors(tmp_path / "w", state, {"format": OURS, "class_names": wrong})
    with pytest.raises(InputError, match=r"w: class_names .*convert_weights"):
        class_names_of(read(tmp_path / "w"))


def test_an_address_is_downloaded_once_and_named_in_what_is_read(state, tmp_path):
    save_safetensors(tmp_path / "w", state, {"format": OURS})
    with serving({"/w.safetensors": Answer((tmp_path / "w").read_bytes())}) as server:
        url = f"{server.url}/w.safetensors"
        weights = read_weights(url, key="TEST.WEIGHTS", cache=str(tmp_path / "cache"))
    assert weights.source == url and equal(weights.state, state)
    assert equal(read_weights(url, key="TEST.WEIGHTS", cache=str(tmp_path / "cache")).state, state)


def test_without_a_network_the_key_the_address_and_the_place_are_named(tmp_path):
    with serving({}) as gone:
        url = f"{gone.url}/R-50.pkl"
    with pytest.raises(InputError) as error:
        read_weights(url, key="TRAIN.WEIGHTS", cache=str(tmp_path))
    for part in ("TRAIN.WEIGHTS: ", url, "no network", f"put a copy of it at {place_of(url, tmp_path)}"):
        assert part in str(error.value)


def test_a_process_reads_its_weights_once(trained, monkeypatch):
    asked = []
    real = builders_weights.load_weights
    monkeypatch.setattr(builders_weights, "load_weights", lambda path: asked.append(path) or real(path))
    threads = torch.get_num_threads()
    detectron_libra.load(trained.weights)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    assert asked == [trained.weights]


@pytest.mark.parametrize(
    ("kind", "changes"), [("retinanet", {}), ("retinanet", {"RETINANET__SOFTMAX": True}), ("c4", {})]
)
def test_the_number_of_classes_shows_in_the_shapes(kind, changes):
    cfg = small.config(kind, **changes)
    state = build_detector(cfg, 7).state_dict()
    assert with_classes(cfg, Weights("w", "detectron", state)).MODEL.NUM_CLASSES == 7
    named = Weights("w", OURS, {}, metadata={"class_names": '["a", "b"]'})
    assert with_classes(cfg, named).MODEL.NUM_CLASSES == 3


def test_scales_of_groupnorm_do_not_go_into_affine_layers_nor_back(state, tmp_path):
    """Detectron names the two differently, and would begin afresh; here the names are the same."""
    for norm, other, remedy in (("affine", "group", "affine or batch"), ("group", "affine", "group")):
        file = tmp_path / f"{norm}.pkl"
        write_pickle(file, state=state, norm=norm)
        cfg = small.config("retinanet", RESNETS__NORM=norm, GROUP_NORM__NUM_GROUPS=4)
        put_into(cfg, build_detector(cfg, 4), read(file), training=True)
        cfg = small.config("retinanet", RESNETS__NORM=other, GROUP_NORM__NUM_GROUPS=4)
        with pytest.raises(
            InputError, match=rf"{norm}\.pkl: its backbone is normalised by .*RESNETS\.NORM {remedy}"
        ):
            put_into(cfg, build_detector(cfg, 4), read(file), training=True)
