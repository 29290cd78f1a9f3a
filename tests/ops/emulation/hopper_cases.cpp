// A matrix product by Hopper's instructions, with one wait or fence left out by name; says whether it came out right.
#include <cstdio>
#include <string>

#include "cuda/hopper.cuh"

namespace fastvoc::cuda {
namespace {

constexpr int kColumns = 32, kChunks = 7, kSlots = 2, kDepth = 16 * kChunks, kRows = 64, kShift = 3;
constexpr int kStride = kRows + kShift;  // rows of a: products begin at the fourth, whose address is no multiple of 128

std::string fault;
bool has(const char* name) { return fault != name; }

struct Args {
  const BFloat16* a;  // [depth / 8, kStride, 8]
  const BFloat16* b;  // [chunks, columns / 8, 2, 8, 8]
  float* out;         // [rows, columns]
};

void produce(const Args& args, unsigned char* ring, std::uint64_t* full, std::uint64_t* empty) {
  constexpr unsigned kBytes = 2 * 16 * kColumns;
  for (unsigned i = 0; i < kChunks; ++i) {
    const unsigned slot = i % kSlots, round = i / kSlots;
    if (has("empty")) barrier_wait(empty + slot, round % 2 ^ 1);
    barrier_expect(full + slot, kBytes);
    copy_bulk(ring + slot * kBytes, args.b + i * 16 * kColumns, kBytes, full + slot);
  }
}

void consume(const Args& args, unsigned char* ring, unsigned char* rows, std::uint64_t* full, std::uint64_t* empty) {
  struct alignas(16) Eight {
    BFloat16 v[8];
  };
  const unsigned thread = threadIdx.x - 128;
  for (unsigned i = thread; i < kDepth / 8 * kStride; i += 128) {
    store_operand(rows + 16 * i, *reinterpret_cast<const Eight*>(args.a + 8 * i));
  }
  if (has("fence")) fence_operands();
  if (has("barrier")) group_sync(1, 128);
  float sums[kColumns / 2];
  for (float& each : sums) each = NAN;
  for (unsigned i = 0; i < kChunks; ++i) {
    const unsigned slot = i % kSlots;
    if (has("full")) barrier_wait(full + slot, i / kSlots % 2);
    if (has("products_fence")) products_fence();
    product(sums, operand(operand_part(shared_address(rows) + 16 * (kShift + 2 * i * kStride), 16 * kStride), 128),
            operand(operand_part(shared_address(ring) + slot * 32 * kColumns, 128), 256), i > 0);
    products_commit();
    if (has("release")) products_wait<0>();
    if (thread == 0) barrier_arrive(empty + slot);
    if (!has("release")) products_wait<0>();
    if (!has("overwrite") && i == 2) {
      products_fence();
      product(sums, operand(operand_part(shared_address(rows) + 16 * kShift, 16 * kStride), 128),
              operand(operand_part(shared_address(ring), 128), 256), 1);
      products_commit();
      store_operand(rows + 16 * (kShift + thread % kRows), std::uint32_t{0x40004000});
      fence_operands();
      group_sync(1, 128);
      products_wait<0>();
    }
  }
  if (!has("wait")) {
    products_fence();
    product(sums, operand(operand_part(shared_address(rows), 16 * kStride), 128), operand(operand_part(shared_address(ring), 128), 256), 1);
    products_commit();
  }
  sums_ready(sums);
  const unsigned row = thread / 32 * 16 + thread % 32 / 4;
  for (unsigned i = 0; i < kColumns / 2; ++i) {
    args.out[(row + i / 2 % 2 * 8) * kColumns + i / 4 * 8 + thread % 4 * 2 + i % 2] = sums[i];
  }
}

void kernel(Args args) {
  unsigned char* const ring = shared_memory();
  auto* const full = reinterpret_cast<std::uint64_t*>(ring + kSlots * 32 * kColumns);
  auto* const empty = full + kSlots;
  unsigned char* const rows = ring + kSlots * 32 * kColumns + 128;
  if (threadIdx.x == 0) {
    for (unsigned i = 0; i < kSlots; ++i) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 1);
    }
    if (has("ready")) barriers_ready();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    fewer_registers<24>();
    if (threadIdx.x == 0) produce(args, ring, full, empty);
  } else {
    more_registers<240>();
    consume(args, ring, rows, full, empty);
  }
}

}  // namespace
}  // namespace fastvoc::cuda

int main(int, char** given) {
  using namespace fastvoc::cuda;
  fault = given[1];
  emulation::device = 0;
  emulation::early = *given[2] == '1';
  emulation::backwards = *given[3] == '1';
  std::vector<BFloat16> a(kDepth * kStride), b(kDepth * kColumns);
  std::vector<float> out(kRows * kColumns);
  const auto number = [](int i) { return narrow<BFloat16>(static_cast<float>(i * 37 % 101 - 50)); };
  for (int i = 0; i < kDepth * kStride; ++i) a[static_cast<std::size_t>(i)] = number(i);
  for (int i = 0; i < kDepth * kColumns; ++i) b[static_cast<std::size_t>(i)] = number(i + 13);
  const int bytes = kSlots * 32 * kColumns + 128 + kDepth * kStride * 2;
  launch_blocks(kernel, 1, 1, 256, bytes, nullptr, Args{a.data(), b.data(), out.data()});
  bool right = true;
  for (int row = 0; row < kRows; ++row) {
    for (int n = 0; n < kColumns; ++n) {
      double sum = 0;
      for (int k = 0; k < kDepth; ++k) {
        const int at = (k / 16 * kColumns / 8 + n / 8) * 128 + k % 16 / 8 * 64 + n % 8 * 8 + k % 8;
        sum += double{widen(a[static_cast<std::size_t>((k / 8 * kStride + row + kShift) * 8 + k % 8)])} *
               double{widen(b[static_cast<std::size_t>(at)])};
      }
      right = right && out[static_cast<std::size_t>(row * kColumns + n)] == static_cast<float>(sum);
    }
  }
  std::puts(right ? "right" : "wrong");
}
