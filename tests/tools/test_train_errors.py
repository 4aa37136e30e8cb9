# SPDX-License-Identifier: Apache-2.0
"""What a user can get wrong in train_net.py: the exit code, and one line that names the thing."""

import json
import shutil

import pytest

from detectron_libra.engine.lock import locked
from tests.tools.runs import kill_a_worker, refused, run


@pytest.fixture
def own_data(trained, config, tmp_path):
    """A function that edits a copy of the training set: (annotations, image folder) -> None."""
    images = tmp_path / "data/images"
    shutil.copytree(trained.config.parent / "train/images", images)
    file = tmp_path / "data/instances.json"

    def edit(change) -> list:
        values = json.loads((trained.config.parent / "train/instances.json").read_text())
        change(values, images)
        file.write_text(json.dumps(values))
        return [
            "--cfg",
            config,
            "DATASETS.tiny_train",
            json.dumps({"IM_DIR": str(images), "ANN_FN": str(file)}),
        ]

    return edit


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["SOLVER.BASE_LRR", "1"], ["SOLVER.BASE_LRR", "SOLVER.BASE_LR"]),
        (["SOLVER.MAX_ITER", "many"], ["SOLVER.MAX_ITER", "many"]),
        (["SOLVER.MAX_ITER"], ["SOLVER.MAX_ITER"]),
        (["--skip-tests"], ["--skip-tests"]),
        (["MODEL.NUM_CLASSES", "9"], ["MODEL.NUM_CLASSES", "9", "4"]),
        (["MODEL.MASK_ON", "True"], ["MODEL.MASK_ON"]),
        (["TRAIN.DATASETS", "('nowhere',)"], ["nowhere"]),
        (["--resume"], ["no checkpoint"]),
    ],
)
def test_a_wrong_command_line_or_configuration_exits_2(config, words, parts):
    refused(run("train_net.py", "--cfg", config, *words), 2, *parts)


def test_a_missing_configuration_exits_2(tmp_path):
    refused(run("train_net.py", "--cfg", tmp_path / "nope.yaml"), 2, "nope.yaml")


def test_all_faults_of_a_configuration_file_come_at_once_with_their_lines(trained, tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text(f"_BASE_: {trained.config}\nSOLVER:\n  MAX_ITR: 3\n  GAMMA: high\n")
    done = run("train_net.py", "--cfg", file)
    assert done.code == 2 and "Traceback" not in done.err
    assert "wrong.yaml:3" in done.err and "MAX_ITR" in done.err
    assert "wrong.yaml:4" in done.err and "GAMMA" in done.err


def test_an_output_folder_that_is_a_file_exits_2(config, tmp_path):
    (tmp_path / "out").write_text("mine")
    refused(run("train_net.py", "--cfg", config), 2, tmp_path / "out", "OUTPUT_DIR")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_that_another_run_holds_exits_2_and_is_left_alone(config, tmp_path):
    folder = tmp_path / "out/train/tiny_train/retinanet"
    folder.mkdir(parents=True)
    with locked(folder):
        refused(run("train_net.py", "--cfg", config), 2, folder, "in use")
    assert [p.name for p in folder.iterdir()] == [".lock"]


def test_missing_annotations_exit_3(config, tmp_path):
    entry = json.dumps({"IM_DIR": str(tmp_path), "ANN_FN": str(tmp_path / "gone.json")})
    refused(run("train_net.py", "--cfg", config, "DATASETS.tiny_train", entry), 3, tmp_path / "gone.json")


def test_an_image_that_cannot_be_read_exits_3_under_its_name(own_data):
    words = own_data(lambda values, images: (images / "000003.jpg").write_bytes(b"no image"))
    refused(run("train_net.py", *words), 3, "000003.jpg")


def test_an_image_that_breaks_off_exits_3_in_the_worker_that_reads_it(own_data):
    def cut(values, images):
        file = images / "000003.jpg"
        file.write_bytes(file.read_bytes()[:-200])

    words = own_data(cut)
    done = run("train_net.py", *words, "DATA.CHECK", "quick", "DATA.WORKERS", 1)
    refused(done, 3, "000003.jpg")


def test_an_unknown_category_exits_3_with_the_annotation(own_data):
    words = own_data(lambda values, images: values["annotations"][2].update(id=4711, category_id=77))
    refused(run("train_net.py", *words), 3, "instances.json", 4711, 77)


def test_a_set_without_boxes_exits_3(own_data):
    refused(
        run("train_net.py", *own_data(lambda values, images: values["annotations"].clear())),
        3,
        "instances.json",
    )


def test_a_test_set_of_other_classes_exits_3_before_anything_is_trained(own_data, config, tmp_path):
    words = own_data(lambda values, images: values["categories"][0].update(name="disc"))
    words = [w.replace("tiny_train", "tiny_val") if isinstance(w, str) else w for w in words]
    refused(run("train_net.py", *words), 3, "disc", "circle")
    assert not list((tmp_path / "out").rglob("model_*"))


def test_weights_that_are_damaged_exit_3(config, tmp_path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"\x00" * 100)
    refused(run("train_net.py", "--cfg", config, "TRAIN.WEIGHTS", file), 3, file)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loss_that_is_not_finite_exits_4_and_leaves_no_weights(config, tmp_path, workers):
    words = ["SOLVER.BASE_LR", "1e30", "SOLVER.WARM_UP_ITERS", 0, "DATA.WORKERS", workers]
    done = run("train_net.py", "--cfg", config, *words)
    refused(done, 4, "iteration", "SOLVER.BASE_LR", ".jpg")
    assert not list((tmp_path / "out").rglob("model_*"))


def test_a_worker_that_dies_exits_4(config):
    words = ["DATA.WORKERS", 1, "SOLVER.MAX_ITER", 50]
    done = run("train_net.py", "--cfg", config, *words, after=(1, kill_a_worker))
    refused(done, 4, "worker", "DATA_LOADER.NUM_THREADS")


def test_debug_shows_where_it_happened(tmp_path):
    done = run("train_net.py", "--cfg", tmp_path / "nope.yaml", "--debug")
    assert done.code == 2 and "Traceback" in done.err


def test_resume_and_no_resume_exclude_each_other(config):
    refused(run("train_net.py", "--cfg", config, "--resume", "--no-resume"), 2, "--no-resume")
