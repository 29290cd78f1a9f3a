"""nsf_source in one launch: every tile adds up the phase before it in whole numbers, which wrap exactly."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastvoc.kernels.activation import sin_cos_cycles, tanh
from fastvoc.kernels.launch import cdiv, kernel, launch, strides
from fastvoc.kernels.lengths import valid_steps
from fastvoc.kernels.philox import cycles, radius, unit, words
from fastvoc.kernels.tuned import tuned
from fastvoc.runtime.native import Native
from fastvoc.runtime.packing import NsfSource


@triton.jit
def units(turns):
    """float64 cycles -> phase modulo 1 in units of 2^-64 cycles; 0 for NaN and infinity."""
    finite = tl.abs(turns) < 1.0e300
    turns = tl.where(finite, turns, 0.0)
    return ((turns - tl.floor(turns + 0.5)) * 18446744073709551616.0).to(tl.int64)


@triton.jit
def f0_at(f0, frame, valid, f0_step):
    """F0 of frames [N] in float64, 0 beyond the valid ones."""
    return tl.load(f0 + frame.to(tl.int64) * f0_step, mask=(frame >= 0) & (frame < valid), other=0.0).to(tl.float64)


@triton.jit
def start_phase(state, phase, seed, item, h, ROWS: tl.constexpr, KIND: tl.constexpr):
    """The phase [1] of harmonic h before the first sample."""
    one = tl.arange(0, 1)
    begin = tl.zeros([1], tl.int64)
    if state is not None:
        begin = tl.load(state + item * (ROWS + 1) + 1 + h + one)
    elif phase is not None:
        begin = units(tl.load(phase + item * ROWS + h + one).to(tl.float64) / 6.283185307179586)
    elif KIND == 0 and h > 0:
        w0, w1, w2, w3 = words(seed, begin, h // 4, 1)
        word = w0 if h % 4 == 0 else (w1 if h % 4 == 1 else (w2 if h % 4 == 2 else w3))
        begin = (word << 32).to(tl.int64, bitcast=True)
    return begin


@kernel
def nsf_source_kernel(
    f0,
    weight,
    bias,
    state,
    phase,
    seeds,
    noise,
    lengths,
    ragged,
    frames,
    after,
    out,
    steps,
    f0_batch,
    f0_step,
    noise_batch,
    noise_channel,
    noise_step,
    sample_rate,
    amp,
    noise_std,
    threshold,
    ROWS: tl.constexpr,
    HOP: tl.constexpr,
    KIND: tl.constexpr,
    NOISE: tl.constexpr,
    SPAN: tl.constexpr,
    BT: tl.constexpr,
    BF: tl.constexpr,
):
    tile = tl.program_id(0)
    item = tl.program_id(1).to(tl.int64)
    s = tile.to(tl.int64) * BT + tl.arange(0, BT)
    frame = (s // HOP).to(tl.int32)
    within_frame = (s % HOP).to(tl.int64)
    valid = valid_steps(lengths, item, steps, ragged).to(tl.int32)
    made = tl.load(frames + item).to(tl.int32) if frames is not None else valid
    seed = tl.load(seeds + item + tl.arange(0, 1)) if seeds is not None else tl.zeros([1], tl.int64)
    position = tl.load(state + item * (ROWS + 1)) if state is not None else tl.zeros([], tl.int64)
    mine = f0 + item * f0_batch

    # The fundamental's advance a sample, and its phase before the frame of every sample.
    at = f0_at(mine, frame, valid, f0_step)
    advance = units(at / sample_rate)
    earlier = (tile.to(tl.int64) * BT // HOP).to(tl.int32)
    g = tl.arange(0, BF)
    base = tl.zeros([], tl.int64)
    for start in range(0, earlier, BF):
        step = units(f0_at(mine, start + g, tl.minimum(valid, earlier), f0_step) / sample_rate)
        base += tl.sum(step, 0)
    before = tl.zeros([BT], tl.int64) + base
    for j in range(SPAN):
        step = units(f0_at(mine, earlier + j + tl.arange(0, 1), valid, f0_step) / sample_rate)
        before += tl.where(frame > earlier + j, step, 0)
    before = before * HOP

    current = at.to(tl.float32)
    voiced = current > threshold
    level = tl.where(voiced, noise_std, amp / 3.0)
    bad = current != current
    bad = bad | (tl.abs(current) == float("inf"))
    onward = advance * 0
    if KIND == 1:
        following = f0_at(mine, frame + 1, valid, f0_step)
        onward = units(following / sample_rate)
        next_ = following.to(tl.float32)
        late = 2 * within_frame + 1 >= HOP
        bad = bad | (late & ((next_ != next_) | (tl.abs(next_) == float("inf"))))
    total = tl.zeros([BT], tl.float32) + tl.load(bias).to(tl.float32)
    absolute = position + s
    whole = tl.zeros([], tl.int64)
    if after is not None:
        for start in range(0, made, BF):
            step = units(f0_at(mine, start + g, tl.minimum(valid, made), f0_step) / sample_rate)
            whole += tl.sum(step, 0)
    live = s < made.to(tl.int64) * HOP
    for group in tl.static_range((ROWS + 3) // 4):
        if noise is None and NOISE != 0:
            w0, w1, w2, w3 = words(seed, absolute, group, 0)
            if NOISE == 1:
                r = radius(w0)
                sine, cosine = sin_cos_cycles(cycles(w1))
                n0 = r * cosine
                n1 = r * sine
                r = radius(w2)
                sine, cosine = sin_cos_cycles(cycles(w3))
                n2 = r * cosine
                n3 = r * sine
            else:
                n0 = unit(w0)
                n1 = unit(w1)
                n2 = unit(w2)
                n3 = unit(w3)
        for word in tl.static_range(4):
            h = group * 4 + word
            if h < ROWS:
                begin = start_phase(state, phase, seed, item, h, ROWS, KIND)
                running = begin + before * (h + 1)
                if KIND == 0:
                    running += advance * (h + 1) * (within_frame + 1)
                elif KIND == 2:
                    running += advance * (h + 1) * HOP
                else:
                    middle = running + advance * (h + 1) * HOP
                    half = ((advance * (h + 1)) >> 1) & 0x7FFFFFFFFFFFFFFF
                    ahead = ((onward * (h + 1)) >> 1) & 0x7FFFFFFFFFFFFFFF  # 0 behind the last frame
                    first = (position == 0) & (frame == 0)
                    k = 2 * within_frame + 1
                    early = tl.where(first, middle, running + half * (k + HOP))
                    running = tl.where(k < HOP, early, middle + ahead * (k - HOP))
                sine, cosine = sin_cos_cycles((running >> 32).to(tl.float32) * 2.3283064365386963e-10)
                value = tl.where(voiced, sine * amp, 0.0)
                if noise is not None:
                    there = noise + item * noise_batch + h * noise_channel + s * noise_step
                    value += tl.load(there, mask=live, other=0.0).to(tl.float32) * level
                elif NOISE != 0:
                    drawn = n0 if word == 0 else (n1 if word == 1 else (n2 if word == 2 else n3))
                    value += drawn * level
                total += tl.load(weight + h).to(tl.float32) * value
                if after is not None and tile == tl.num_programs(0) - 1:
                    tl.store(after + item * (ROWS + 1) + 1 + h + tl.arange(0, 1), begin + whole * HOP * (h + 1))
    if after is not None and tile == tl.num_programs(0) - 1:
        tl.store(after + item * (ROWS + 1), position + made.to(tl.int64) * HOP)
    y = tanh(total)
    y = tl.where(bad, float("nan"), y)
    y = tl.where(live, y, 0.0)
    length = steps.to(tl.int64) * HOP
    tl.store(out + item * length + s, y.to(out.dtype.element_ty), mask=s < length)


def _nsf_source(
    p: NsfSource,
    f0: Tensor,
    state: Tensor | None = None,
    phase: Tensor | None = None,
    seed: Tensor | None = None,
    noise: Tensor | None = None,
    lengths: Tensor | None = None,
    frames: Tensor | None = None,
) -> Tensor:
    """nsf_source of `fastvoc.ops.nsf_source`; lengths and frames on the device of f0."""
    batch, _, steps = f0.shape
    out = f0.new_empty((batch, 1, steps * p.hop))
    after = None if state is None else torch.empty_like(state)
    config = tuned("nsf_source", f0.device, f0.dtype, hop=p.hop)
    launch(
        nsf_source_kernel,
        (cdiv(steps * p.hop, config["BT"]), batch),
        config,
        f0.device,
        f0=f0,
        weight=p.weight,
        bias=p.bias,
        state=state,
        phase=None if phase is None else phase.contiguous(),
        seeds=seed,
        noise=noise,
        lengths=lengths,
        frames=frames,
        after=after,
        out=out,
        steps=steps,
        f0_batch=f0.stride(0),
        f0_step=f0.stride(2),
        **strides(noise, "noise"),
        sample_rate=float(p.rate),
        amp=p.amp,
        noise_std=p.noise_std,
        threshold=p.threshold,
        ROWS=p.weight.shape[0],
        HOP=p.hop,
        KIND=p.kind,
        NOISE=p.drawn,
        SPAN=cdiv(config["BT"], p.hop) + 1,
    )
    if state is not None and after is not None:
        state.copy_(after)
    return out


def _fake(p: NsfSource, f0: Tensor, *_: Tensor | None) -> Tensor:
    return f0.new_empty((f0.shape[0], 1, f0.shape[2] * p.hop))


NATIVE = Native("triton_nsf_source", NsfSource, _fake, mutates=("state",), body=_nsf_source)
run = NATIVE.run
