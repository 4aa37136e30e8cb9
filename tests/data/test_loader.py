# SPDX-License-Identifier: Apache-2.0
"""Batches: padding, boxes in place, the same with any number of workers, errors that keep their text."""

import os
import signal
import time

import pytest
import torch

from detectron_libra.data.coco import load_coco
from detectron_libra.data.loader import build_test_loader, build_train_loader
from detectron_libra.data.plan import Sample
from detectron_libra.engine.guard import worker_errors_named
from detectron_libra.errors import InputError, RunError
from tests.data.coco_files import coco, write

SETTINGS = {"max_size": 80, "images_per_batch": 2, "stride": 32, "extent": 1.0, "resize_in_float": False}


@pytest.fixture
def dataset(tmp_path):
    content = coco(6)
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 5]
    return load_coco("set", *write(tmp_path, content), extent=1.0)


def train(dataset, workers=0, **options):
    settings = {
        "scales": (48, 60),
        "flip_x": True,
        "flip_y": True,
        "aspect_grouping": True,
        "seed": 3,
        "max_iter": 8,
    }
    return build_train_loader([dataset], **{**SETTINGS, **settings, "workers": workers, **options})


def same(a, b):
    ours, theirs = ((x.images, x.sizes, x.targets.boxes, x.targets.classes, x.targets.crowd) for x in (a, b))
    return a.metas == b.metas and all(map(torch.equal, ours, theirs))


def test_padding_is_zero_and_to_the_stride(dataset):
    """The rule: padded to the largest image, rounded up to COARSEST_STRIDE for a pyramid, not rounded without one."""
    for batch in train(dataset):
        height, width = batch.images.shape[2:]
        assert height % 32 == 0 and width % 32 == 0 and batch.images.dtype == torch.uint8
        for image, (h, w) in zip(batch.images, batch.sizes.tolist(), strict=True):
            assert not image[:, h:].any() and not image[:, :, w:].any() and image[:, h - 1, w - 1].any()
    assert next(iter(train(dataset, stride=0, scales=(48,)))).images.shape[2:] in {(48, 64), (64, 48)}


def test_detectrons_geometry_gets_float_pixels(dataset):
    batch = next(iter(train(dataset, resize_in_float=True)))
    assert batch.images.dtype == torch.float32 and (batch.images % 1 > 0).any()


def test_boxes_follow_scale_and_flips(dataset):
    records = {r.image_id: r for r in dataset.records}
    flips = set()
    for batch in train(dataset, max_iter=24):
        for meta, boxes, classes in zip(batch.metas, batch.targets.boxes, batch.targets.classes, strict=True):
            record = records[meta.image_id]
            x1, y1, x2, y2 = (boxes[classes > 0] / meta.scale).unbind(1)
            if meta.flip_x:
                x1, x2 = record.width - 1 - x2, record.width - 1 - x1
            if meta.flip_y:
                y1, y2 = record.height - 1 - y2, record.height - 1 - y1
            assert torch.allclose(torch.stack([x1, y1, x2, y2], 1), record.boxes, atol=1e-3)
            flips.add((meta.flip_x, meta.flip_y))
    assert len(flips) == 4


def test_images_without_boxes_are_left_out_or_kept_on_request(dataset, caplog):
    """The rule: an image without a usable box that is no crowd is not trained on."""
    assert 5 not in {m.image_id for b in train(dataset, max_iter=24) for m in b.metas}
    assert "left out 1 of 6 images" in caplog.text
    kept = [b for b in train(dataset, max_iter=24, keep_empty=True) if any(m.image_id == 5 for m in b.metas)]
    row = [m.image_id for m in kept[0].metas].index(5)
    assert kept[0].targets.boxes.shape[1] >= 1 and not kept[0].targets.valid[row].any()


def test_workers_change_nothing(dataset):
    alone, two = list(train(dataset)), list(train(dataset, workers=2))
    assert len(alone) == len(two) == 8 and all(map(same, alone, two))


def test_batches_that_wait_are_counted_where_workers_make_them(dataset):
    loader = train(dataset, workers=2)
    assert loader.ready == 0
    batches = iter(loader)
    next(batches)
    end = time.monotonic() + 20
    while loader.ready == 0 and time.monotonic() < end:
        time.sleep(0.01)
    assert loader.ready > 0
    batches.close()
    assert loader.ready == 0
    alone = train(dataset)
    next(iter(alone))
    assert alone.ready == 0


def test_a_resumed_run_gets_the_batches_it_would_have_had(dataset):
    late = train(dataset, start_iteration=5)
    assert len(late) == 3
    assert all(map(same, late, list(train(dataset))[5:]))


def test_the_test_loader_shows_every_image_once_in_order(dataset):
    batches = list(
        build_test_loader(dataset, views=[Sample(0, 48)], workers=2, **{**SETTINGS, "images_per_batch": 4})
    )
    assert [m.image_id for b in batches for m in b.metas] == [1, 2, 3, 4, 5, 6]
    assert [len(b.images) for b in batches] == [4, 2] and batches[0].targets is None


