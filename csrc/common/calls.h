// The calls of the native ops, as fastvoc/ops declares them: what is packed for an op, then what a call adds. A test compares
// both. What a field means stands beside the kernel that takes it, in *_args.h, and in fastvoc/ops.
#pragma once

#include "common/call.h"

namespace fastvoc {

struct AdainCall : Call {
  using Call::Call;
  Tensor weight = tensor(), bias = tensor();
  double eps = number();
  Ints kinds = ints();
  Doubles slopes = doubles();
  MaybeTensor curves = maybe();
  Tensor x = tensor(), style = tensor();
  MaybeTensor lengths = maybe();
};

struct AttentionBlockCall : Call {
  using Call::Call;
  Tensor weight = tensor(), norms = tensor(), frequencies = tensor();
  int channels = integer(), heads = integer(), kv_heads = integer(), head_dim = integer(), hidden = integer();
  int window = integer();
  double eps1 = number(), eps2 = number();
  MaybeTensor integers = maybe();
  Doubles grids = doubles();
  Tensor x = tensor();
  MaybeTensor lengths = maybe(), keys = maybe(), values = maybe(), place = maybe();
};

struct Conv1dCall : Call {
  using Call::Call;
  Tensor weight = tensor(), bias = tensor();
  int cout = integer(), cin = integer(), kernel = integer(), stride = integer(), dilation = integer();
  int left = integer(), right = integer(), pad = integer();
  bool tiles = flag();
  Ints kinds = ints();
  Doubles slopes = doubles();
  MaybeTensor curves = maybe();
  Tensor x = tensor();
  MaybeTensor residual = maybe(), lengths = maybe();
};

struct Conv2dCall : Call {
  using Call::Call;
  Tensor weight = tensor(), bias = tensor();
  int cout = integer(), cin = integer(), time = integer(), across = integer(), pool = integer();
  double slope = number();
  Tensor x = tensor();
  MaybeTensor residual = maybe(), lengths = maybe();
};

struct ConvnextBlockCall : Call {
  using Call::Call;
  Tensor depthwise = tensor(), norm_weight = tensor(), norm_bias = tensor(), weight = tensor();
  Tensor expand_bias = tensor(), project_bias = tensor();
  int channels = integer(), hidden = integer(), kernel = integer(), chunk = integer();
  bool tiles = flag();
  int margin = integer();
  double eps = number();
  Tensor x = tensor();
  MaybeTensor row = maybe(), lengths = maybe();
};

struct ConvnextStreamCall : Call {
  using Call::Call;
  Tensors weights = tensors();
  int cin = integer(), kernel = integer(), channels = integer(), out = integer(), rows = integer();
  Ints hidden = ints(), kernels = ints(), chunks = ints();
  Doubles eps = doubles();
  Tensor x = tensor(), state = tensor();
  std::int64_t have = long_integer();
  bool last = flag();
  MaybeTensor row = maybe();
};

struct DepthwiseCall : Call {
  using Call::Call;
  Tensor weight = tensor(), bias = tensor();
  int channels = integer(), kernel = integer(), dilation = integer(), left = integer(), right = integer();
  Ints kinds = ints();
  Doubles slopes = doubles();
  MaybeTensor curves = maybe();
  Tensor x = tensor();
  MaybeTensor lengths = maybe();
};

struct GroupNormActCall : Call {
  using Call::Call;
  Tensor weight = tensor(), bias = tensor();
  double eps = number();
  Ints kinds = ints();
  Doubles slopes = doubles();
  MaybeTensor curves = maybe();
  Tensor x = tensor();
  MaybeTensor residual = maybe(), lengths = maybe();
};

struct IstftHeadCall : Call {
  using Call::Call;
  Tensor tables = tensor();
  Ints radices = ints();
  int size = integer(), hop = integer();
  bool sine = flag(), wide = flag();
  double clip = number(), clamp = number();
  int left = integer(), right = integer();
  Tensor x = tensor();
  MaybeTensor lengths = maybe();
};

struct LayerNormCall : Call {
  using Call::Call;
  Tensor weight = tensor(), bias = tensor();
  double eps = number();
  Tensor x = tensor();
  MaybeTensor row = maybe(), lengths = maybe();
};

struct LstmCall : Call {
  using Call::Call;
  Tensor weight = tensor(), bias = tensor();
  int layers = integer(), inputs = integer(), hidden = integer(), directions = integer();
  bool skip = flag();
  Tensor x = tensor();
  MaybeTensor lengths = maybe(), h = maybe(), c = maybe();
};

struct LvcCall : Call {
  using Call::Call;
  int hop = integer();
  bool gated = flag();
  Tensor x = tensor(), kernels = tensor(), biases = tensor();
  MaybeTensor residual = maybe(), lengths = maybe();
};

struct MrfPacked : Call {
  using Call::Call;
  Tensor weight = tensor(), bias = tensor();
  int channels = integer(), depth = integer(), pad = integer();
  Ints layers = ints(), kernels = ints(), dilations = ints(), schemes = ints(), kinds = ints();
  Doubles slopes = doubles();
  MaybeTensor curves = maybe();
};

struct MrfCall : MrfPacked {
  using MrfPacked::MrfPacked;
  Tensor x = tensor();
  MaybeTensor lengths = maybe();
};

struct MrfHasTileCall : MrfPacked {
  using MrfPacked::MrfPacked;
};

struct MrfHasStageCall : MrfPacked {
  using MrfPacked::MrfPacked;
};

struct MrfStreamCall : MrfPacked {
  using MrfPacked::MrfPacked;
  Tensor x = tensor(), state = tensor();
  std::int64_t have = long_integer();
  bool last = flag();
};

struct NsfSourceCall : Call {
  using Call::Call;
  Tensor weight = tensor(), bias = tensor();
  int rate = integer(), hop = integer(), kind = integer(), drawn = integer();
  double amp = number(), noise_std = number(), threshold = number();
  Tensor f0 = tensor();
  MaybeTensor state = maybe(), phase = maybe(), seed = maybe(), noise = maybe(), lengths = maybe();
  MaybeTensor frames = maybe();
};

struct ResampleCall : Call {
  using Call::Call;
  Tensor taps = tensor();
  int up = integer(), down = integer(), reach = integer();
  Tensor x = tensor(), tail = tensor();
  std::int64_t after = long_integer(), phase = long_integer(), count = long_integer(), keep = long_integer();
  bool s16 = flag();
};

struct RvqDecodeCall : Call {
  using Call::Call;
  Tensor books = tensor(), codes = tensor();
  MaybeTensor lengths = maybe();
};

struct RvqEncodeCall : Call {
  using Call::Call;
  Tensor books = tensor(), panels = tensor(), squares = tensor(), x = tensor();
  int n_q = integer();
  MaybeTensor lengths = maybe();
};

struct SeanetBlockCall : Call {
  using Call::Call;
  Tensor weight1 = tensor(), bias1 = tensor(), weight2 = tensor(), bias2 = tensor();
  MaybeTensor shortcut = maybe(), bias_shortcut = maybe(), norms = maybe();
  Doubles eps = doubles();
  int channels = integer(), hidden = integer(), out = integer(), kernel = integer(), dilation = integer();
  int left = integer(), right = integer(), pad = integer(), shift = integer();
  bool identity = flag(), tiles = flag();
  Ints kinds = ints();
  Doubles slopes = doubles();
  MaybeTensor curves = maybe();
  Tensor x = tensor();
  MaybeTensor lengths = maybe();
};

struct SnakeAaCall : Call {
  using Call::Call;
  Tensor alpha = tensor(), inverse = tensor(), taps = tensor(), x = tensor();
  MaybeTensor lengths = maybe();
};

struct StftCall : Call {
  using Call::Call;
  Tensor tables = tensor();
  Ints radices = ints();
  int size = integer(), hop = integer(), left = integer(), right = integer(), pad = integer();
  bool polar = flag(), first_is_real = flag();
  Tensor x = tensor();
  MaybeTensor lengths = maybe();
};

struct StreamRowsCall : Call {
  using Call::Call;
  std::int64_t before = long_integer(), low = long_integer(), high = long_integer(), after = long_integer();
  std::int64_t keep = long_integer();
  Tensor x = tensor();
  MaybeTensor tail = maybe();
};

struct StreamSumCall : Call {
  using Call::Call;
  Tensor x = tensor(), y = tensor(), kept_x = tensor(), kept_y = tensor();
};

struct UpsampleCall : Call {
  using Call::Call;
  Tensor weight = tensor(), bias = tensor();
  int cout = integer(), cin = integer(), kernel = integer(), stride = integer();
  bool tiles = flag();
  Ints kinds = ints();
  Doubles slopes = doubles();
  MaybeTensor curves = maybe();
  int left = integer(), right = integer();
  Tensor x = tensor();
  MaybeTensor lengths = maybe();
};

}  // namespace fastvoc

// Of all code above: a library says it of itself, and fastvoc/runtime/library.py, which has the same, refuses another. A test
// compares the three.
extern "C" {
extern const char calls_digest[] __attribute__((weak, visibility("default")));
const char calls_digest[] = "e9e49dac8f4964b1";
}
