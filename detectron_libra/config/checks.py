# SPDX-License-Identifier: Apache-2.0
"""Values that are right each by itself and do not go together."""

from collections.abc import Iterator

from detectron_libra.config.schema import Config

#: e to a larger power than this leaves the range of float32 (b of the balanced L1 loss).
LARGEST_EXPONENT = 80.0

#: (keys that are involved, what is wrong and the remedy); the first key is the one to name.
Contradiction = tuple[tuple[str, ...], str]


def pyramid_levels(cfg: Config) -> tuple[int, int]:
    """Finest and coarsest level that the FPN has. Source: Detectron's modeling/FPN.py, get_min_max_levels."""
    ranges = []
    if cfg.FPN.MULTILEVEL_RPN:
        ranges.append((cfg.FPN.RPN_MIN_LEVEL, cfg.FPN.RPN_MAX_LEVEL))
    if cfg.FPN.MULTILEVEL_ROIS:
        ranges.append((cfg.FPN.ROI_MIN_LEVEL, cfg.FPN.ROI_MAX_LEVEL))
    if not ranges:
        return 2, 5
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def contradictions(cfg: Config) -> Iterator[Contradiction]:
    """Everything in ``cfg`` that cannot be, each with its remedy."""
    yield from _model(cfg)
    yield from _group_norm(cfg)
    yield from _pyramid(cfg)
    yield from _sampling(cfg)
    yield from _imbalance(cfg)
    yield from _solver(cfg)
    yield from _augmentation(cfg)


def _model(cfg: Config) -> Iterator[Contradiction]:
    model, retinanet = cfg.MODEL, cfg.RETINANET.RETINANET_ON
    for name in ("MASK_ON", "KEYPOINTS_ON"):
        if getattr(model, name):
            yield (
                (f"MODEL.{name}",),
                f"masks and keypoints are not available; boxes are: set MODEL.{name} False",
            )
    if model.NUM_CLASSES in (0, 1):
        yield (
            ("MODEL.NUM_CLASSES",),
            f"{model.NUM_CLASSES} leaves no class beside the background, which counts too; "
            "-1 takes the number from the training set",
        )
    if retinanet and (model.FASTER_RCNN or model.RPN_ONLY):
        other = "FASTER_RCNN" if model.FASTER_RCNN else "RPN_ONLY"
        yield (
            ("RETINANET.RETINANET_ON", f"MODEL.{other}"),
            f"a model is a RetinaNet or an R-CNN; set RETINANET.RETINANET_ON False or MODEL.{other} False",
        )
    if retinanet != (model.TYPE == "retinanet") and model.TYPE:
        yield (
            ("MODEL.TYPE", "RETINANET.RETINANET_ON"),
            f"{model.TYPE!r} does not go with RETINANET.RETINANET_ON {retinanet}; "
            f"set RETINANET.RETINANET_ON {not retinanet} or another MODEL.TYPE",
        )
    if retinanet and not cfg.FPN.FPN_ON:
        yield ("FPN.FPN_ON", "RETINANET.RETINANET_ON"), "a RetinaNet needs the pyramid; set FPN.FPN_ON True"


def _group_norm(cfg: Config) -> Iterator[Contradiction]:
    size, count = cfg.GROUP_NORM.DIM_PER_GP, cfg.GROUP_NORM.NUM_GROUPS
    keys = ("GROUP_NORM.DIM_PER_GP", "GROUP_NORM.NUM_GROUPS")
    if size > 0 and count > 0:
        yield keys, f"{size} goes with GROUP_NORM.NUM_GROUPS -1, not {count}; set one of the two to -1"
    if size < 1 and count < 1:
        yield keys, f"{size} goes with GROUP_NORM.NUM_GROUPS 1 or more, not {count}; set one of the two"


