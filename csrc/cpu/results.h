// What becomes of the results of a product: added to, scaled, activated and written as one output descriptor says.
#pragma once

#include "dot.h"

namespace fastvoc::FASTVOC_ISA {

// y = (acc + bias + residual + sum) * scale goes to `raw`, its activation to `act`; null pointers leave a part out.
template <class Element, class Added = float>
struct TileOutputOf {
  using Type = Element;

  float* raw = nullptr;
  Element* act = nullptr;
  const Added* residual = nullptr;
  const float* sum = nullptr;
  std::ptrdiff_t raw_row = 0;
  std::ptrdiff_t act_row = 0;
  std::ptrdiff_t residual_row = 0;
  std::ptrdiff_t sum_row = 0;
  const Act* activation = nullptr;  // of `act`
  std::ptrdiff_t channel = 0;       // the first of the panel
  float scale = 1.0f;

  // Goes so many rows and channels on.
  void move(std::int64_t rows, std::ptrdiff_t channels = 0) {
    if (raw) raw += rows * raw_row + channels;
    if (act) act += rows * act_row + channels;
    if (residual) residual += rows * residual_row + channels;
    if (sum) sum += rows * sum_row + channels;
    channel += channels;
  }

  // The panels from the p-th on.
  TileOutputOf from(int p) const {
    TileOutputOf out = *this;
    out.move(0, p * kPanel);
    return out;
  }

  bool curved() const { return act && activation->kind != ActKind::kLeaky; }
};

using TileOutput = TileOutputOf<float>;

// What becomes of the results of a tile, known before its rows are walked: their activation alone, that of the first of a
// layer's two convolutions; with the residual, which is kept too, that of the second; results as they are; with the residual,
// those of a block; with the residual and the sum of the blocks before, times the scale, as they are or rounded; or whatever the
// pointers say.
enum class Fate { kAct, kLayer, kRaw, kBlock, kMean, kRounded, kAny };

template <class Out>
inline __attribute__((always_inline)) Fate fate_of(const Out& out) {
  if (out.residual && out.sum) return out.raw && !out.act ? Fate::kMean : !out.raw && out.act ? Fate::kRounded : Fate::kAny;
  if (out.sum || out.scale != 1.0f) return Fate::kAny;
  if (out.raw && !out.act) return out.residual ? Fate::kBlock : Fate::kRaw;
  if (out.act && !out.residual == !out.raw) return out.raw ? Fate::kLayer : Fate::kAct;
  return Fate::kAny;
}

// use(fate) with the fate of the results as a constant where it is one of `fates`, else kAny.
template <Fate... fates, class Out, class Use>
inline __attribute__((always_inline)) void with_fate(const Out& out, const Use& use) {
  const Fate fate = fate_of(out);
  const bool known = ((fate == fates && (use(std::integral_constant<Fate, fates>{}), true)) || ...);
  if (!known) use(std::integral_constant<Fate, Fate::kAny>{});
}

// The same for what mrf's convolutions give; activations other than a leaky ReLU are not foreseen.
template <class Element, class Use>
inline __attribute__((always_inline)) void with_known_fate(const TileOutputOf<Element>& out, const Use& use) {
  using enum Fate;
  if (out.curved()) {
    use(std::integral_constant<Fate, kAny>{});
  } else if constexpr (std::is_same_v<Element, Bf16>) {
    with_fate<kAct, kLayer, kBlock, kMean, kRounded>(out, use);
  } else {
    with_fate<kAct, kLayer, kBlock, kMean>(out, use);
  }
}

// How a vector of results lies in memory: in one piece.
struct WholeRow {
  template <class Given>
  inline __attribute__((always_inline)) Vec read(const Given* p) const { return load(p); }
  template <class Element, class Elements>
  inline __attribute__((always_inline)) void write(Element* p, Elements v) const {
    std::memcpy(p, &v, sizeof v);
  }
};

// Finishes y, the results of row r from column c on, and returns what is activated.
template <Fate fate, class Lie, class Out>
inline __attribute__((always_inline)) Vec finish_vector(const Out& out, const Act& activation, float slope,
                                                         std::ptrdiff_t r, std::ptrdiff_t c, Vec y, const Lie& lie) {
  constexpr bool any = fate == Fate::kAny, rounded = fate == Fate::kRounded, layer = fate == Fate::kLayer;
  constexpr bool mean = fate == Fate::kMean || rounded;
  constexpr bool block = mean || fate == Fate::kBlock;
  if (layer || block || (any && out.residual)) y += lie.read(out.residual + r * out.residual_row + c);
  if (mean || (any && out.sum)) y += lie.read(out.sum + r * out.sum_row + c);
  if (mean || (any && out.scale != 1.0f)) y *= out.scale;
  if (layer || (block && !rounded) || fate == Fate::kRaw || (any && out.raw)) lie.write(out.raw + r * out.raw_row + c, y);
  if (layer || rounded || fate == Fate::kAct || (any && out.act)) {
    lie.write(out.act + r * out.act_row + c, to_elements(leaky(y, slope), activation, typename Out::Type{}));
  }
  return y;
}

// Any activation of `count` rows of floats, in place, and as they are multiplied.
template <class Out>
void activate_to(const Out& out, float* rows, int count, int columns) {
  activate_rows(*out.activation, rows, columns, count, out.channel, columns);
  for (int r = 0; r < count; ++r) {
    for (int c = 0; c < columns; c += FASTVOC_WIDTH) {
      put(out.act + r * out.act_row + c, load(rows + r * columns + c), *out.activation);
    }
  }
}

// Finishes `count` rows of results that lie in memory, whatever becomes of them: one function for tiles of every height.
template <class Out>
__attribute__((noinline)) void finish_any(const Out& out, float* rows, int count, int columns) {
  constexpr bool floats = std::is_same_v<typename Out::Type, float>;
  const Act activation = out.act ? *out.activation : Act{};
  const bool curved = out.curved(), kept = curved && !floats;
  if (kept && !out.raw && !out.residual && !out.sum && out.scale == 1.0f) return activate_to(out, rows, count, columns);
  Out now = out;
  if (kept) now.act = nullptr;
  using enum Fate;
  with_fate<kAct, kLayer, kRaw, kBlock, kMean, kRounded>(now, [&](auto fate) {
    for (int r = 0; r < count; ++r) {
      for (int c = 0; c < columns; c += FASTVOC_WIDTH) {
        float* const at = rows + r * columns + c;
        const Vec y = finish_vector<decltype(fate)::value>(now, activation, activation.leak(), r, c, load(at), WholeRow{});
        if (kept) store(at, y);
      }
    }
  });
  if constexpr (floats) {
    if (curved) activate_rows(activation, out.act, out.act_row, count, out.channel, columns);
  } else {
    if (curved) activate_to(out, rows, count, columns);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
