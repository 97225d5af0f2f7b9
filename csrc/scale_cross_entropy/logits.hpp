// What both directions of scale_cross_entropy share: logits made block by block, and bins.
#pragma once

#include "cpu/packed_rows.hpp"
#include "scale_cross_entropy/scale_cross_entropy.hpp"

namespace pyseq::PYSEQ_ISA {

// A block of logits, which with its rows of `hidden` stays in a core's L2 cache.
inline constexpr int64_t kTokens = 192;  // a multiple of every engine's rows and columns
inline constexpr int64_t kSymbols = 256;
inline constexpr int64_t kBlockRow = kSymbols + 16;  // no power of two, which crowds few cache sets

// Tokens and symbols that are packed at the same time.
inline constexpr int64_t kChunk = 6 * kTokens;
inline constexpr int64_t kSection = 4 * kSymbols;

// Terms that a product sums before it adds them to memory, at most: sums of sums round less, and of
// B a panel of so many rows stays in the L1 cache.
inline constexpr int64_t kTerms = 256;

template <typename Element>
constexpr int64_t pitch_of(int64_t n) {
  return n + 64 / int64_t{sizeof(Element)};  // again no power of two
}

// e^x for x up to 88; NaN stays NaN.
PYSEQ_INLINE Floats exponential(Floats x) {
  return exp2<7>(maximum(broadcast(kVanished), x * kLog2E));
}

// C (+)= A B for any depth K, of which short ones too are summed in parts.
template <typename Engine, typename Element>
void multiply(Rows<Element> a, Panels<Element> b, float* c, int64_t c_row, int64_t M, int64_t N,
              int64_t K, bool add) {
  const int64_t part = smaller(round_up((K + 3) / 4, 32), kTerms);  // 32: every engine's depth
  for (int64_t k = 0; k < K; k += part, a.data += part, b.data += part * Engine::kColumns) {
    const int64_t terms = smaller(K - k, part);
    if (add || k > 0) {
      Engine::template multiply<true>(a, b, c, c_row, M, N, terms);
    } else {
      Engine::template multiply<false>(a, b, c, c_row, M, N, terms);
    }
  }
}

// Symbols first to stop - 1.
struct Bin {
  int64_t first;
  int64_t stop;

  bool empty() const { return first >= stop; }
  // What of it lies in a block, counted from the block's first symbol.
  Bin within(int64_t start, int64_t width) const {
    return {first > start ? first - start : 0, smaller(stop - start, width)};
  }
  // Which of kLanes symbols are in it.
  PYSEQ_INLINE Ints holds(int64_t symbol) const {
    const Ints here = lanes() + static_cast<int32_t>(symbol);
    return (here >= static_cast<int32_t>(first)) & (here < static_cast<int32_t>(stop));
  }
};

// The bin of token n's target at scale s; an empty one for a target outside the alphabet.
inline Bin bin_of(const ScaleLogits& x, int64_t n, int64_t s) {
  const int64_t V = x.weight.shape[0];
  const int64_t target = *reinterpret_cast<const int64_t*>(x.targets.at(n));
  if (target < 0 || target >= V) return {0, 0};
  const int64_t first = target / x.scales[s] * x.scales[s];
  return {first, smaller(first + x.scales[s], V)};
}

// Where parts of one buffer begin: a single one is kept for the next call, of several only one is.
struct Layout {
  int64_t bytes = 0;

  template <typename T>
  int64_t add(int64_t elements) {
    const int64_t at = bytes;
    bytes += padded_bytes(elements * int64_t{sizeof(T)});
    return at;
  }
};

// Logits of some tokens, a chunk, and some symbols, a section, whose operands are packed here.
template <typename Engine>
class Logits {
 public:
  using Element = typename Engine::Element;

