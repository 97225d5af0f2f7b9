// Gradients of scale_cross_entropy for one instruction set.
//
// Chunk by chunk of tokens and section by section of symbols, the logits are made again, and of
// them their gradients D, sum_s g_s (softmax - softmax within the bin), which two products read:
// of hidden D weight, of weight D^T hidden. D is stored both ways, as both products' A. A task owns
// what it writes, so that sums have one order for any number of threads.
#include "scale_cross_entropy/logits.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

constexpr int64_t kFeatures = 256;  // of a gradient that one task sums up

// In each of kLanes pairs of rows, trades what lies off the diagonal of blocks of kStep.
template <int kStep>
PYSEQ_INLINE void trade(Floats (&rows)[kLanes]) {
  const Ints here = lanes();
  const Ints is_low = (here & kStep) == 0;
  const Ints low = is_low ? here : here + (kLanes - kStep);
  const Ints high = is_low ? here + kStep : here + kLanes;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if ((i & kStep) != 0) continue;
    const Floats first = rows[i];
    const Floats second = rows[i + kStep];
    rows[i] = __builtin_shuffle(first, second, low);
    rows[i + kStep] = __builtin_shuffle(first, second, high);
  }
}

// kLanes rows, `pitch` apart, as columns.
PYSEQ_INLINE void load_transposed(const float* from, int64_t pitch, Floats (&rows)[kLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) rows[i] = load(from + i * pitch);
  trade<1>(rows);
  trade<2>(rows);
  if constexpr (kLanes >= 8) trade<4>(rows);
  if constexpr (kLanes >= 16) trade<8>(rows);
}

template <typename Engine>
class Backward {
 public:
  using Element = typename Engine::Element;

  explicit Backward(const ScaleCrossEntropyBackward& x) : x_(x) {}

  void run() {
    logits_.load_bias();
    for (int64_t token = 0; token < logits_.N; token += logits_.chunk) {
      pack_hidden(token);
      for (int64_t symbol = 0; symbol < logits_.V; symbol += logits_.section) {
        pack_weight(symbol);
        make_gradients(token, symbol);
        add_products(token, symbol);
        if (x_.d_bias.data != nullptr) add_bias(token, symbol);
      }
    }
  }

 private:
  int64_t blocks_from(int64_t token) const {
    return (logits_.tokens_from(token) + kTokens - 1) / kTokens;
  }
  StackedRows<Engine> stacked_tokens(int64_t token) const {
    return {logits_.tokens_from(token), logits_.C};
  }
  StackedRows<Engine> stacked_symbols(int64_t symbol) const {
    return {logits_.symbols_from(symbol), logits_.C};
  }

  // As rows for the logits, and stacked for the product of the weight's gradient.
  void pack_hidden(int64_t token) const {
    const auto load_into = [&](int64_t n, float* row) {
      logits_.load_hidden(n, row);
      // A gradient of 0 does not keep a NaN out of a product.
      if (silent(n)) memset(row, 0, static_cast<size_t>(logits_.C) * sizeof(float));
    };
    const int64_t blocks = blocks_from(token);
    const StackedRows<Engine> stacked = stacked_tokens(token);
    const int64_t tasks = x_.d_weight.data == nullptr ? 0 : stacked.tasks;
    for_tasks(blocks + tasks, logits_.threads, [&](int64_t task, int worker) {
      if (task < blocks) {
        logits_.pack_hidden(token, task, scratch(worker), load_into);
      } else {
        stacked.pack(task - blocks, memory_.as<Element>(hidden_), scratch(worker),
                     [&](int64_t i, float* row) { load_into(token + i, row); });
      }
    });
  }

  // As columns for the logits, and stacked for the product of the hidden rows' gradient.
  void pack_weight(int64_t symbol) const {
    const int64_t columns = logits_.columns_from(symbol).tasks;
    const StackedRows<Engine> stacked = stacked_symbols(symbol);
    const int64_t tasks = x_.d_hidden.data == nullptr ? 0 : stacked.tasks;
    for_tasks(columns + tasks, logits_.threads, [&](int64_t task, int worker) {
      if (task < columns) {
        logits_.pack_weight(symbol, task, scratch(worker));
      } else {
        stacked.pack(task - columns, memory_.as<Element>(weight_), scratch(worker),
                     [&](int64_t v, float* row) { logits_.load_weight(symbol + v, row); });
      }
    });
  }

  // D of a chunk and a section.
  void make_gradients(int64_t token, int64_t symbol) const {
    const int64_t blocks = blocks_from(token);
    const int64_t widths = (logits_.symbols_from(symbol) + kSymbols - 1) / kSymbols;
    for_tasks(blocks * widths, logits_.threads, [&](int64_t task, int worker) {
      make_block(token, task % blocks, symbol, task / blocks * kSymbols, worker);
    });
  }

