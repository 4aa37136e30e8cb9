# SPDX-License-Identifier: Apache-2.0
"""A detector-shaped toy that trains for real in milliseconds; `python -m tests.engine.toy` is such a run."""

import argparse
import logging
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from detectron_libra.engine import checkpoint
from detectron_libra.engine.optim import build_optimizer
from detectron_libra.engine.schedule import LearningRate
from detectron_libra.engine.signals import StopFlag
from detectron_libra.engine.train import train
from detectron_libra.structures import Batch, Detections, ImageMeta

CLASS_NAMES = ("circle", "square")


class Toy(nn.Module):
    """A convolution, a normalisation and a head; draws from the global random state as dropout does."""

    def __init__(self, channels: int = 4):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.GroupNorm(2, channels)
        self.head = nn.Linear(channels, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]] | list[Detections]:
        x = nn.functional.dropout(self.norm(self.conv(batch.images / 255)), 0.5, self.training).mean((2, 3))
        scores = self.head(x).float()
        if not self.training:
            return [Detections(torch.zeros(1, 4), s[:1].sigmoid(), torch.ones(1).long()) for s in scores]
        losses = {"cls": (scores[:, 0] - 1).square().mean(), "bbox": scores[:, 1].abs().mean()}
        return losses, {"positives": scores.new_tensor(3.0)}


class Data:
    """Batches that depend on nothing but the iteration; iterating draws a seed, as a DataLoader does."""

    def __init__(self, start: int, end: int, delay: float = 0.0):
        self.start, self.end, self.delay = start, end, delay

    def __iter__(self):
        torch.empty((), dtype=torch.int64).random_()
        return (self.batch(i) for i in range(self.start, self.end))

    def batch(self, iteration: int) -> Batch:
        time.sleep(self.delay)
        images = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(iteration))
        metas = tuple(
            ImageMeta(2 * iteration + k, f"image_{2 * iteration + k}.jpg", 8, 8, 1.0) for k in (0, 1)
        )
        return Batch(images.to(torch.uint8), torch.full((2, 2), 8), None, metas)


def run(folder: Path, *, max_iter: int = 24, delay: float = 0.0, lr: float = 0.05, **options) -> Path:
    """Trains the toy in ``folder``, from its newest checkpoint if there is one."""
    torch.manual_seed(3)
    model = Toy()
    optimizer = build_optimizer(model, lr=lr, weight_decay=1e-4)
    found = checkpoint.latest(folder)
    start = checkpoint.restore(found, model, optimizer, class_names=CLASS_NAMES) if found else 0
    return train(
        model,
        options.pop("loader", None) or Data(start, max_iter, delay),
        optimizer,
        LearningRate(lr, "cosine", max_iter=max_iter, warm_up_iters=5),
        resume=found,
        max_iter=max_iter,
        folder=folder,
        **{
            "loss_weights": {"cls": 1.0, "bbox": 0.5},
            "snapshot_period": 5,
            "log_period": 1,
            "class_names": CLASS_NAMES,
            "config_text": "A: 1\n",
        }
        | options,
    )


def main() -> None:
    """A process that can be killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--max-iter", type=int, default=24)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(1)
    with StopFlag() as stop:
        run(args.folder, max_iter=args.max_iter, delay=args.delay, stop=stop)


if __name__ == "__main__":
    main()
