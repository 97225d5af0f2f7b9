// Which instruction set the CPU kernels run with, chosen when they are called.
//
// A kernel is one source that CMakeLists.txt compiles once per instruction set, each time into a
// namespace of that name. To a source of this kind everything else is closed: it includes no
// standard header with templates, because the linker could merge a copy of one that was compiled
// for a newer machine into code that runs on an older one.
#pragma once

namespace pyseq {

// From the one that runs everywhere to the one that knows most.
enum class Isa { kPortable, kAvx2, kAvx512, kAvx512Bf16, kAmx };
inline constexpr int kIsas = 5;

const char* name_of(Isa isa);

// The most capable one that was compiled and that this machine can run; so it can all before it.
Isa best_isa();

// PYSEQ_ISA, or the best one. Throws std::invalid_argument for a name that is unknown or that this
// machine cannot run.
Isa chosen_isa();

}  // namespace pyseq

// Declares `void op(const Arguments&)` in the namespace of every instruction set.
#define PYSEQ_FOR_EVERY_ISA(op, Arguments)   \
  PYSEQ_FOR_EVERY_WIDTH_ALONE(op, Arguments) \
  namespace avx512_bf16 {                    \
  void op(const Arguments&);                 \
  }                                          \
  namespace amx {                            \
  void op(const Arguments&);                 \
  }

// The same for an op without products of bfloat16, whose code is one for all three with AVX-512.
#define PYSEQ_FOR_EVERY_WIDTH(op, Arguments) \
  PYSEQ_FOR_EVERY_WIDTH_ALONE(op, Arguments) \
  namespace avx512_bf16 {                    \
  using avx512::op;                          \
  }                                          \
  namespace amx {                            \
  using avx512::op;                          \
  }

#define PYSEQ_FOR_EVERY_WIDTH_ALONE(op, Arguments) \
  namespace portable {                             \
  void op(const Arguments&);                       \
  }                                                \
  namespace avx2 {                                 \
  void op(const Arguments&);                       \
  }                                                \
  namespace avx512 {                               \
  void op(const Arguments&);                       \
  }

#ifdef PYSEQ_HAS_X86
#define PYSEQ_CALL(op, arguments)        \
  switch (chosen_isa()) {                \
    case Isa::kPortable:                 \
      return portable::op(arguments);    \
    case Isa::kAvx2:                     \
      return avx2::op(arguments);        \
    case Isa::kAvx512:                   \
      return avx512::op(arguments);      \
    case Isa::kAvx512Bf16:               \
      return avx512_bf16::op(arguments); \
    case Isa::kAmx:                      \
      return amx::op(arguments);         \
  }
#else
#define PYSEQ_CALL(op, arguments) return portable::op(arguments);
#endif
