# SPDX-License-Identifier: Apache-2.0
"""Seesaw loss: rare classes are spared by the many objects of frequent ones, but where they score too high."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron_libra.modeling.slots import RegionLesson


def log_seesaw_factors(logits: Tensor, labels: Tensor, counts: Tensor, *, p: float, q: float) -> Tensor:
    """Logarithm of S: what the class of each region multiplies the exponentials of the other classes by.

    S_ij = M_ij * C_ij for the class i of the region and another one j: mitigation M_ij = min(1, N_j / N_i)^p,
    compensation C_ij = max(1, sigma_j / sigma_i)^q. S_ii is 1.

    Args:
        logits: (R, K) float32 of the classes without background; sigma is their softmax.
        labels: (R,) int64 in 0..K-1; counts: (K,) N, regions of each class so far; classes without one count as 1.

    Returns:
        (R, K) float32, without gradient.

    Source: Wang et al., Seesaw Loss, CVPR 2021, arXiv:2008.10032, section 3.
    """
    logits = logits.detach()
    number = counts.clamp(min=1).to(logits.dtype).log()
    mitigation = (number - number[labels][:, None]).clamp(max=0)
    # The denominator of the softmax is that of both, and falls out of the ratio.
    compensation = (logits - logits.gather(1, labels[:, None])).clamp(min=0)
    return p * mitigation + q * compensation


class SeesawLoss(nn.Module):
    """Seesaw loss of the Fast R-CNN head's classes; the background is told apart as by the cross entropy.

    The paper has an output for "object or not" of its own. Here the softmax with background is read as the product that
    it is: object or not (log of the summed exponentials of all classes against the background's logit), and which
    class. The second part of positives is the paper's loss; with p = q = 0 the whole is the cross entropy. So weights
    keep their shapes, and scores are computed as ever.

    Args:
        num_classes: K, without background.
        p: strength of mitigation; q: of compensation.

    ``counts`` (K,) int64 are the positives seen so far; a buffer, saved with the weights of a run.

    Source: Wang et al., Seesaw Loss, CVPR 2021, arXiv:2008.10032, section 3.
    """

    counts: Tensor

    def __init__(self, *, num_classes: int, p: float = 0.8, q: float = 2.0):
        super().__init__()
        self.num_classes, self.p, self.q = num_classes, p, q
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))

    def forward(self, lesson: RegionLesson) -> Tensor:
        """0-d float32: the sum over the regions divided by their number. Counts the positives first, in training."""
        positive = (lesson.classes > 0) & lesson.valid
        if self.training:
            self._count(lesson.classes, positive)
        background, classes = lesson.logits[:, 0], lesson.logits[:, 1:]
        objectness = classes.logsumexp(1) - background
        either = F.binary_cross_entropy_with_logits(
            objectness, positive.to(objectness.dtype), reduction="none"
        )
        labels = (lesson.classes - 1).clamp(min=0)
        factors = log_seesaw_factors(classes, labels, self.counts, p=self.p, q=self.q)
        which = F.cross_entropy(classes + factors, labels, reduction="none")
        return (either * lesson.valid + which * positive).sum() / lesson.normalizer

    def probabilities(self, logits: Tensor) -> Tensor:
        """(R, C): the softmax of logits (R, C), p(object) p(class | object)."""
        return logits.softmax(-1)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, p={self.p}, q={self.q}"

    @torch.no_grad()
    def _count(self, classes: Tensor, positive: Tensor) -> None:
        each = torch.arange(1, self.num_classes + 1, device=classes.device)
        self.counts += ((classes[:, None] == each) & positive[:, None]).sum(0)