def test_a_stretched_view_is_scaled_after_stretching_and_resampled_once(dataset):
    """Width round(ratio * W), then the rule of the short side; the view's own MAX_SIZE where it has one."""
    views = [Sample(0, 48, stretch=2.0), Sample(0, 48, stretch=2.0, flip_x=True, max_size=200), Sample(0, 48)]
    settings = {**SETTINGS, "images_per_batch": 1, "workers": 0, "resize_in_float": True}
    stretched, mirrored, plain, *_ = build_test_loader(dataset, views=views, **settings)
    assert stretched.sizes.tolist() == [[30, 80]] and stretched.metas[0].scale == 80 / 128
    assert mirrored.sizes.tolist() == [[48, 128]] and mirrored.metas[0].scale == 1
    assert (mirrored.metas[0].height, mirrored.metas[0].width, mirrored.metas[0].shown_size) == (
        48,
        64,
        (48, 128),
    )
    # twice as wide: each pixel lies between two of the original, 3/4 and 1/4
    image, wide = plain.images[0, :, :, :64], mirrored.images[0, :, :48, :128].flip(2)
    torch.testing.assert_close(wide[:, :, 2:-2:2], 0.75 * image[:, :48, 1:-1] + 0.25 * image[:, :48, :-2])


def test_sets_trained_together_are_all_seen_and_must_agree(dataset, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    content = coco(2)
    for entry in (*content["images"], *content["annotations"]):
        key = "id" if "file_name" in entry else "image_id"
        entry[key] += 100
    second = load_coco("second", *write(other, content), extent=1.0)
    settings = {
        "scales": (48,),
        "flip_x": False,
        "aspect_grouping": False,
        "seed": 0,
        "max_iter": 4,
        "workers": 0,
    }
    loader = build_train_loader([dataset, second], **SETTINGS, **settings)
    assert {m.image_id for b in loader for m in b.metas} == {1, 2, 3, 4, 6, 101, 102}
    content["categories"].reverse()
    third = load_coco("third", *write(other, content), extent=1.0)
    with pytest.raises(InputError, match="categories"):
        build_train_loader([dataset, third], **SETTINGS, **settings)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_during_the_run_is_named(dataset, workers):
    os.remove(dataset.records[0].file)
    with pytest.raises(InputError, match=r"img_0.png: no such image file") as e:
        list(train(dataset, workers=workers))
    assert "Traceback" not in str(e.value)


def test_a_dead_worker_stops_the_run_with_a_remedy(dataset):
    """torch's signal handler raises it wherever the main process is: in the loader, or between two batches."""
    loader = train(dataset, workers=1, max_iter=1_000_000)
    batches = iter(loader)
    next(batches)
    worker = next(w for w in torch.multiprocessing.active_children())
    with pytest.raises(RunError, match=r"worker.*NUM_THREADS"), worker_errors_named(loader):
        os.kill(worker.pid, signal.SIGKILL)
        for _ in range(1000):
            next(batches)


def test_a_worker_that_dies_between_two_batches_is_told_alike(dataset):
    loader = train(dataset, workers=1, max_iter=1_000_000)
    batches = iter(loader)
    next(batches)
    worker = next(w for w in torch.multiprocessing.active_children())
    with pytest.raises(RunError, match=r"worker.*img_.*NUM_THREADS"), worker_errors_named(loader):
        os.kill(worker.pid, signal.SIGKILL)
        time.sleep(5)


def test_news_of_a_dead_worker_during_the_shutdown_hide_nothing(dataset, monkeypatch):
    """torch raises it from a signal handler, at whatever the main process is doing."""
    kind = torch.utils.data.dataloader._MultiProcessingDataLoaderIter
    shut_down = kind._shutdown_workers

    def late(self):
        shut_down(self)
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(kind, "_shutdown_workers", late)
    for record in dataset.records:
        os.remove(record.file)
    with pytest.raises(InputError, match=r"no such image file"):
        list(train(dataset, workers=1))
    monkeypatch.undo()


def test_news_of_a_dead_worker_while_its_end_is_explained_hide_nothing(dataset, monkeypatch):
    """A batch on its way is lost first, and torch's signal handler comes in while that is being looked at."""
    loader = train(dataset, workers=1, max_iter=1000)
    explain, calls = loader.stopped, []

    def interrupted(error):
        calls.append(error)
        if len(calls) == 1:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        return explain(error)

    def lost(*_):
        raise EOFError

    batches = iter(loader)
    next(batches)
    monkeypatch.setattr(loader, "stopped", interrupted)
    monkeypatch.setattr(torch.utils.data.dataloader._BaseDataLoaderIter, "__next__", lost)
    with pytest.raises(RunError, match="a data worker stopped"):
        next(batches)
    assert len(calls) == 2


def test_workers_leave_signals_to_the_main_process(dataset):
    batches = iter(train(dataset, workers=1, max_iter=50))
    next(batches)
    for worker in torch.multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    time.sleep(0.2)
    assert sum(1 for _ in batches) == 49


@pytest.mark.parametrize("workers", [0, 1])
def test_random_numbers_are_drawn_where_the_loader_is_opened_and_not_on_the_way(dataset, workers):
    """A resumed run restores the random state after ``iter``: what is drawn later would shift all that follows."""
    torch.manual_seed(0)
    batches = iter(train(dataset, workers))
    opened = torch.get_rng_state()
    list(batches)
    assert torch.equal(torch.get_rng_state(), opened)
