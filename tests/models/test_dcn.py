"""Deformable convolution against the paper's equations written down plainly, and against torchvision's operator."""

import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import deform_conv2d

from models.dcn import DeformConv
from tests.kit.places import ROOT

FORMATS = pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
Arguments = tuple[Tensor, Tensor, Tensor, Tensor]


def fast(x: Tensor, offset_mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    result: Tensor = torch.ops.centerstream.deform_conv2d(x, offset_mask, weight, bias)
    return result


def torchvision(x: Tensor, offset_mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    result: Tensor = deform_conv2d(x, offset_mask[:, :18], weight, bias, padding=1, mask=offset_mask[:, 18:].sigmoid())
    return result


def plain(x: Tensor, offset_mask: Tensor, weight: Tensor, bias: Tensor) -> np.ndarray:
    """y(p) = sum over taps k of w_k x(p + p_k + offset_k) m_k (Zhu et al., equation 1), where x(q) is the sum over
    cells r of max(0, 1 - |q_y - r_y|) max(0, 1 - |q_x - r_x|) x(r) (Dai et al., equations 3 and 4)."""
    image, w = x.double().numpy(), weight.double().numpy()
    offset, mask = offset_mask[:, :18].double().numpy(), offset_mask[:, 18:].double().sigmoid().numpy()
    batch, _, height, width = image.shape
    result = np.zeros((batch, len(w), height, width)) + bias.double().numpy()[:, None, None]
    for b, row, column, k in np.ndindex(batch, height, width, 9):
        y = row + k // 3 - 1 + offset[b, 2 * k, row, column]
        x_ = column + k % 3 - 1 + offset[b, 2 * k + 1, row, column]
        near_y = np.maximum(0, 1 - np.abs(y - np.arange(height)))
        near_x = np.maximum(0, 1 - np.abs(x_ - np.arange(width)))
        sample = (image[b] * near_y[:, None] * near_x).sum((1, 2)) * mask[b, k, row, column]
        result[b, :, row, column] += w[:, :, k // 3, k % 3] @ sample
    return result


def arguments(
    batch: int, channels: int, out: int, height: int, width: int, reach: float = 2.0, seed: int = 0
) -> Arguments:
    """Offsets of `reach` pixels or so, weights that keep the results about 1."""
    made = torch.Generator().manual_seed(seed)
    offset_mask = torch.randn(batch, 27, height, width, generator=made)
    offset_mask[:, :18] *= reach
    return (
        torch.randn(batch, channels, height, width, generator=made),
        offset_mask,
        torch.randn(out, channels, 3, 3, generator=made) / (3 * math.sqrt(channels)),
        torch.randn(out, generator=made),
    )


def in_format(given: Arguments, memory_format: torch.memory_format) -> Arguments:
    x, offset_mask, weight, bias = given
    images = (tensor.contiguous(memory_format=memory_format) for tensor in (x, offset_mask, weight))
    return (*images, bias)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


ROUNDED = {
    "as they are": lambda offsets: offsets,
    "none": torch.zeros_like,
    "whole pixels": torch.round,
    "halves": lambda offsets: torch.round(2 * offsets) / 2,
}


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.sampled_from([1, 3, 64]), st.integers(1, 5), *[st.integers(1, 7)] * 2),
    reach=st.sampled_from([0.1, 1.0, 5.0, 1000.0]),
    rounded=st.sampled_from(list(ROUNDED)),
    memory_format=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    seed=st.integers(0, 1000),
)
def test_equals_the_equations(
    shape: tuple[int, int, int, int, int], reach: float, rounded: str, memory_format: torch.memory_format, seed: int
) -> None:
    x, offset_mask, weight, bias = arguments(*shape, reach=reach, seed=seed)
    offset_mask[:, :18] = ROUNDED[rounded](offset_mask[:, :18])
    given = in_format((x, offset_mask, weight, bias), memory_format)
    np.testing.assert_allclose(fast(*given).numpy(), plain(*given), atol=1e-4)


@pytest.mark.parametrize("position", [-1.5, -1.0, -0.99, -0.5, 0.0, 3.0, 3.01, 3.5, 3.99, 4.0, 4.5])
def test_at_the_borders_of_an_image_of_four_by_four(position: float) -> None:
    x, offset_mask, weight, bias = arguments(1, 2, 3, 4, 4)
    rows = torch.arange(4.0)[:, None].expand(4, 4)
    for tap in range(9):
        offset_mask[0, 2 * tap] = position - (rows + tap // 3 - 1)
        offset_mask[0, 2 * tap + 1] = position - (rows.t() + tap % 3 - 1)
    given = (x, offset_mask, weight, bias)
    np.testing.assert_allclose(fast(*given).numpy(), plain(*given), atol=1e-5)
    torch.testing.assert_close(fast(*given), torchvision(*given), atol=1e-5, rtol=0)


@FORMATS
@pytest.mark.parametrize(
    "shape", [(0, 4, 4, 5, 5), (2, 64, 64, 40, 33), (1, 256, 128, 16, 16), (1, 20, 7, 3, 1500), (1, 3, 2, 1500, 2)]
)
def test_equals_torchvision_in_blocks_and_on_threads(
    shape: tuple[int, int, int, int, int], memory_format: torch.memory_format, threads: int
) -> None:
    given = in_format(arguments(*shape), memory_format)
    result = fast(*given)
    torch.testing.assert_close(result, torchvision(*given), atol=1e-4, rtol=0)
    assert result.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("nowhere", [math.nan, math.inf, -math.inf, 3e38, -3e38, 1e10, 2.0**31, -(2.0**31)])
@pytest.mark.parametrize("axis", [0, 1])
def test_an_offset_that_leads_nowhere_reads_zero(nowhere: float, axis: int) -> None:
    x, offset_mask, weight, bias = arguments(1, 16, 4, 6, 9)
    offset_mask[0, axis:18:4] = nowhere  # every other tap
    masked = offset_mask.clone()
    masked[0, axis:18:4] = 0
    masked[0, 18::2] = -math.inf
    torch.testing.assert_close(fast(x, offset_mask, weight, bias), fast(x, masked, weight, bias), atol=1e-6, rtol=0)


def test_what_lies_outside_is_zero_even_beside_infinity() -> None:
    x, offset_mask, weight, bias = arguments(1, 16, 4, 5, 5)
    offset_mask[:, :18] = 1000
    expected = bias[:, None, None].expand(1, 4, 5, 5)
    torch.testing.assert_close(fast(torch.full_like(x, math.inf), offset_mask, weight, bias), expected)


@pytest.mark.parametrize(
    ("odd", "shape"), [(1, (1, 27, 4, 5)), (1, (1, 18, 5, 5)), (1, (2, 27, 5, 5)), (2, (4, 3, 3, 3)), (2, (4, 2, 5, 5))]
)
def test_says_what_does_not_fit_before_it_reads_there(odd: int, shape: tuple[int, ...]) -> None:
    given = [*arguments(1, 2, 4, 5, 5)]
    given[odd] = torch.zeros(shape)
    with pytest.raises(ValueError, match=re.escape("give (1, 27, 5, 5) and (out, 2, 3, 3)")):
        fast(*given)


def module(in_channels: int = 8, out_channels: int = 6) -> DeformConv:
    """With offsets and masks that are not all the same, as after some training."""
    torch.manual_seed(0)
    made = DeformConv(in_channels, out_channels).eval()
    torch.nn.init.normal_(made.conv_offset_mask.weight, std=0.3)
    return made


def through_torchvision(model: DeformConv, x: Tensor) -> Tensor:
    return torchvision(x, model.conv_offset_mask(x), model.weight, model.bias)


def test_starts_as_a_convolution_of_half_the_input() -> None:
    model = DeformConv(8, 6).eval()
    x = torch.randn(2, 8, 7, 9)
    with torch.inference_mode():
        expected = torch.nn.functional.conv2d(x / 2, model.weight, model.bias, padding=1)
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)


@FORMATS
@pytest.mark.parametrize("without_gradients", [torch.inference_mode, torch.no_grad])
def test_infers_what_it_trains(
    memory_format: torch.memory_format, without_gradients: Callable[[], AbstractContextManager[None]], threads: int
) -> None:
    model = module().to(memory_format=memory_format)
    x = torch.randn(2, 8, 40, 30).contiguous(memory_format=memory_format)
    with without_gradients():
        inferred = model(x)
    torch.testing.assert_close(inferred, model.train()(x), atol=1e-5, rtol=0)


def test_training_has_the_gradients_of_torchvision() -> None:
    model, x = module().train(), torch.randn(2, 8, 5, 6, requires_grad=True)
    inputs = (x, *model.parameters())
    ours = torch.autograd.grad(model(x).square().sum(), inputs)
    theirs = torch.autograd.grad(through_torchvision(model, x).square().sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_gives_a_gradient_wherever_one_is_asked_for() -> None:
    model = module().requires_grad_(False)
    x = torch.randn(1, 8, 5, 6)
    assert not model(x).requires_grad
    assert model(x.clone().requires_grad_()).requires_grad
    model.bias.requires_grad_()
    assert model(x).requires_grad


def test_new_weights_count_from_the_next_image_on() -> None:
    model, other = module(), module()
    torch.nn.init.normal_(other.weight)
    torch.nn.init.normal_(other.bias)
    x = torch.randn(1, 8, 5, 6)
    with torch.inference_mode():
        before = model(x)
        model.load_state_dict(other.state_dict())
        torch.testing.assert_close(model(x), other(x))
        assert not torch.allclose(model(x), before, atol=0.1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float16, 0.05)])
