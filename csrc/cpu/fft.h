// Discrete Fourier transforms of FASTVOC_WIDTH signals at a time: every lane of a vector belongs to another signal.
#pragma once

#include "fft_args.h"
#include "math.h"

namespace fastvoc::FASTVOC_ISA {

struct Complex {
  Vec re;
  Vec im;
};

#define FASTVOC_INLINE inline __attribute__((always_inline))

FASTVOC_INLINE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
FASTVOC_INLINE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
FASTVOC_INLINE Complex operator*(Complex a, float s) { return {a.re * s, a.im * s}; }
FASTVOC_INLINE Complex times_i(Complex a) { return {-a.im, a.re}; }
FASTVOC_INLINE Complex times(Complex a, float cosine, float sine) {
  return {a.re * cosine - a.im * sine, a.re * sine + a.im * cosine};
}

// Sums x_j e^(2 pi i j k / R) in place.
template <int R>
FASTVOC_INLINE void butterfly(Complex* x) {
  if constexpr (R == 2) {
    const Complex a = x[0];
    x[0] = a + x[1];
    x[1] = a - x[1];
  } else if constexpr (R == 3) {
    const Complex sum = x[1] + x[2], turn = times_i(x[1] - x[2]) * 0.866025404f;
    const Complex mid = x[0] - sum * 0.5f;
    x[0] = x[0] + sum;
    x[1] = mid + turn;
    x[2] = mid - turn;
  } else if constexpr (R == 4) {
    const Complex a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], d = times_i(x[1] - x[3]);
    x[0] = a + c;
    x[1] = b + d;
    x[2] = a - c;
    x[3] = b - d;
  } else if constexpr (R == 5) {
    const Complex a = x[1] + x[4], b = x[2] + x[3], c = x[1] - x[4], d = x[2] - x[3];
    const Complex m1 = x[0] + a * 0.309016994f - b * 0.809016994f, m2 = x[0] - a * 0.809016994f + b * 0.309016994f;
    const Complex n1 = times_i(c * 0.951056516f + d * 0.587785252f), n2 = times_i(c * 0.587785252f - d * 0.951056516f);
    x[0] = x[0] + a + b;
    x[1] = m1 + n1;
    x[2] = m2 + n2;
    x[3] = m2 - n2;
    x[4] = m1 - n1;
  } else {
    static_assert(R == 8);
    constexpr float root = 0.707106781f;
    Complex even[4] = {x[0], x[2], x[4], x[6]}, odd[4] = {x[1], x[3], x[5], x[7]};
    butterfly<4>(even);
    butterfly<4>(odd);
    odd[1] = Complex{odd[1].re - odd[1].im, odd[1].re + odd[1].im} * root;
    odd[2] = times_i(odd[2]);
    odd[3] = Complex{odd[3].re + odd[3].im, odd[3].im - odd[3].re} * -root;
    for (int k = 0; k < 4; ++k) {
      x[k] = even[k] + odd[k];
      x[k + 4] = even[k] - odd[k];
    }
  }
}

// One pass of Stockham's algorithm over `stride` interleaved transforms of R * m points; the result is in order.
template <int R>
inline void fft_pass(const Complex* x, Complex* y, int m, int stride, const float* twiddles) {
  Complex v[R];
  for (int q = 0; q < stride; ++q) {
    for (int j = 0; j < R; ++j) v[j] = x[q + stride * m * j];
    butterfly<R>(v);
    for (int k = 0; k < R; ++k) y[q + stride * k] = v[k];
  }
  for (int p = 1; p < m; ++p, twiddles += 2 * (R - 1)) {
    const Complex* from = x + stride * p;
    Complex* to = y + stride * R * p;
    for (int q = 0; q < stride; ++q) {
      for (int j = 0; j < R; ++j) v[j] = from[q + stride * m * j];
      butterfly<R>(v);
      to[q] = v[0];
      for (int k = 1; k < R; ++k) to[q + stride * k] = times(v[k], twiddles[2 * k - 2], twiddles[2 * k - 1]);
    }
  }
}

// Sums x_j e^(2 pi i j k / n) over the n = size / 2 points. Both x and y are overwritten; returns the one with the result.
inline Complex* fft(const RealFft& plan, Complex* x, Complex* y) {
  const float* twiddles = plan.twiddles;
  int points = plan.half(), stride = 1;
  for (int i = 0; i < plan.passes; ++i) {
    const int radix = plan.radices[i], m = points / radix;
    if (radix == 8) {
      fft_pass<8>(x, y, m, stride, twiddles);
    } else if (radix == 5) {
      fft_pass<5>(x, y, m, stride, twiddles);
    } else if (radix == 4) {
      fft_pass<4>(x, y, m, stride, twiddles);
    } else if (radix == 3) {
      fft_pass<3>(x, y, m, stride, twiddles);
    } else {
      fft_pass<2>(x, y, m, stride, twiddles);
    }
    twiddles += 2 * (m - 1) * (radix - 1);
    points = m;
    stride *= radix;
    std::swap(x, y);
  }
  return x;
}

// Turns the bins k and n - k of a real signal's spectrum, n = size / 2, into those of the complex signal whose real parts are
// its even samples and whose imaginary parts are its odd ones, both times size.
FASTVOC_INLINE void join_bins(const RealFft& plan, int k, Complex a, Complex b, Complex* z) {
  const Complex sum{a.re + b.re, a.im - b.im};
  const Complex turned = times(Complex{a.re - b.re, a.im + b.im}, plan.split[2 * k], plan.split[2 * k + 1]);
  z[k] = {sum.re - turned.im, sum.im + turned.re};
  z[plan.half() - k] = {sum.re + turned.im, turned.re - sum.im};
}

// The way back: bins k and n - k of the real signal, times two, from those of the complex one.
FASTVOC_INLINE void split_bins(const RealFft& plan, int k, Complex a, Complex b, Complex& low, Complex& high) {
  const Complex even{a.re + b.re, a.im - b.im};
  const Complex odd = times(Complex{a.im + b.im, b.re - a.re}, plan.split[2 * k], -plan.split[2 * k + 1]);
  low = even + odd;
  high = {even.re - odd.re, odd.im - even.im};
}

}  // namespace fastvoc::FASTVOC_ISA
