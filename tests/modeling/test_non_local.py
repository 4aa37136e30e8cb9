# SPDX-License-Identifier: Apache-2.0
"""Non-local block: the reference's numbers, one result from all ways to compute it, memory linear in H W."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from detectron_libra.errors import UsageError
from detectron_libra.modeling.necks import non_local
from detectron_libra.modeling.necks.non_local import ATTENTIONS, NonLocal, attend, row_blocks
from tests.golden import load


def embeddings(n=2, p=130, c=16, scale=1.0, dtype=torch.float64):
    torch.manual_seed(3)
    return [(torch.randn(n, p, c, dtype=torch.float64) * scale).to(dtype).requires_grad_() for _ in range(3)]


def gradients(how, tensors):
    output = attend(*tensors, how=how)
    torch.manual_seed(4)
    upstream = torch.randn(output.shape, dtype=torch.float64).to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, tensors, upstream)]


def assert_near(found, expected, scale):
    """Within float32's rounding of the sums behind it, which grows with their largest value."""
    assert (found - expected).abs().max() <= 2e-5 * scale


def largest_saved(function):
    """Elements of the largest tensor that autograd keeps while ``function`` runs."""
    sizes = [0]

    def pack(tensor):
        sizes.append(tensor.untyped_storage().nbytes() // tensor.element_size())
        return tensor

    with saved_tensors_hooks(pack, lambda t: t):
        function().sum().backward()
    return max(sizes)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("k", [0, 7])
def test_golden_numbers_of_mmcv(k, attention):
    arrays, _ = load("non_local")
    values = {n: torch.from_numpy(v) for n, v in arrays.items()}
    block = NonLocal(values[f"k{k}_x"].shape[1], attention=attention)
    prefix = f"k{k}_w."
    weights = {n[len(prefix) :].replace(".conv.", "."): v for n, v in values.items() if n.startswith(prefix)}
    block.load_state_dict(weights)
    x = values[f"k{k}_x"].requires_grad_()
    y = block(x)
    y.backward(values[f"k{k}_u"])
    assert_near(y, values[f"k{k}_y"], y.detach().abs().max())
    assert_near(x.grad, values[f"k{k}_gx"], x.grad.abs().max())
    # phi's bias has a gradient of 0 but for rounding: a constant in each row of logits.
    largest = max(p.grad.abs().max() for p in block.parameters())
    for name, parameter in block.named_parameters():
        layer, _, part = name.partition(".")
        assert_near(parameter.grad, values[f"k{k}_gw.{layer}.conv.{part}"], largest)


@pytest.mark.parametrize("how", ATTENTIONS)
def test_every_way_is_the_softmax_of_unscaled_products(how, monkeypatch):
    monkeypatch.setattr(non_local, "TILE_ELEMENTS", 2 * 130 * 48)
    assert len(row_blocks(2, 130)) == 3
    query, key, value = embeddings()
    expected = torch.softmax(query @ key.mT, -1) @ value
    torch.testing.assert_close(attend(query, key, value, how=how), expected, rtol=1e-10, atol=1e-10)
    for a, b in zip(gradients(how, [query, key, value]), gradients("explicit", embeddings()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_tiled_gradient_passes_gradcheck(monkeypatch):
    monkeypatch.setattr(non_local, "TILE_ELEMENTS", 1)
    tensors = embeddings(n=1, p=19, c=3)
    assert len(row_blocks(1, 19)) == 2
    assert torch.autograd.gradcheck(lambda *t: attend(*t, how="tiled"), tensors)


@pytest.mark.parametrize("how", ["explicit", "tiled", "sdpa"])
def test_bf16_is_close_to_float64(how):
    """With logits of standard deviation 4: far from uniform weights."""
    exact = gradients("explicit", embeddings(p=300, scale=1.0))
    for a, b in zip(gradients(how, embeddings(p=300, scale=1.0, dtype=torch.bfloat16)), exact, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a.double() - b).norm() < 0.03 * b.norm()


@pytest.mark.parametrize("how", ["explicit", "tiled"])
def test_a_common_offset_of_the_keys_costs_bf16_no_accuracy(how):
    """A bias of phi adds one number to a row of logits; logits rounded with it would lose the weights."""
    query, key, value = (t.detach() for t in embeddings(dtype=torch.bfloat16))
    shifted = key.float() + 8
    expected = torch.softmax(query.double() @ shifted.bfloat16().double().mT, -1) @ value.double()
    found = attend(query, shifted.bfloat16(), value, how=how)
    assert (found.double() - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_sizes_store_no_matrix_of_positions_by_positions(dtype):
    """60 x 70 positions, an 800-pixel image at stride 16: 17.6 million weights an image, never kept."""
    h, w, c = 60, 70, 16
    block, x = NonLocal(c), torch.randn(1, c, h, w)

    def run():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            return block(x)

    assert 0 < largest_saved(run) <= h * w * c
    block.attention = "explicit"
    assert largest_saved(run) >= (h * w) ** 2, "the measurement sees a stored matrix"


def test_tiles_are_bounded_at_any_size():
    for images, positions in ((1, 4200), (2, 16800), (8, 67200)):
        blocks = row_blocks(images, positions)
        rows = blocks[0].stop
        assert blocks[-1].stop >= positions
        assert rows == 16 or rows * positions * images <= non_local.TILE_ELEMENTS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dtype_and_memory_format_are_kept(dtype, memory_format):
    block = NonLocal(8).to(dtype).to(memory_format=memory_format)
    x = torch.randn(2, 8, 5, 7, dtype=dtype).contiguous(memory_format=memory_format)
    y = block(x)
    assert y.dtype == dtype and y.shape == x.shape and y.is_contiguous(memory_format=memory_format)


def test_compiles_without_a_break():
    block, x = NonLocal(8, attention="tiled"), torch.randn(1, 8, 5, 7)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), block(x))


def test_norm_follows_conv_out_alone_and_takes_its_bias():
    block = NonLocal(8, norm="group")
    assert block.conv_out.bias is None and block.theta.bias is not None
    assert {n.split(".")[0] for n in block.state_dict()} == {"g", "theta", "phi", "conv_out", "norm"}


def test_unknown_attention_is_refused():
    with pytest.raises(UsageError, match="auto, sdpa, tiled, explicit"):
        NonLocal(8, attention="flash")
    with pytest.raises(UsageError, match="flash"):
        attend(*embeddings(), how="flash")
