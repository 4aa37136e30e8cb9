# SPDX-License-Identifier: Apache-2.0
"""What must fit, what may be missing, and what is said about it, at test and when a training begins."""

import logging

import pytest
import torch

from detectron_libra.builders.detector import build_detector
from detectron_libra.builders.weights import put_into
from detectron_libra.errors import InputError
from detectron_libra.weights.apply import apply_weights
from detectron_libra.weights.contents import OURS, Weights
from tests.builders import small

FOREIGN = "detectron"


def model_of(kind: str, **changes):
    cfg = small.config(kind, **changes)
    return cfg, build_detector(cfg, cfg.MODEL.NUM_CLASSES)


def numbered(state, without=()) -> dict[str, torch.Tensor]:
    """A state of the same names and shapes with other numbers."""
    return {
        name: torch.full_like(tensor, 0.5 + k)
        for k, (name, tensor) in enumerate(state.items())
        if not name.startswith(tuple(without))
    }


def refused(*parts: str):
    return pytest.raises(InputError, match=".*".join(parts))


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", "c4"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("origin", [OURS, FOREIGN])
def test_what_fits_is_copied(kind, training, origin):
    cfg, model = model_of(kind)
    state = numbered(model.state_dict())
    assert put_into(cfg, model, Weights("w", origin, state), training=training) == []
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "fresh"),
    [
        ("retinanet", ["head.cls_pred"]),
        ("faster_rcnn", ["regions.predictor.cls_score", "regions.predictor.bbox_pred"]),
    ],
)
@pytest.mark.parametrize("origin", [OURS, FOREIGN])
def test_class_dependent_layers_of_another_count_begin_afresh(kind, fresh, origin, caplog):
    """Fine-tuning: the layers that depend on the classes keep their fresh values, one warning lists them."""
    cfg, model = model_of(kind)
    state = numbered(model_of(kind, MODEL__NUM_CLASSES=11)[1].state_dict())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept = put_into(cfg, model, Weights("w", origin, state), training=True)
    assert kept == [f"{layer}.{part}" for layer in fresh for part in ("weight", "bias")]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name] if name in kept else state[name]), name
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1 and all(name in warnings[0] for name in kept)


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn"])
def test_at_test_another_count_of_classes_is_an_error_with_the_remedy(kind):
    cfg, model = model_of(kind)
    state = numbered(model_of(kind, MODEL__NUM_CLASSES=11)[1].state_dict())
    with refused("w: ", "set MODEL.NUM_CLASSES to that of the training"):
        put_into(cfg, model, Weights("w", FOREIGN, state), training=False)


def test_boxes_that_all_classes_share_do_not_depend_on_the_classes():
    cfg, model = model_of("faster_rcnn", MODEL__CLS_AGNOSTIC_BBOX_REG=True)
    state = numbered(model_of("faster_rcnn", MODEL__NUM_CLASSES=11)[1].state_dict())
    with refused("bbox_pred", "and 1 more differ", "set the configuration"):
        put_into(cfg, model, Weights("w", FOREIGN, state), training=True)


def test_another_number_of_anchors_is_an_error_in_training_too():
    cfg, model = model_of("retinanet")
    state = numbered(model_of("retinanet", RETINANET__SCALES_PER_OCTAVE=2)[1].state_dict())
    with refused("head.box_pred.weight is 24x", "the model's is 36x", "set the configuration"):
        put_into(cfg, model, Weights("w", FOREIGN, state), training=True)


def test_what_a_file_lacks_begins_afresh_in_training_with_a_warning_that_lists_it(caplog):
    """Detectron logs `not found` for each; it is an error at test, and in files of our own."""
    model = model_of("faster_rcnn")[1]
    state = numbered(model.state_dict(), without=["rpn."])
    missing = [name for name in model.state_dict() if name.startswith("rpn.")]
    assert apply_weights(model, Weights("w", FOREIGN, state), training=True) == missing
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert all(name in warning for name in missing)
    assert torch.equal(model.state_dict()["neck.output.2.weight"], state["neck.output.2.weight"])
    for origin, training in ((FOREIGN, False), (OURS, True), (OURS, False)):
        with refused("lacks rpn.conv.weight"):
            apply_weights(model, Weights("w", origin, state), training=training)


