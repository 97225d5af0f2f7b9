// The multiply-adds of one instruction set.
#include "cpu/packed_rows.hpp"
#include "peak/peak.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

constexpr int64_t kSteps = 1 << 14;  // of a task: a tenth of a millisecond, more than a fork costs

// Independent sums, in registers with the operands: enough for two units with latencies of up to
// eight. Every loop over them is unrolled, or they would be kept in memory.
#if defined(__AVX512F__)
constexpr int kSums = 24;
#else
constexpr int kSums = 12;
#endif

// To the compiler, somebody reads x.
PYSEQ_INLINE void use(const Floats& x) { asm volatile("" : : "m"(x)); }

PYSEQ_INLINE void start(Floats (&sums)[kSums]) {
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) sums[i] = broadcast(static_cast<float>(i));
}

PYSEQ_INLINE void finish(const Floats (&sums)[kSums]) {
  Floats total = {};
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) total += sums[i];
  use(total);
}

// Returns the operations of a task.
int64_t float_task() {
  Floats sums[kSums];
  start(sums);
  // x f + a has a limit near 1, so nothing overflows or becomes denormal; and unlike x + f a, in
  // which f a never changes, it cannot be made without a product.
  const Floats factor = broadcast(0.7310586F);
  const Floats addend = broadcast(0.2689414F);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) sums[i] = sums[i] * factor + addend;
  }
  finish(sums);
  return kSteps * kSums * kLanes * 2;
}

// bfloat16 between 1/2 and 1, of all mantissas: the sum of a task's products stays finite.
[[maybe_unused]] constexpr uint16_t bfloat(int i) {
  return static_cast<uint16_t>(0x3f00 + i % 128);
}

#if defined(__AMX_BF16__)

int64_t bfloat_task() {
  constexpr int64_t kRows = 16;
  constexpr int64_t kPairs = 16;
  alignas(64) uint16_t operand[kRows * 2 * kPairs];
  for (int i = 0; i < kRows * 2 * kPairs; ++i) operand[i] = bfloat(i);
  TileEngine<1>::begin();
  asm volatile(
      "tilezero %%tmm0\n\t"
      "tilezero %%tmm1\n\t"
      "tilezero %%tmm2\n\t"
      "tilezero %%tmm3\n\t"
      "tilezero %%tmm4\n\t"
      "tilezero %%tmm5\n\t"
      "tileloadd (%0,%1,1), %%tmm6\n\t"
      "tileloadd (%0,%1,1), %%tmm7"
      :
      : "r"(operand), "r"(2 * kPairs * int64_t{sizeof(uint16_t)})
      : "memory");
  for (int64_t step = 0; step < kSteps; ++step) {
    asm volatile(
        "tdpbf16ps %%tmm7, %%tmm6, %%tmm0\n\t"
        "tdpbf16ps %%tmm7, %%tmm6, %%tmm1\n\t"
        "tdpbf16ps %%tmm7, %%tmm6, %%tmm2\n\t"
        "tdpbf16ps %%tmm7, %%tmm6, %%tmm3\n\t"
        "tdpbf16ps %%tmm7, %%tmm6, %%tmm4\n\t"
        "tdpbf16ps %%tmm7, %%tmm6, %%tmm5"
        :
        :);
  }
  TileEngine<1>::end();
  constexpr int64_t kTiles = 6;
  return kSteps * kTiles * kRows * kPairs * 2 * kPairs * 2;
}

#elif defined(__AVX512BF16__)

int64_t bfloat_task() {
  Floats sums[kSums];
  start(sums);
  uint16_t elements[2 * kLanes];
  for (int i = 0; i < 2 * kLanes; ++i) elements[i] = bfloat(i);
  const __m512bh operand = (__m512bh)_mm512_loadu_si512(elements);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) {
      sums[i] = (Floats)_mm512_dpbf16_ps((__m512)sums[i], operand, operand);
    }
  }
  finish(sums);
  return kSteps * kSums * kLanes * 2 * 2;
}

#else

int64_t bfloat_task() { return float_task(); }

#endif

}  // namespace

void peak(const Peak& x) {
  const auto task = x.dtype == DType::kBFloat16 ? bfloat_task : float_task;
  int64_t done = 0;
  for_tasks(x.tasks, x.threads,
            [&](int64_t, int) { __atomic_fetch_add(&done, task(), __ATOMIC_RELAXED); });
  *x.operations = done;
}

}  // namespace pyseq::PYSEQ_ISA
