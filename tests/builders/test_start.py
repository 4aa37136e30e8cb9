# SPDX-License-Identifier: Apache-2.0
"""A resumed run may differ in what training does not depend on, and in nothing else."""

from pathlib import Path

import numpy as np
import pytest

from detectron_libra.builders.start import FREE_KEYS, refuse_changes
from detectron_libra.config import dump, load_config
from detectron_libra.config.fields import construct, values_of
from detectron_libra.config.schema import KEYS, Config
from detectron_libra.engine.checkpoint import Checkpoint
from detectron_libra.errors import UsageError

CONFIG = Path(__file__).resolve().parents[2] / "configs/quickstart/libra_retinanet_shapes.yaml"
#: The keys of the promise; the code frees a few more that only say what is written where.
PROMISED = ("SOLVER.MAX_ITER", "OUTPUT_DIR", "TEST.", "DATA.WORKERS", "DATA_LOADER.NUM_THREADS")


@pytest.fixture(scope="module")
def cfg():
    return load_config(CONFIG)


def changed(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float, np.ndarray)):
        return value + 1
    return value + "x" if isinstance(value, str) else (*value, 1)


def is_free(name):
    return name.startswith(FREE_KEYS)


def resume(cfg, names, *, force=False):
    """Goes on from a checkpoint of ``cfg`` with other values of some keys."""
    values = values_of(cfg)
    other = construct(Config, values | {name: changed(values[name]) for name in names})
    found = Checkpoint(Path("model_iter9.pt"), {"config": dump(cfg), "iteration": 9})
    refuse_changes(other, found, force=force)


def test_what_may_change_freely(cfg):
    resume(cfg, [name for name in KEYS if name.startswith(PROMISED)])


def test_every_other_key_is_refused_by_name_with_both_values_and_allowed_by_force(cfg):
    names = [name for name in KEYS if not is_free(name) and name != "DATASETS"]
    assert len(names) > 150
    with pytest.raises(UsageError, match="model_iter9.pt: .*--force") as error:
        resume(cfg, names)
    told = str(error.value).partition("changed since: ")[2].split("; ")
    for name in names:
        assert sum(line.startswith(f"{name}: ") and " -> " in line for line in told) == 1, name
    resume(cfg, names, force=True)


def test_nothing_that_is_trained_is_free():
    """The free keys by their sections: no sampling, loss, model or optimizer but the length of the run."""
    free = {n for n in KEYS if is_free(n)}
    assert not {n for n in free if n.startswith(("MODEL.", "LIBRA.", "LOSS.", "FPN.", "RPN.", "RETINANET."))}
    assert {n for n in free if n.startswith("SOLVER.")} == {"SOLVER.MAX_ITER"}


def test_another_training_set_under_the_same_name_is_refused(cfg):
    name = cfg.TRAIN.DATASETS[0]
    sets = {**cfg.DATASETS, name: {"IM_DIR": "/elsewhere", "ANN_FN": "/elsewhere.json"}}
    other = construct(Config, values_of(cfg) | {"DATASETS": sets})
    found = Checkpoint(Path("model_iter9.pt"), {"config": dump(cfg), "iteration": 9})
    with pytest.raises(UsageError, match=f"DATASETS.{name}: .*elsewhere"):
        refuse_changes(other, found, force=False)
