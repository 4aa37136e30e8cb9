# SPDX-License-Identifier: Apache-2.0
"""How a test is divided: images as NumPy's array_split divides them, GPUs and threads among the processes."""

import dataclasses

import numpy as np
import pytest
import torch
import yaml

from detectron_libra.builders import pieces
from detectron_libra.builders.pieces import count_processes, cut, split
from detectron_libra.config import load_config
from detectron_libra.errors import UsageError
from tests.evaluation.scenes import dataset, record


@pytest.mark.parametrize(("count", "parts"), [(5, 2), (10, 3), (3, 8), (1, 1), (16, 4), (4952, 8), (0, 3)])
def test_ranges_are_those_of_array_split_without_empty_ones(count, parts):
    expected = [(int(p[0]), int(p[-1]) + 1) for p in np.array_split(np.arange(count), parts) if len(p)]
    assert split(count, parts) == expected


def test_a_cut_keeps_ids_and_everything_else():
    data = dataset([record(k) for k in (3, 5, 8, 9)])
    part = cut(data, (1, 3))
    assert [r.image_id for r in part.records] == [5, 8]
    assert dataclasses.replace(part, records=data.records) == data
    with pytest.raises(UsageError, match="--range 3 5: scene has 4 images"):
        cut(data, (3, 5))


def test_gpus_are_those_that_this_process_sees(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-0a1b,7")
    given = [e["CUDA_VISIBLE_DEVICES"] for e in pieces._environments(2, on_gpus=True)]
    assert given == ["4", "GPU-0a1b"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    given = [e["CUDA_VISIBLE_DEVICES"] for e in pieces._environments(3, on_gpus=True)]
    assert given == ["0", "1", "2"]
    assert all("CUDA_VISIBLE_DEVICES" not in e for e in pieces._environments(2, on_gpus=False))


def test_there_are_not_more_processes_than_gpus(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    eight = load_config(None, ["NUM_GPUS", "8"])
    assert count_processes(eight, torch.device("cuda")) == 2
    assert "NUM_GPUS is 8, torch sees 2" in caplog.text
    assert count_processes(eight, torch.device("cpu")) == 8


def test_processes_on_a_cpu_share_its_threads_and_readers(monkeypatch):
    cfg = load_config(None, ["CPU.THREADS", "7", "DATA.WORKERS", "4", "TEST.DATASETS", "('a', 'b')"])
    mine = pieces._config_of_pieces(cfg, "b", "w.safetensors", 3, on_gpus=False)
    assert (mine.CPU.THREADS, mine.DATA.WORKERS, mine.NUM_GPUS) == (2, 1, 1)
    assert (mine.TEST.DATASETS, mine.TEST.WEIGHTS) == (("b",), "w.safetensors")
    none = pieces._config_of_pieces(load_config(None, ["DATA.WORKERS", "0"]), "b", "w", 3, on_gpus=True)
    assert none.DATA.WORKERS == 0 and none.CPU.THREADS == 0


def test_the_configuration_of_the_pieces_reads_back_whatever_the_names(tmp_path):
    cfg = load_config(None, ["TEST.DATASETS", "('null',)"])
    mine = pieces._config_of_pieces(cfg, "null", "1e3.pkl", 2, on_gpus=True)
    file = tmp_path / "c.yaml"
    file.write_text(pieces.dump(mine))
    assert load_config(file).TEST.DATASETS == ("null",) and load_config(file).TEST.WEIGHTS == "1e3.pkl"
    assert yaml.safe_load(file.read_text())["NUM_GPUS"] == 1