  // `layout` goes on after this; the memory may be allocated later.
  Logits(const ScaleLogits& call, Layout& layout, const Buffer& memory)
      : x(call),
        memory_(memory),
        hidden_(layout.add<Element>(Engine::kPlanes * plane)),
        weight_(layout.add<Element>(Columns<Engine>{section, C}.head)),
        bias_(layout.add<float>(round_up(V, kSymbols))) {}

  const ScaleLogits& x;
  const int64_t N = x.hidden.shape[0];
  const int64_t V = x.weight.shape[0];
  const int64_t C = x.weight.shape[1];
  const int threads = useful_threads(x.threads, double(N) * double(V) * double(C));

  const int64_t chunk = smaller(round_up(N, kTokens), kChunk);
  const int64_t section = smaller(round_up(V, kSymbols), kSection);
  const int64_t depth = round_up(C, Engine::kColumns);
  const int64_t pitch = pitch_of<Element>(depth);
  const int64_t plane = chunk * pitch;
  // Of a thread that packs.
  const int64_t scratch_bytes = Columns<Engine>{section, C}.scratch_bytes();

  float* bias(int64_t symbol) const { return memory_.as<float>(bias_) + symbol; }

  int64_t tokens_from(int64_t token) const { return smaller(N - token, chunk); }
  int64_t symbols_from(int64_t symbol) const { return smaller(V - symbol, section); }

  // The sections' biases, and -inf for symbols that only fill up a block, which no exponential then
  // counts.
  void load_bias() const {
    float* to = bias(0);
    for (int64_t v = 0; v < V; ++v) to[v] = 0;
    if (x.bias.data != nullptr) load_row(x.bias.at(0), x.bias.dtype, x.bias.stride[0], V, to);
    for (int64_t v = V; v < round_up(V, kSymbols); ++v) to[v] = -kInfinity;
  }

  void load_hidden(int64_t n, float* row) const {
    load_row(x.hidden.at(n), x.hidden.dtype, x.hidden.stride[1], C, row);
  }
  void load_weight(int64_t v, float* row) const {
    load_row(x.weight.at(v), x.weight.dtype, x.weight.stride[1], C, row);
  }

  // The kTokens tokens of one block of the chunk that starts at `token`; load_into(n, row) writes
  // token n's features.
  template <typename Load>
  void pack_hidden(int64_t token, int64_t block, float* scratch, const Load& load_into) const {
    memset(scratch, 0, static_cast<size_t>(depth) * sizeof(float));
    for (int64_t i = block * kTokens; i < (block + 1) * kTokens; ++i) {
      if (token + i < N) {
        load_into(token + i, scratch);
      } else {
        memset(scratch, 0, static_cast<size_t>(depth) * sizeof(float));
      }
      put_row<Engine>(scratch, depth, memory_.as<Element>(hidden_) + i * pitch, plane);
    }
  }

  // One of Columns::tasks of the section that starts at `symbol`.
  void pack_weight(int64_t symbol, int64_t task, float* scratch) const {
    columns_from(symbol).pack(task, memory_.as<Element>(weight_), scratch,
                              [&](int64_t v, float* row) { load_weight(symbol + v, row); });
  }

  Columns<Engine> columns_from(int64_t symbol) const { return {symbols_from(symbol), C}; }

  // Logits without their bias of a block's first `count` tokens and `width` symbols of the section
  // that starts at `symbol`, from its `start` on.
  void multiply_block(int64_t block, int64_t count, int64_t symbol, int64_t start, int64_t width,
                      float* to) const {
    const Element* a = memory_.as<Element>(hidden_) + block * kTokens * pitch;
    multiply<Engine, Element>({a, pitch, plane},
                              columns_from(symbol).from(memory_.as<Element>(weight_), start), to,
                              kBlockRow, round_up(count, Engine::kRowUnit), width, depth, false);
  }

 private:
  const Buffer& memory_;
  const int64_t hidden_;
  const int64_t weight_;
  const int64_t bias_;
};

}  // namespace pyseq::PYSEQ_ISA
