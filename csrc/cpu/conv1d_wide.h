// conv1d in float64, for the networks whose published form runs in it: few and small, so a plain tile is enough.
#pragma once

#include <cmath>

#include "conv1d_wide_args.h"
#include "vec.h"

namespace fastvoc::FASTVOC_ISA {

constexpr int kWideWidth = 8;
constexpr int kWideRows = 6;

typedef double WideVec __attribute__((vector_size(kWideWidth * sizeof(double))));
typedef double WideVecAt __attribute__((vector_size(kWideWidth * sizeof(double)), aligned(sizeof(double))));

inline double wide_activation(ActKind kind, double slope, double v) {
  switch (kind) {
    case ActKind::kTanh:
      return std::tanh(v);
    case ActKind::kElu:
      return v > 0.0 ? v : std::expm1(v);
    case ActKind::kGelu:
      return 0.5 * v * std::erfc(-v * 0.70710678118654752440);
    default:
      return v > 0.0 ? v : v * slope;
  }
}

// The input steps [from, from + count), activated and padded, as rows of channels.
inline void wide_load(const Conv1dWideArgs& wide, const WideSource& source, std::int64_t from, std::int64_t count,
                      double* rows) {
  const Conv1dArgs& args = wide.shape;
  const std::int64_t last = source.steps - 1;
  for (std::int64_t i = 0; i < count; ++i, rows += args.cin) {
    std::int64_t t = from + i;
    if (t < 0 || t > last) {
      if (args.pad == Pad::kZeros) {
        std::fill(rows, rows + args.cin, 0.0);
        continue;
      }
      t = args.pad == Pad::kReplicate ? std::clamp<std::int64_t>(t, 0, last) : t < 0 ? -t : 2 * last - t;
    }
    for (int c = 0; c < args.cin; ++c) rows[c] = wide_activation(args.pre.kind, wide.pre_slope, source.at(t, c));
  }
}

// R output steps of kWideWidth channels.
template <int R>
inline void wide_tile(const Conv1dArgs& args, const double* x, const double* w, const double* bias, WideVec* acc) {
  const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(args.stride) * args.cin;
  const std::ptrdiff_t tap = static_cast<std::ptrdiff_t>(args.dilation) * args.cin;
  WideVec sum[R];
  for (int r = 0; r < R; ++r) sum[r] = *reinterpret_cast<const WideVecAt*>(bias);
  for (int k = 0; k < args.kernel; ++k) {
    for (int c = 0; c < args.cin; ++c, w += kPanelWidth) {
      const WideVec wv = *reinterpret_cast<const WideVecAt*>(w);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sum[r] += wv * x[r * row + k * tap + c];
    }
  }
  for (int r = 0; r < R; ++r) acc[r] = sum[r];
}

inline void wide_rows(const Conv1dArgs& args, int rows, const double* x, const double* w, const double* bias,
                      WideVec* acc) {
  if (rows == kWideRows) return wide_tile<kWideRows>(args, x, w, bias, acc);
  for (int r = 0; r < rows; ++r) {
    wide_tile<1>(args, x + static_cast<std::ptrdiff_t>(r) * args.stride * args.cin, w, bias, acc + r);
  }
}

inline void conv1d_wide(const Conv1dWideArgs& wide, const WideSource& source, const WideSource* residual, double* y,
                        std::int64_t begin, std::int64_t end, double* workspace) {
  const Conv1dArgs& args = wide.shape;
  const std::int64_t span = std::int64_t{1} * args.dilation * (args.kernel - 1) + 1;
  const std::ptrdiff_t panel = static_cast<std::ptrdiff_t>(args.kernel) * args.cin * kPanelWidth;
  for (std::int64_t t = begin; t < end; t += kWideStrip) {
    const std::int64_t count = std::min(kWideStrip, end - t);
    wide_load(wide, source, t * args.stride - args.left, (count - 1) * args.stride + span, workspace);
    for (int first = 0; first < args.cout; first += kWideWidth) {
      const double* w = wide.weight + first / kPanelWidth * panel + first % kPanelWidth;
      const int channels = std::min(kWideWidth, args.cout - first);
      for (std::int64_t i = 0; i < count; i += kWideRows) {
        const int rows = static_cast<int>(std::min<std::int64_t>(kWideRows, count - i));
        WideVec acc[kWideRows];
        wide_rows(args, rows, workspace + i * args.stride * args.cin, w, wide.bias + first, acc);
        for (int r = 0; r < rows; ++r) {
          const std::int64_t at = t + i + r;
          for (int c = 0; c < channels; ++c) {
            const double v = acc[r][c] + (residual ? residual->at(at, first + c) : 0.0);
            y[at * args.cout + first + c] = wide_activation(args.post.kind, wide.post_slope, v);
          }
        }
      }
    }
  }
}

}  // namespace fastvoc::FASTVOC_ISA