def test_other_precisions_work(dtype: torch.dtype, tolerance: float) -> None:
    model, x = module(), torch.randn(1, 8, 5, 6)
    with torch.inference_mode():
        expected = model(x)
        result = model.to(dtype)(x.to(dtype))
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), expected, atol=tolerance, rtol=0)


def test_four_threads_at_once_do_not_mix_their_figures(threads: int) -> None:
    model = module(32, 16)
    images = [torch.randn(1, 32, 40, 40 + i) for i in range(4)]
    with torch.inference_mode():
        expected = [through_torchvision(model, x) for x in images]
    with ThreadPoolExecutor(4) as lanes:
        results = list(lanes.map(torch.inference_mode()(model), images * 10))
    for i, result in enumerate(results):
        torch.testing.assert_close(result, expected[i % 4], atol=1e-4, rtol=0)


def test_leaves_every_other_thread_the_number_of_threads_it_had(threads: int) -> None:
    new = threads + 2  # for which there are no workers yet
    torch.set_num_threads(new)
    fast(*arguments(1, 2, 2, 60, 60))
    with ThreadPoolExecutor(1) as later:
        assert [torch.get_num_threads(), later.submit(torch.get_num_threads).result()] == [new, new]


@FORMATS
def test_the_operator_keeps_what_it_declares(memory_format: torch.memory_format) -> None:
    given = in_format(arguments(2, 4, 3, 5, 6), memory_format)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.centerstream.deform_conv2d.default, given, test_utils=checks)


@pytest.mark.filterwarnings("ignore")  # of exporters, about their own workings
def test_compiles_in_one_piece_and_exports_for_others() -> None:
    model, x = module().requires_grad_(False), torch.randn(1, 8, 5, 6)
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), model(x))
        exported = torch.export.export(model, (x,))
        torch.testing.assert_close(exported.module()(x), model(x), atol=1e-5, rtol=0)
        traced = torch.jit.trace(model, x).inlined_graph
    operators = {str(node.target) for node in exported.graph.nodes} | {node.kind() for node in traced.nodes()}
    assert {"torchvision.deform_conv2d.default", "torchvision::deform_conv2d"} <= operators
    assert not any("centerstream" in operator for operator in operators)


def test_inference_on_a_cpu_waits_for_numba_only() -> None:
    code = """if True:
        import sys, torch, models.dcn
        assert "numba" not in sys.modules
        with torch.inference_mode():
            models.dcn.DeformConv(2, 3)(torch.zeros(1, 2, 4, 4))
        print(*sorted({"numba", "torchvision", "torch._dynamo"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["numba"]
