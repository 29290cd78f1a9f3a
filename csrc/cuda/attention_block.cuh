// attention_block: norm, one product for queries, keys and values, attention, the way out with the residual, norm, and the two
// layers with the residual.
#pragma once

#include "cuda/attend.cuh"
#include "cuda/conv.cuh"
#include "cuda/layer_norm.cuh"

namespace fastvoc::cuda {

// `weight` holds the four products one after the other, packed as conv1d packs them, those that tensor cores compute for
// these. `norms` [4, width] are scale and shift of the two norms, float32. Without `keys` and `values` the rings lie in `rings`.
template <class T>
struct AttentionBlockArgs {
  View<const T> x;
  View<T> y;
  const T* weight;
  const float* norms;
  const float* frequencies;
  T* keys;
  T* values;
  const std::int64_t* place;
  const std::int64_t* lengths;
  T* scratch;  // scratch_size()
  T* rings;    // rings_size()
  std::int64_t items;
  std::int64_t steps;
  std::int64_t ring;
  int channels;
  int heads;
  int kv_heads;
  int size;
  int hidden;
  int window;
  float eps1;
  float eps2;

  int queries() const { return heads * size; }
  int kept() const { return kv_heads * size; }
  // Of packing.py: 16-bit numbers, and no fewer channels than a tile has.
  static ConvShape product(int cout, int cin) {
    return {cout, cin, 1, 1, 1, 0, 0, 0, sizeof(T) == 2 && cout >= kPanel && cin >= kPanel};
  }
  ConvShape mix() const { return product(queries() + 2 * kept(), channels); }
  ConvShape out() const { return product(channels, queries()); }
  ConvShape expand() const { return product(hidden, channels); }
  ConvShape project() const { return product(channels, hidden); }
  std::int64_t weights() const {
    return convolution_weights<T>(mix()) + convolution_weights<T>(out()) + convolution_weights<T>(expand()) +
           convolution_weights<T>(project());
  }
  std::int64_t width() const { return padded(channels); }
  std::int64_t scratch_size() const {
    const std::int64_t attended = 2 * (queries() + kept());
    return items * steps * (channels + max(attended, std::int64_t{hidden}));
  }
  std::int64_t rings_size() const { return 2 * items * ring * kept(); }
  // Steps that fit into the ring beside what those before them left.
  std::int64_t together() const { return keys ? ring - (window - 1) : steps; }
};

template <class T>
void attention_block(const AttentionBlockArgs<T>& a, Stream stream) {
  const auto rows = [&](T* data, std::int64_t channels) { return View<T>{data, a.steps * channels, 1, channels}; };
  const auto read = [](const View<T>& v) { return View<const T>{v.data, v.item, v.channel, v.step}; };
  const View<T> normal = rows(a.scratch, a.channels);
  T* const further = a.scratch + a.items * a.steps * a.channels;
  const View<T> mixed = rows(further, a.queries() + 2 * a.kept()), inner = rows(further, a.hidden);
  const View<T> seen = rows(further + a.items * mixed.item, a.queries());

  const auto norm = [&](const View<const T>& from, const float* curve, float eps) {
    LayerNormArgs<T> args{};
    args.x = from;
    args.y = normal;
    args.weight = curve;
    args.bias = curve + a.width();
    args.lengths = a.lengths;
    args.steps = a.steps;
    args.channels = a.channels;
    args.width = static_cast<int>(a.width());
    args.eps = eps;
    layer_norm(args, a.items, stream);
  };
  const T* weight = a.weight;
  const auto product = [&](const ConvShape& shape, const View<T>& from, const View<T>& to, const View<const T>& residual,
                           ActKind act) {
    convolve<T>(shape, a.items, stream, [&](auto& args) {
      args.x = read(from);
      args.y = to;
      args.weight = weight;
      args.residual = residual;
      args.lengths = a.lengths;
      args.steps = a.steps;
      args.pre = args.post = identity();
      args.post.kind = act;
    });
    weight += convolution_weights<T>(shape);
  };

  norm(a.x, a.norms, a.eps1);
  product(a.mix(), normal, mixed, View<const T>{}, ActKind::kLeaky);
  AttendArgs<T> args{};
  args.mixed = mixed.data;
  args.y = seen.data;
  args.keys = a.keys ? a.keys : a.rings;
  args.values = a.values ? a.values : a.rings + a.items * a.ring * a.kept();
  args.frequencies = a.frequencies;
  args.place = a.place;
  args.lengths = a.lengths;
  args.steps = a.steps;
  args.ring = a.ring;
  args.heads = a.heads;
  args.kv_heads = a.kv_heads;
  args.size = a.size;
  args.window = a.window;
  args.scale = 1.0f / sqrtf(static_cast<float>(a.size));
  for (; args.begin < a.steps; args.begin = args.end) {
    args.end = min(args.begin + a.together(), a.steps);
    attend(args, a.items, stream);
  }
  product(a.out(), seen, a.y, a.x, ActKind::kLeaky);
  norm(read(a.y), a.norms + 2 * a.width(), a.eps2);
  product(a.expand(), normal, inner, View<const T>{}, ActKind::kGelu);
  product(a.project(), inner, a.y, read(a.y), ActKind::kLeaky);
}

}  // namespace fastvoc::cuda
