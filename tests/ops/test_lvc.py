"""lvc: every implementation against its meaning in float64, in odd sizes and layouts."""

from __future__ import annotations

import pytest
import torch
from op_contract import own_kernels

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops.lvc import LvcParams, lvc, lvc_ref
from helpers import implementations

IMPLS = implementations("lvc")


each_impl = pytest.mark.parametrize("impl", IMPLS)


def test_reference_is_a_convolution_per_frame() -> None:
    params = LvcParams(6, 3, False)
    x, kernels, biases, _ = own_kernels(params, 2, 5, cin=3, cout=4)
    y = lvc_ref(x, params, kernels, biases)
    for b in range(2):
        for frame in range(5):
            weight = kernels[b, :, :, :, frame].permute(2, 1, 0)
            whole = torch.nn.functional.conv1d(x[b : b + 1], weight, biases[b, :, frame], padding=1)
            part = slice(frame * 6, (frame + 1) * 6)
            torch.testing.assert_close(y[b, :, part], whole[0, :, part])


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    params = LvcParams(5)
    x, kernels, biases, residual = own_kernels(params, 2, 4, cin=3, cout=6)
    good = {"x": x, "kernels": kernels, "biases": biases, "residual": residual, "lengths": None}
    wrong = [
        (ShapeError, "x: expected", {"x": x[:, :, :-1]}),
        (ShapeError, "x: expected", {"x": x[:, :2]}),
        (DtypeError, "kernels: expected", {"kernels": kernels.double()}),
        (DeviceError, "kernels: expected", {"kernels": kernels.to("meta")}),
        (ShapeError, "kernels: expected", {"kernels": kernels[:, :2]}),
        (ShapeError, "kernels: expected", {"kernels": kernels[:, :, :, :5], "biases": biases[:, :5]}),
        (ShapeError, "kernels: expected", {"kernels": kernels[0]}),
        (ShapeError, "biases: expected", {"biases": biases[:, :, 1:]}),
        (DtypeError, "biases: expected", {"biases": biases.half()}),
        (ShapeError, "residual: expected", {"residual": biases}),
        (ArgumentError, "lengths: expected multiples", {"lengths": torch.tensor([20, 19])}),
    ]
    for error, text, change in wrong:
        args = {**good, **change}
        with pytest.raises(error, match=text):
            lvc(args.pop("x"), params, **args, backend=impl)
    with pytest.raises(ArgumentError, match="hop"):
        LvcParams(0)
    with pytest.raises(ArgumentError, match="taps"):
        LvcParams(4, 2)
