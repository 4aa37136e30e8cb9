# SPDX-License-Identifier: Apache-2.0
"""How images are read: the decoder goes with the weights, and no cache changes what is trained."""

import io
import sys
import time
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, load_file

import detectron_libra
from detectron_libra.data import images, jpeg, loader
from tests.tools.runs import losses, refused, run

TRAIN = ["train_net.py", "--skip-test", "--cfg"]


def another_library():
    """Stands for simplejpeg in a process; its pictures are negatives, so that everybody can see who decoded."""

    def decode_jpeg(data, colours, *, min_height, min_width):
        picture = Image.open(io.BytesIO(data)).convert(colours).resize((min_width, min_height))
        return 255 - np.asarray(picture)

    module = ModuleType("simplejpeg")
    module.decode_jpeg, module.__version__ = decode_jpeg, "0"
    sys.modules["simplejpeg"] = module


def slow_reading():
    """A disk that takes its time."""

    def read(file, **options):
        time.sleep(0.05)
        return images.read_image(file, **options)

    loader.read_image = read


def no_library():
    sys.modules["simplejpeg"] = None


@pytest.fixture(scope="module")
def other(trained, tmp_path_factory):
    """Output of a run that the other library read for."""
    folder = tmp_path_factory.mktemp("other")
    file = folder / "mine.yaml"
    file.write_text(f"_BASE_: {trained.config}\nOUTPUT_DIR: {folder / 'out'}\n")
    done = run("train_net.py", "--cfg", file, "DATA.READER", "simplejpeg", before=another_library)
    assert done.code == 0, done.err
    return folder / "out"


def weights(output):
    return output / "train/tiny_train/retinanet/model_final.safetensors"


def results(output):
    return (output / "test/tiny_val/retinanet/results.json").read_bytes()


def test_the_reader_is_recorded_and_decodes(trained, other):
    text = (weights(other).parent / "config.yaml").read_text()
    assert "READER: simplejpeg" in text
    assert losses(weights(other).parent) != losses(trained.folder)


def test_a_test_takes_the_reader_of_the_training(other, config, tmp_path):
    done = run("test_net.py", "--cfg", config, "TEST.WEIGHTS", weights(other), before=another_library)
    assert done.code == 0 and "needs, so it is set: DATA.READER 'simplejpeg'" in done.out, done.out
    assert results(tmp_path / "out") == results(other)


def test_a_reader_that_the_user_names_stays_with_a_warning(other, config, tmp_path):
    words = ["--cfg", config, "TEST.WEIGHTS", weights(other), "DATA.READER", "pillow"]
    done = run("test_net.py", *words)
    assert done.code == 0, done.err
    (line,) = [line for line in done.out.splitlines() if line.startswith("WARNING") and "DATA.READER" in line]
    assert "was trained with DATA.READER 'simplejpeg'" in line and "'pillow', which stays" in line
    assert results(tmp_path / "out") != results(other)


def test_a_prediction_takes_the_reader_of_the_training(trained, other, monkeypatch):
    another_library()
    jpeg.module_of.cache_clear()
    try:
        predictor = detectron_libra.load(other)
        assert predictor.cfg.DATA.READER == "simplejpeg"
        paths = sorted(str(p) for p in trained.images.glob("*.jpg"))
        negative = [255 - np.asarray(Image.open(p)) for p in paths]
        for a, b in zip(predictor.predict(paths), predictor.predict(negative), strict=True):
            assert np.array_equal(a.scores.numpy(), b.scores.numpy())
    finally:
        del sys.modules["simplejpeg"]
        jpeg.module_of.cache_clear()


def test_a_library_that_is_missing_exits_2_with_the_package_before_data_is_read(other, config):
    words = ["--cfg", config, "DATASETS", "{}"]
    done = run("train_net.py", *words, "DATA.READER", "simplejpeg", before=no_library)
    refused(done, 2, "DATA.READER: simplejpeg is not installed", "pip install simplejpeg")
    done = run("test_net.py", "--cfg", config, "TEST.WEIGHTS", weights(other), before=no_library)
    refused(done, 2, "DATA.READER: simplejpeg is not installed", "pip install simplejpeg")


def test_a_run_goes_on_with_its_own_reader_and_refuses_another(config, tmp_path):
    words = [*TRAIN, config, "SOLVER.MAX_ITER"]
    first = run(*words, 4, "DATA.READER", "simplejpeg", before=another_library)
    assert first.code == 0, first.err
    refused(run(*words, 6, "DATA.READER", "pillow"), 2, "DATA.READER: 'simplejpeg' -> 'pillow'")
    again = run(*words, 6, before=another_library)
    assert again.code == 0 and "DATA.READER 'simplejpeg'" in again.out, again.err


@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_changes_no_loss_in_a_whole_run_and_a_resumed_one(trained, config, tmp_path, cache, workers):
    words = [
        *TRAIN,
        config,
        "DATA.CACHE",
        cache,
        "DATA.CACHE_DIR",
        tmp_path / "kept",
        "DATA.WORKERS",
        workers,
    ]
    folder = tmp_path / "out/train/tiny_train/retinanet"
    done = run(*words)
    assert done.code == 0 and f"DATA.CACHE {cache}: 9 images" in done.out, done.err
    assert losses(folder) == losses(trained.folder)
    whole = (folder / "model_final.safetensors").read_bytes()
    for path in (folder / "model_final.safetensors", folder / "model_iter7.pt"):
        path.unlink()
    done = run(*words, "DATA.CACHE", "disk")  # a key that may change
    assert done.code == 0 and "iterations 4 to 8" in done.out, done.err
    assert losses(folder) == losses(trained.folder)
    again, first = load_file(folder / "model_final.safetensors"), load(whole)
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_a_folder_that_cannot_be_written_exits_2_by_its_key(config, tmp_path):
    (tmp_path / "file").write_text("")
    words = ["DATA.CACHE", "disk", "DATA.CACHE_DIR", tmp_path / "file/below"]
    refused(run(*TRAIN, config, *words), 2, "DATA.CACHE disk", "file/below", "DATA.CACHE_DIR")


def test_the_log_and_the_report_say_that_the_loader_was_the_bottleneck(config, tmp_path):
    done = run(*TRAIN, config, "SOLVER.MAX_ITER", 40, before=slow_reading)
    assert done.code == 0, done.err
    (line,) = [text for text in done.out.splitlines() if "the loader was the bottleneck" in text]
    assert "set DATA.WORKERS" in line and "set DATA.CACHE ram" in line
    report = (tmp_path / "out/train/tiny_train/retinanet/report.html").read_text()
    assert "The loader was the bottleneck" in report