  void make_block(int64_t token, int64_t block, int64_t symbol, int64_t start, int worker) const {
    const int64_t first = token + block * kTokens;
    const int64_t count = smaller(logits_.N - first, kTokens);
    const int64_t filled = round_up(count, Engine::kColumns);
    const int64_t width =
        round_up(smaller(logits_.symbols_from(symbol) - start, kSymbols), Engine::kColumns);
    float* gradients = scratch(worker);
    Engine::begin();
    logits_.multiply_block(block, count, symbol, start, width, gradients);
    Engine::end();

    for (int64_t i = 0; i < filled; ++i) {
      float* row = gradients + i * kBlockRow;
      if (i < count && !silent(first + i)) {
        differentiate(first + i, symbol + start, width, row);
      } else {
        memset(row, 0, static_cast<size_t>(width) * sizeof(float));
      }
    }
    if (x_.d_hidden.data != nullptr) {
      for (int64_t i = 0; i < filled; ++i) {
        put_row<Engine>(gradients + i * kBlockRow, width,
                        memory_.as<Element>(rows_) + (block * kTokens + i) * rows_pitch_ + start,
                        rows_plane_);
      }
    }
    if (x_.d_weight.data != nullptr) put_columns(gradients, block, filled, start, width);
    if (x_.d_bias.data != nullptr) sum_columns(gradients, block, filled, start, width);
  }

  // One token's logits to their gradients.
  void differentiate(int64_t n, int64_t symbol, int64_t width, float* row) const {
    const float* bias = logits_.bias(symbol);
    const float best = mass_at(0, 0)[n];
    const float factor = total_grad(n) / mass_at(1, 0)[n];
    float logits[kSymbols];
    for (int64_t v = 0; v < width; v += kLanes) {
      const Floats logit = load(row + v) + load(bias + v);
      store(logits + v, logit);
      store(row + v, exponential(logit - best) * factor);
    }
    for (int64_t s = 0; s < scales_; ++s) {
      const Bin bin = bin_of(x_.logits, n, s).within(symbol, width);
      if (bin.empty()) continue;
      const float bin_best = mass_at(0, 1 + s)[n];
      const float share = grad_at(s)[n] / mass_at(1, 1 + s)[n];
      for (int64_t v = bin.first / kLanes * kLanes; v < bin.stop; v += kLanes) {
        const Floats own = exponential(load(logits + v) - bin_best) * share;
        store(row + v, load(row + v) - (bin.holds(v) ? own : Floats{}));
      }
    }
  }

  // A block of D as rows of symbols.
  void put_columns(const float* gradients, int64_t block, int64_t filled, int64_t start,
                   int64_t width) const {
    for (int64_t i = 0; i < filled; i += Engine::kColumns) {
      const float* from = gradients + i * kBlockRow;
      Element* to = memory_.as<Element>(columns_) + start * columns_pitch_ + block * kTokens + i;
      for (int64_t v = 0; v < width; v += kLanes) {
        Floats first[kLanes];
        Floats second[kLanes];
        load_transposed(from + v, kBlockRow, first);
        load_transposed(from + kLanes * kBlockRow + v, kBlockRow, second);
        for (int64_t j = 0; j < kLanes; ++j) {
          Engine::put(to + (v + j) * columns_pitch_, columns_plane_, first[j], second[j]);
        }
      }
    }
  }

  void sum_columns(const float* gradients, int64_t block, int64_t filled, int64_t start,
                   int64_t width) const {
    float* to = memory_.as<float>(bias_sums_) + block * logits_.section + start;
    for (int64_t v = 0; v < width; v += kLanes) {
      Floats sums = {};
      for (int64_t i = 0; i < filled; ++i) sums += load(gradients + i * kBlockRow + v);
      store(to + v, sums);
    }
  }

  void add_products(int64_t token, int64_t symbol) const {
    const int64_t parts = (logits_.C + kFeatures - 1) / kFeatures;
    const int64_t blocks = x_.d_hidden.data == nullptr ? 0 : blocks_from(token);
    const int64_t widths =
        x_.d_weight.data == nullptr ? 0 : (logits_.symbols_from(symbol) + kSymbols - 1) / kSymbols;
    for_tasks((blocks + widths) * parts, logits_.threads, [&](int64_t task, int) {
      const int64_t feature = task % parts * kFeatures;
      const int64_t features = smaller(logits_.depth - feature, kFeatures);
      Engine::begin();
      if (task / parts < blocks) {
        add_to_hidden(token, task / parts, symbol, feature, features);
      } else {
        add_to_weight(token, symbol, (task / parts - blocks) * kSymbols, feature, features);
      }
      Engine::end();
    });
  }