def _pyramid(cfg: Config) -> Iterator[Contradiction]:
    fpn = cfg.FPN
    for name in ("RPN", "ROI"):
        low, high = getattr(fpn, f"{name}_MIN_LEVEL"), getattr(fpn, f"{name}_MAX_LEVEL")
        if low > high:
            keys = (f"FPN.{name}_MIN_LEVEL", f"FPN.{name}_MAX_LEVEL")
            yield keys, f"{low} is above FPN.{name}_MAX_LEVEL {high}; lower it"
    if not cfg.LIBRA.PYRAMID.ON:
        return
    if not fpn.FPN_ON:
        yield ("LIBRA.PYRAMID.ON", "FPN.FPN_ON"), "there is no pyramid to balance; set FPN.FPN_ON True"
        return
    level, (low, high) = cfg.LIBRA.PYRAMID.REFINE_LEVEL, pyramid_levels(cfg)
    if not low <= level <= high:
        yield (
            ("LIBRA.PYRAMID.REFINE_LEVEL",),
            f"the pyramid has no level {level}; take one from {low} to {high}",
        )


def _sampling(cfg: Config) -> Iterator[Contradiction]:
    train, libra, retinanet = cfg.TRAIN, cfg.LIBRA, cfg.RETINANET.RETINANET_ON
    limits = [
        (("TRAIN.BG_THRESH_LO", train.BG_THRESH_LO), ("TRAIN.BG_THRESH_HI", train.BG_THRESH_HI)),
        (
            ("TRAIN.RPN_NEGATIVE_OVERLAP", train.RPN_NEGATIVE_OVERLAP),
            ("TRAIN.RPN_POSITIVE_OVERLAP", train.RPN_POSITIVE_OVERLAP),
        ),
        (
            ("RETINANET.NEGATIVE_OVERLAP", cfg.RETINANET.NEGATIVE_OVERLAP),
            ("RETINANET.POSITIVE_OVERLAP", cfg.RETINANET.POSITIVE_OVERLAP),
        ),
    ]
    for (low_key, low), (high_key, high) in limits:
        if low > high:
            yield (low_key, high_key), f"{low} is above {high_key} {high}; lower it"
    if retinanet and libra.IOU_SAMPLING.ON and libra.IOU_SAMPLING.NEGATIVES_PER_IM == 0:
        yield (
            ("LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM", "LIBRA.IOU_SAMPLING.ON"),
            "0 leaves a RetinaNet nothing to choose; set the negatives per image, e.g. 1000, "
            "or LIBRA.IOU_SAMPLING.ON False",
        )
    ratio = libra.BALANCED_L1.GAMMA / libra.BALANCED_L1.ALPHA
    if ratio > LARGEST_EXPONENT:
        yield (
            ("LIBRA.BALANCED_L1.ALPHA", "LIBRA.BALANCED_L1.GAMMA"),
            f"GAMMA / ALPHA is {ratio:.3g}, and e to that power is too large; keep it under {LARGEST_EXPONENT}",
        )
    if libra.BALANCED_L1.FORM == "released" and libra.BALANCED_L1.BETA > 1:
        yield (
            ("LIBRA.BALANCED_L1.BETA", "LIBRA.BALANCED_L1.FORM"),
            f"{libra.BALANCED_L1.BETA} pushes boxes off their targets in FORM released; use at most 1, or FORM paper",
        )
    if retinanet and (cfg.LOSS.WEIGHTS.RPN_CLS != 1 or cfg.LOSS.WEIGHTS.RPN_BBOX != 1):
        keys = ("LOSS.WEIGHTS.RPN_CLS", "LOSS.WEIGHTS.RPN_BBOX")
        yield keys, "a RetinaNet has no RPN; leave them at 1 and use LOSS.WEIGHTS.CLS and BBOX"
    if not retinanet and libra.IOU_SAMPLING.NEGATIVES_PER_IM:
        yield (
            ("LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM", "RETINANET.RETINANET_ON"),
            "it is for RetinaNet; set it to 0 (TRAIN.BATCH_SIZE_PER_IM is a Faster R-CNN's number of regions)",
        )
    if retinanet and libra.INSTANCE_SAMPLING.ON:
        yield (
            ("LIBRA.INSTANCE_SAMPLING.ON", "RETINANET.RETINANET_ON"),
            "a RetinaNet uses all positives and samples none; set LIBRA.INSTANCE_SAMPLING.ON False",
        )


