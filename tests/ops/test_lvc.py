"""lvc: every implementation against its meaning in float64, in odd sizes and layouts."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from op_cases import strided
from torch import Tensor

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops.lvc import LvcParams, lvc, lvc_ref
from fastvoc.runtime import library as _library
from helpers import implementations, relative_l2, run_under

IMPLS = implementations("lvc")


class Case(NamedTuple):
    cin: int
    cout: int
    taps: int
    hop: int
    gated: bool = True

    def params(self) -> LvcParams:
        return LvcParams(self.hop, self.taps, self.gated)

    def tensors(self, batch: int, frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, kernels, biases, residual."""
        made = self.cout // 2 if self.gated else self.cout
        scale = (self.cin * self.taps) ** -0.5
        return (
            torch.randn(batch, self.cin, frames * self.hop),
            torch.randn(batch, self.taps, self.cin, self.cout, frames) * scale,
            torch.randn(batch, self.cout, frames),
            torch.randn(batch, made, frames * self.hop),
        )


CASES = {
    "published": Case(32, 64, 3, 8),
    "long-hop": Case(32, 64, 3, 256),
    "small": Case(8, 16, 3, 64),
    "odd": Case(5, 14, 5, 7),
    "plain": Case(3, 21, 3, 50, False),
    "one": Case(1, 2, 1, 1),
    "hop-1": Case(4, 6, 3, 1),
    "wide": Case(17, 100, 7, 33),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_impl = pytest.mark.parametrize("impl", IMPLS)


def kernel_layouts(kernels: Tensor) -> dict[str, Tensor]:
    """The same values in several memory layouts: as given, time-major with either order of the channels."""
    batch, taps, cin, cout, frames = kernels.shape
    rows = kernels.permute(0, 4, 1, 2, 3).contiguous().permute(0, 2, 3, 4, 1)
    other = kernels.permute(0, 4, 2, 3, 1).contiguous().permute(0, 4, 2, 3, 1)
    sliced = torch.zeros(batch, frames, taps, cin, cout + 5)[..., 2 : cout + 2].permute(0, 2, 3, 4, 1)
    sliced.copy_(kernels)
    return {"contiguous": kernels, "rows": rows, "in-out-tap": other, "sliced": sliced}


@each_case
@each_impl
def test_equals_the_meaning(case: Case, impl: str, nan_poison: None) -> None:
    for frames in (1, 2, 3, 11):
        x, kernels, biases, residual = case.tensors(2, frames)
        wide = [t.double() for t in (x, kernels, biases, residual)]
        expected = lvc_ref(wide[0], case.params(), *wide[1:])
        for name, view in kernel_layouts(kernels).items():
            y = lvc(x, case.params(), view, biases, residual, backend=impl)
            assert y.shape == expected.shape
            assert relative_l2(y, expected) < 1e-6, (frames, name)
        alone = lvc(x, case.params(), kernels, biases, backend=impl)
        assert relative_l2(alone, lvc_ref(wide[0], case.params(), *wide[1:3])) < 1e-6


def test_reference_is_a_convolution_per_frame() -> None:
    case = Case(3, 4, 3, 6, False)
    x, kernels, biases, _ = case.tensors(2, 5)
    y = lvc_ref(x, case.params(), kernels, biases)
    for b in range(2):
        for frame in range(5):
            weight = kernels[b, :, :, :, frame].permute(2, 1, 0)
            whole = torch.nn.functional.conv1d(x[b : b + 1], weight, biases[b, :, frame], padding=1)
            part = slice(frame * 6, (frame + 1) * 6)
            torch.testing.assert_close(y[b, :, part], whole[0, :, part])


@each_case
@each_impl
def test_layout_does_not_matter(case: Case, impl: str) -> None:
    x, kernels, biases, residual = case.tensors(2, 4)
    first = lvc(x, case.params(), kernels, biases, residual, backend=impl)
    for name, view in strided(x).items():
        y = lvc(view, case.params(), kernels, biases, strided(residual)[name], backend=impl)
        other = lvc(
            view, case.params(), kernel_layouts(kernels)["sliced"], strided(biases)[name], residual, backend=impl
        )
        if impl == "cpp":
            assert torch.equal(y, first), name
            assert torch.equal(other, first), name
        torch.testing.assert_close(y, first, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(other, first, rtol=1e-5, atol=1e-5)


@each_case
@each_impl
def test_ragged_batch_equals_single_items(case: Case, impl: str, nan_poison: None) -> None:
    frames = (4, 1, 6)
    x, kernels, biases, residual = (torch.full_like(t, torch.nan) for t in case.tensors(3, 6))
    for i, n in enumerate(frames):
        parts = case.tensors(1, n)
        for whole, part in zip((x, kernels, biases, residual), parts, strict=True):
            whole[i, ..., : part.shape[-1]] = part[0]
    lengths = torch.tensor(frames) * case.hop
    y = lvc(x, case.params(), kernels, biases, residual, lengths, backend=impl)
    for i, n in enumerate(frames):
        steps = n * case.hop
        one = slice(i, i + 1)
        alone = lvc(
            x[one, :, :steps],
            case.params(),
            kernels[one, ..., :n],
            biases[one, :, :n],
            residual[one, :, :steps],
            backend=impl,
        )
        assert torch.equal(y[i, :, :steps], alone[0])
        assert not y[i, :, steps:].any()


@each_case
@pytest.mark.native
def test_threads_do_not_change_a_bit(case: Case) -> None:
    x, kernels, biases, residual = case.tensors(1, 37)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        results.append(lvc(x, case.params(), kernels, biases, residual, backend="cpp"))
    torch.set_num_threads(before)
    assert all(torch.equal(results[0], y) for y in results[1:])


@pytest.mark.native
@pytest.mark.parametrize("isa", _library.ISAS)
def test_every_instruction_set_agrees(isa: str) -> None:
    script = (
        "import torch\n"
        "from fastvoc.ops.lvc import LvcParams, lvc, lvc_ref\n"
        "torch.manual_seed(3)\n"
        "for cin, cout, hop in ((32, 64, 8), (7, 26, 50)):\n"
        "    x, k, b = torch.randn(1, cin, 9 * hop), torch.randn(1, 3, cin, cout, 9) * 0.1, torch.randn(1, cout, 9)\n"
        "    meant = lvc_ref(x.double(), LvcParams(hop), k.double(), b.double())\n"
        "    y = lvc(x, LvcParams(hop), k, b, backend='cpp')\n"
        "    print(((y - meant).norm() / meant.norm()).item())\n"
    )
    assert max(map(float, run_under(isa, script).split())) < 1e-6


@pytest.mark.native
def test_fake_tensors_have_the_real_shapes() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    from fastvoc.runtime.registry import OPS

    for case in (CASES["published"], CASES["plain"]):
        x, kernels, biases, _ = case.tensors(2, 3)
        real = lvc(x, case.params(), kernels, biases, backend="cpp")
        with FakeTensorMode() as mode:
            args = [mode.from_tensor(t) for t in (x, kernels, biases)]
            impl = OPS["lvc"].impls["cpp"]
            fake = impl.run(args[0], impl.pack(case.params()), *args[1:])
        assert fake.shape == real.shape
        assert fake.stride() == real.stride()


@each_impl
def test_autograd_sees_the_reference(impl: str) -> None:
    case = CASES["small"]
    x, kernels, biases, residual = (t.requires_grad_() for t in case.tensors(1, 2))
    lvc(x, case.params(), kernels, biases, residual, backend=impl).sum().backward()
    inputs = (x, kernels, biases, residual)
    expected = torch.autograd.grad(lvc_ref(x, case.params(), kernels, biases, residual).sum(), inputs)
    assert all(torch.equal(t.grad, e) for t, e in zip(inputs, expected, strict=True))


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    case = Case(3, 6, 3, 5)
    x, kernels, biases, residual = case.tensors(2, 4)
    good = {"x": x, "kernels": kernels, "biases": biases, "residual": residual, "lengths": None}
    wrong = [
        (ShapeError, "x: expected", {"x": x[0]}),
        (ShapeError, "x: expected", {"x": x[:, :, :-1]}),
        (ShapeError, "x: expected", {"x": x[:, :2]}),
        (DtypeError, "x: expected", {"x": x.long()}),
        (DtypeError, "x: expected", {"x": [1.0]}),
        (DtypeError, "kernels: expected", {"kernels": kernels.double()}),
        (DeviceError, "kernels: expected", {"kernels": kernels.to("meta")}),
        (ShapeError, "kernels: expected", {"kernels": kernels[:, :2]}),
        (ShapeError, "kernels: expected", {"kernels": kernels[:, :, :, :5], "biases": biases[:, :5]}),
        (ShapeError, "kernels: expected", {"kernels": kernels[0]}),
        (ShapeError, "biases: expected", {"biases": biases[:, :, 1:]}),
        (DtypeError, "biases: expected", {"biases": biases.half()}),
        (ShapeError, "residual: expected", {"residual": biases}),
        (ArgumentError, "lengths: expected", {"lengths": torch.tensor([20, 21])}),
        (ArgumentError, "lengths: expected multiples", {"lengths": torch.tensor([20, 19])}),
        (DtypeError, "lengths: expected", {"lengths": torch.tensor([20.0, 20.0])}),
    ]
    for error, text, change in wrong:
        args = {**good, **change}
        with pytest.raises(error, match=text):
            lvc(
                args["x"],
                case.params(),
                args["kernels"],
                args["biases"],
                args["residual"],
                args["lengths"],
                backend=impl,
            )
    with pytest.raises(ArgumentError, match="hop"):
        LvcParams(0)
    with pytest.raises(ArgumentError, match="taps"):
        LvcParams(4, 2)