  void add_to_hidden(int64_t token, int64_t block, int64_t symbol, int64_t feature,
                     int64_t features) const {
    const int64_t first = token + block * kTokens;
    const int64_t count = smaller(logits_.N - first, kTokens);
    const StackedRows<Engine> stacked = stacked_symbols(symbol);
    const Element* gradients = memory_.as<Element>(rows_) + block * kTokens * rows_pitch_;
    Panels<Element> weight = stacked.from(memory_.as<Element>(weight_), 0);
    weight.data += feature / Engine::kColumns * weight.panel;
    multiply<Engine, Element>({gradients, rows_pitch_, rows_plane_}, weight,
                              reinterpret_cast<float*>(x_.d_hidden.at(first, feature)),
                              x_.d_hidden.stride[0], round_up(count, Engine::kRowUnit), features,
                              stacked.rows, symbol > 0);
  }

  void add_to_weight(int64_t token, int64_t symbol, int64_t start, int64_t feature,
                     int64_t features) const {
    const int64_t count = smaller(logits_.symbols_from(symbol) - start, kSymbols);
    const StackedRows<Engine> stacked = stacked_tokens(token);
    const Element* gradients = memory_.as<Element>(columns_) + start * columns_pitch_;
    Panels<Element> hidden = stacked.from(memory_.as<Element>(hidden_), 0);
    hidden.data += feature / Engine::kColumns * hidden.panel;
    multiply<Engine, Element>({gradients, columns_pitch_, columns_plane_}, hidden,
                              reinterpret_cast<float*>(x_.d_weight.at(symbol + start, feature)),
                              x_.d_weight.stride[0], round_up(count, Engine::kRowUnit), features,
                              stacked.rows, token > 0);
  }

  void add_bias(int64_t token, int64_t symbol) const {
    auto* to = reinterpret_cast<float*>(x_.d_bias.data) + symbol;
    const int64_t count = logits_.symbols_from(symbol);
    for (int64_t block = 0; block < blocks_from(token); ++block) {
      const float* sums = memory_.as<float>(bias_sums_) + block * logits_.section;
      const bool add = token + block > 0;
      for (int64_t v = 0; v < count; ++v) to[v] = add ? to[v] + sums[v] : sums[v];
    }
  }

  bool silent(int64_t n) const {
    for (int64_t s = 0; s < scales_; ++s) {
      if (grad_at(s)[n] != 0) return false;
    }
    return true;
  }
  float total_grad(int64_t n) const {
    float total = 0;
    for (int64_t s = 0; s < scales_; ++s) total += grad_at(s)[n];
    return total;
  }
  const float* grad_at(int64_t s) const {
    return reinterpret_cast<const float*>(x_.grad.data) + s * logits_.N;
  }
  const float* mass_at(int64_t which, int64_t m) const {
    return reinterpret_cast<const float*>(x_.masses.data) + (which * (1 + scales_) + m) * logits_.N;
  }
  float* scratch(int worker) const { return memory_.as<float>(working_ + worker * scratch_bytes_); }

  int64_t add_if(const Tensor& wanted, int64_t elements) {
    return wanted.data == nullptr ? 0 : layout_.add<Element>(elements);
  }

  const ScaleCrossEntropyBackward& x_;
  Layout layout_;
  const Logits<Engine> logits_{x_.logits, layout_, memory_};
  const int64_t scales_ = x_.logits.scale_count;
  const int64_t rows_pitch_ = pitch_of<Element>(logits_.section);
  const int64_t rows_plane_ = logits_.chunk * rows_pitch_;
  const int64_t columns_pitch_ = pitch_of<Element>(logits_.chunk);
  const int64_t columns_plane_ = logits_.section * columns_pitch_;
  const int64_t rows_ = add_if(x_.d_hidden, Engine::kPlanes* rows_plane_);        // D
  const int64_t columns_ = add_if(x_.d_weight, Engine::kPlanes* columns_plane_);  // its columns
  const int64_t weight_ = add_if(x_.d_hidden, StackedRows<Engine>{logits_.section, logits_.C}.head);
  const int64_t hidden_ = add_if(x_.d_weight, StackedRows<Engine>{logits_.chunk, logits_.C}.head);
  const int64_t bias_sums_ = layout_.add<float>(logits_.chunk / kTokens * logits_.section);
  const int64_t scratch_bytes_ = padded_bytes(larger(
      larger(logits_.scratch_bytes, StackedRows<Engine>{kSymbols, logits_.C}.scratch_bytes()),
      kTokens * kBlockRow * int64_t{sizeof(float)}));
  const int64_t working_ = layout_.add<char>(logits_.threads * scratch_bytes_);
  const Buffer memory_{layout_.bytes};
};

}  // namespace

void scale_cross_entropy_backward(const ScaleCrossEntropyBackward& x) {
  with_engine(x.logits.hidden.dtype, 1, [&]<typename Engine>() { Backward<Engine>(x).run(); });
}

}  // namespace pyseq::PYSEQ_ISA