def test_weights_of_a_backbone_leave_the_rest_fresh_with_one_line_that_counts(caplog):
    caplog.set_level(logging.INFO)
    model = model_of("retinanet")[1]
    own = model.state_dict()
    weights = Weights("R-18.pkl", FOREIGN, numbered(own, without=["neck.", "head."]), backbone_only=True)
    fresh = apply_weights(model, weights, training=True)
    assert fresh == [name for name in own if not name.startswith("backbone.")]
    assert [r.levelno for r in caplog.records] == [logging.INFO]
    assert f"{len(fresh)} tensors" in caplog.text
    with refused("R-18.pkl: weights of a backbone", "TRAIN.WEIGHTS"):
        apply_weights(model, weights)


def test_a_backbone_that_is_not_whole_is_another_one():
    model = model_of("retinanet", RESNETS__STAGE_BLOCKS="(1, 2, 1, 1)")[1]
    state = numbered(model_of("retinanet")[1].state_dict())
    with refused("lacks backbone.res3.1.conv1.weight", "MODEL.CONV_BODY"):
        apply_weights(model, Weights("w", FOREIGN, state, backbone_only=True), training=True)


def test_statistics_of_batch_normalisation_may_be_missing():
    """Fresh ones, mean 0 and variance 1, leave the affine layer that Detectron's files hold."""
    model = model_of("retinanet", RESNETS__NORM="batch")[1]
    state = numbered(model_of("retinanet")[1].state_dict())
    fresh = apply_weights(model, Weights("w", FOREIGN, state), training=True)
    assert fresh and all(name.endswith(("running_mean", "running_var")) for name in fresh)
    assert torch.equal(model.state_dict()["backbone.stem.norm.weight"], state["backbone.stem.norm.weight"])


def test_weights_without_anything_that_fits():
    model = model_of("retinanet")[1]
    for training in (False, True):
        with refused("w: not weights of this"):
            apply_weights(model, Weights("w", FOREIGN, {"a.b": torch.zeros(1)}), training=training)


def test_parts_of_another_kind_of_detector_may_stay_unused(caplog):
    """A Fast R-CNN and an RPN each read the files of a Faster R-CNN."""
    caplog.set_level(logging.INFO)
    state = numbered(model_of("faster_rcnn")[1].state_dict())
    for kind, unused in (("fast_rcnn", "rpn.conv.weight"), ("rpn_only", "regions.head.fc6.weight")):
        model = model_of(kind)[1]
        assert apply_weights(model, Weights("w", FOREIGN, state)) == []
        assert f"not used by this model: {unused}" in caplog.text


def test_a_balanced_pyramid_that_the_model_lacks_is_an_error_at_test():
    """Without it the other layers would compute something else than they were trained for."""
    libra = small.libra("retinanet")
    state = numbered(build_detector(libra, 4).state_dict())
    for origin in (OURS, FOREIGN):
        with refused("has unknown balance.refine", "use the configuration"):
            apply_weights(model_of("retinanet")[1], Weights("w", origin, state))


@pytest.mark.parametrize(("to", "of"), [("c4", "faster_rcnn"), ("retinanet", "c4")])
def test_the_last_stage_of_a_backbone_goes_where_the_model_has_it(to, of):
    """Stage 5 is the end of the backbone below a pyramid, and the box head of a model without one."""
    model = model_of(to)[1]
    state = {
        n: t for n, t in numbered(model_of(of)[1].state_dict()).items() if "backbone." in n or "res5." in n
    }
    apply_weights(model, Weights("w", FOREIGN, state, backbone_only=True), training=True)
    places = {
        "c4": "regions.head.res5.0.",
        "retinanet": "backbone.res5.0.",
        "faster_rcnn": "backbone.res5.0.",
    }
    name = "conv2.weight"
    assert torch.equal(model.state_dict()[places[to] + name], state[places[of] + name])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("source", "target"), [("none", "inverse"), ("inverse", "none"), ("inverse", "inverse")]
)
@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn"])
def test_what_a_loss_counted_is_neither_asked_for_nor_taken(kind, source, target, training):
    """It belongs to a run: a checkpoint brings it back, and another training counts its own data."""
    cfg, model = model_of(kind, LOSS__CLASS_WEIGHTS__KIND=target)
    state = numbered(model_of(kind, LOSS__CLASS_WEIGHTS__KIND=source)[1].state_dict())
    assert put_into(cfg, model, Weights("w", OURS, state), training=training) == []
    after = model.state_dict()
    own = [name for name in after if "class_loss." in name]
    assert len(own) == (target == "inverse") and all((after[name] == 1).all() for name in own)
    assert all(torch.equal(after[name], state[name]) for name in after if name not in own)