def _imbalance(cfg: Config) -> Iterator[Contradiction]:
    loss, retinanet = cfg.LOSS, cfg.RETINANET.RETINANET_ON
    box, classes, weights = "LOSS.BOX.KIND", "LOSS.CLASSIFIER.KIND", "LOSS.CLASS_WEIGHTS.KIND"
    if loss.BOX.KIND != "plain" and cfg.LIBRA.BALANCED_L1.ON:
        yield (
            (box, "LIBRA.BALANCED_L1.ON"),
            f"{loss.BOX.KIND} and LIBRA.BALANCED_L1.ON True are two losses of the same boxes; "
            f"set {box} plain or LIBRA.BALANCED_L1.ON False",
        )
    if loss.CLASSIFIER.KIND == "seesaw" and retinanet:
        yield (
            (classes, "RETINANET.RETINANET_ON"),
            f"seesaw is a loss of the Fast R-CNN head; set it to plain ({weights} is there for a RetinaNet)",
        )
    if loss.CLASSIFIER.KIND == "seesaw" and loss.CLASS_WEIGHTS.KIND != "none":
        yield (
            (classes, weights),
            f"seesaw and {weights} {loss.CLASS_WEIGHTS.KIND} both balance the classes; set {weights} none",
        )
    off = {box: ("plain", loss.BOX.KIND), classes: ("plain", loss.CLASSIFIER.KIND)}
    for name, (plain, kind) in {**off, weights: ("none", loss.CLASS_WEIGHTS.KIND)}.items():
        if cfg.MODEL.RPN_ONLY and kind != plain:
            yield (
                (name, "MODEL.RPN_ONLY"),
                f"{kind} has no part in a proposal network alone; set it to {plain}",
            )
    if cfg.ASSIGNER.KIND != "iou" and not (retinanet or cfg.RPN.RPN_ON):
        yield (
            ("ASSIGNER.KIND", "MODEL.FASTER_RCNN"),
            f"{cfg.ASSIGNER.KIND} assigns anchors, and this detector has none; set it to iou",
        )


def _solver(cfg: Config) -> Iterator[Contradiction]:
    solver = cfg.SOLVER
    if solver.LR_POLICY in ("steps_with_decay", "steps_with_lrs"):
        keys = ("SOLVER.STEPS", "SOLVER.LR_POLICY")
        if not solver.STEPS or solver.STEPS[0] != 0:
            yield keys, f"{solver.STEPS} must begin with 0 for {solver.LR_POLICY}, e.g. [0, 60000, 80000]"
        elif sorted(set(solver.STEPS)) != solver.STEPS:
            yield keys, f"{solver.STEPS} must grow from step to step"
    if solver.LR_POLICY == "steps_with_lrs" and len(solver.LRS) != len(solver.STEPS):
        count = f"{len(solver.LRS)} learning rates for {len(solver.STEPS)} steps"
        yield ("SOLVER.LRS", "SOLVER.STEPS", "SOLVER.LR_POLICY"), f"{count}; give one for each"


def _augmentation(cfg: Config) -> Iterator[Contradiction]:
    aug = cfg.TEST.BBOX_AUG
    if not aug.ENABLED:
        return
    scores, boxes = "TEST.BBOX_AUG.SCORE_HEUR", "TEST.BBOX_AUG.COORD_HEUR"
    if aug.SCALE_SIZE_DEP:
        yield (
            ("TEST.BBOX_AUG.SCALE_SIZE_DEP",),
            "scales by the size of objects are not available, nor are they in Detectron; set it to False",
        )
    if (aug.SCORE_HEUR == "UNION") != (aug.COORD_HEUR == "UNION"):
        yield (
            (scores, boxes),
            f"{aug.SCORE_HEUR} does not go with {boxes} {aug.COORD_HEUR}; set both to UNION, or neither",
        )
    elif aug.SCORE_HEUR != "UNION" and not cfg.TEST.PRECOMPUTED_PROPOSALS:
        yield (
            (scores, boxes),
            f"{aug.SCORE_HEUR} and {boxes} {aug.COORD_HEUR} need the same stored proposals in every view; "
            "set both to UNION",
        )
    if cfg.MODEL.RPN_ONLY:
        yield (
            ("TEST.BBOX_AUG.ENABLED", "MODEL.RPN_ONLY"),
            "a proposal network alone has no detections to merge; set TEST.BBOX_AUG.ENABLED False",
        )
