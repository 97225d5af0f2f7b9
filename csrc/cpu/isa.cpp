#include "cpu/isa.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

#ifdef PYSEQ_HAS_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pyseq {

namespace {

#ifdef PYSEQ_HAS_X86
bool has_bfloat_products() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1U << 5)) != 0;
}

// AMX registers are large, so Linux gives them to a process only when it asks.
bool has_tiles() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  constexpr unsigned kTilesAndBfloat = (1U << 24) | (1U << 22);
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kTilesAndBfloat) != kTilesAndBfloat) return false;
#ifdef __linux__
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILE_DATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Isa detect() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("f16c")) {
    return Isa::kPortable;
  }
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq")) {
    return Isa::kAvx2;
  }
  if (!has_bfloat_products()) return Isa::kAvx512;
  return has_tiles() ? Isa::kAmx : Isa::kAvx512Bf16;
}
#else
Isa detect() { return Isa::kPortable; }
#endif

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
    case Isa::kAmx:
      return "amx";
  }
  return "";
}

Isa best_isa() {
  static const Isa best = detect();
  return best;
}

Isa chosen_isa() {
  const char* asked = std::getenv("PYSEQ_ISA");
  if (asked == nullptr) return best_isa();
  std::string names;
  for (int i = 0; i <= static_cast<int>(best_isa()); ++i) {
    const std::string name = name_of(static_cast<Isa>(i));
    if (asked == name) return static_cast<Isa>(i);
    names += (i == 0 ? "" : ", ") + name;
  }
  throw std::invalid_argument(std::string("PYSEQ_ISA is '") + asked + "'; this machine runs " +
                              names);
}

}  // namespace pyseq
