# SPDX-License-Identifier: Apache-2.0
"""A step that was not finite, run again from its file: what `tools/replay_batch.py` does."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from detectron_libra.builders import session
from detectron_libra.builders.detector import build_detector, loss_weights
from detectron_libra.builders.testing import precision_of
from detectron_libra.config import parse_config, with_options
from detectron_libra.engine import replay
from detectron_libra.engine.guard import memory_errors_named
from detectron_libra.engine.locate import Finding, is_finite, watched
from detectron_libra.engine.step import losses_of
from detectron_libra.engine.weights_file import load_weights
from detectron_libra.errors import InputError


def replay_batch(path: Path, opts: Sequence[str] = (), weights: Path | None = None) -> list[str]:
    """Runs the model of the file forward and backward on the batch of the file.

    Args:
        path: nonfinite_iter<N>.pt of a training.
        opts: ``[KEY, VALUE, ...]`` over the configuration in the file, such as ``TRAIN.PRECISION fp32``.
        weights: .safetensors or checkpoint to use instead of the weights in the file.

    Returns:
        Lines to read.

    Raises:
        InputError: a file cannot be read, or the weights are of another model. UsageError: a key.
    """
    again = replay.load(path)
    state = again.state
    cfg = with_options(parse_config(state["config"], str(path)), opts)
    device = session.start(cfg)
    weighted = cfg.LOSS.CLASS_WEIGHTS.KIND != "none"
    # the file has the weights of the classes; counts only make their place in the model
    counts = torch.ones(cfg.MODEL.NUM_CLASSES - 1, dtype=torch.int64) if weighted else None
    model = build_detector(cfg, cfg.MODEL.NUM_CLASSES, counts)
    values, source = (load_weights(weights)[0], weights) if weights else (state["model"], path)
    try:
        model.load_state_dict(values)
    except RuntimeError as e:
        reason = " ".join(str(e).split())[:200]
        raise InputError(f"{source}: the weights are of another model ({reason})") from e
    model = session.place(cfg, model, device).train()
    replay.restore_random_state(state)
    batch = again.batch.to(device)
    try:
        with watched(model) as found, memory_errors_named(batch):
            raw, _, total = losses_of(model, batch, loss_weights(cfg), precision_of(cfg, training=True))
            total.backward()
    except (RuntimeError, IndexError) as e:
        reason = " ".join(str(e).split())[:200]
        raise InputError(f"{path}: the model cannot run the batch ({reason})") from e
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return [*_then(state), *_now(raw, total, norm), *_where(found, model, raw)]


def _then(state: Mapping) -> Iterator[str]:
    losses = ", ".join(f"{name} {value:.6g}" for name, value in state["losses"].items())
    yield f"iteration {state['iteration']}, lr {state['lr']:.6g}, images: {', '.join(state.get('files', ()))}"
    yield f"in the run: {losses}, gradient norm {state['grad_norm']:.6g}"


def _now(raw: Mapping[str, Tensor], total: Tensor, norm: Tensor) -> Iterator[str]:
    for name, value in raw.items():
        yield f"loss {name}: {value.item():.9g}"
    yield f"weighted sum: {total.item():.9g}"
    yield f"gradient norm: {norm.item():.9g}"


def _where(found: Finding, model: nn.Module, raw: Mapping[str, Tensor]) -> Iterator[str]:
    if found.weights:
        yield f"weights that are not finite: {', '.join(found.weights[:8])} ({len(found.weights)} in all)"
    if found.module is None:
        yield "every module's output is finite"
    elif not found.module:
        parts = ", ".join(name for name, value in raw.items() if not is_finite(value))
        yield f"every module inside the model gives finite numbers; the loss does not: {parts}"
    else:
        kind = type(model.get_submodule(found.module)).__name__
        inputs = "finite" if found.inputs_finite else "not finite either"
        yield f"first module with an output that is not finite: {found.module} ({kind}); its inputs are {inputs}"
    if found.gradient is not None:
        yield f"first gradient that is not finite: {found.gradient}"
    elif found.module is None:
        yield "every gradient is finite"
