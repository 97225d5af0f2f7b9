// The Python face of csrc/, with the bindings.cpp of rooms that are no ops: every function the
// package calls, and nothing that knows PyTorch.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "adaptive_attention/adaptive_attention.hpp"
#include "cosine_attention/cosine_attention.hpp"
#include "cosine_decode/cosine_decode.hpp"
#include "cpu/isa.hpp"
#include "cpu/parallel.hpp"
#include "exponential_smoothing/exponential_smoothing.hpp"
#include "feed_forward/feed_forward.hpp"
#include "gather_windows/gather_windows.hpp"
#include "gather_windows/symbol_source.hpp"
#include "hard_attention/hard_attention.hpp"
#include "lstm/lstm.hpp"
#include "mixture/bindings.hpp"
#include "patch_embed/patch_embed.hpp"
#include "peak/peak.hpp"
#include "predictors/bindings.hpp"
#include "prepare_keys/prepare_keys.hpp"
#include "randomness/bindings.hpp"
#include "scale_cross_entropy/scale_cross_entropy.hpp"
#include "softmax_attention/softmax_attention.hpp"
#include "window_loader/bindings.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Symbols = nb::ndarray<const uint16_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Offsets = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Windows = nb::ndarray<nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using File = std::tuple<int, int64_t, int64_t>;    // descriptor, byte offset, symbols
using Mapped = std::tuple<Symbols, int, int64_t>;  // symbols, descriptor, byte offset

pyseq::SymbolSource source_in_memory(const std::vector<Symbols>& arrays) {
  std::vector<pyseq::Segment> segments;
  for (const Symbols& array : arrays) {
    segments.push_back({.memory = array.data(), .count = static_cast<int64_t>(array.shape(0))});
  }
  return pyseq::SymbolSource(std::move(segments));
}

pyseq::SymbolSource source_in_mapped_files(const std::vector<Mapped>& files,
                                           int64_t most_resident) {
  std::vector<pyseq::Segment> segments;
  for (const auto& [array, descriptor, byte_offset] : files) {
    segments.push_back({.memory = array.data(),
                        .descriptor = descriptor,
                        .byte_offset = byte_offset,
                        .count = static_cast<int64_t>(array.shape(0))});
  }
  return pyseq::SymbolSource(std::move(segments), most_resident);
}

pyseq::SymbolSource source_in_files(const std::vector<File>& files) {
  std::vector<pyseq::Segment> segments;
  for (const auto& [descriptor, byte_offset, count] : files) {
    segments.push_back({.descriptor = descriptor, .byte_offset = byte_offset, .count = count});
  }
  return pyseq::SymbolSource(std::move(segments));
}

pyseq::SymbolType symbol_type(const nb::dlpack::dtype& dtype) {
  if (dtype == nb::dtype<uint16_t>()) return pyseq::SymbolType::kUint16;
  if (dtype == nb::dtype<int32_t>()) return pyseq::SymbolType::kInt32;
  if (dtype == nb::dtype<int64_t>()) return pyseq::SymbolType::kInt64;
  if (dtype == nb::dtype<float>()) return pyseq::SymbolType::kFloat32;
  throw nb::type_error("gather_windows: out is none of uint16, int32, int64, float32");
}

void gather_windows(const pyseq::SymbolSource& source, const Offsets& offsets, const Windows& out,
                    int threads) {
  const auto length = static_cast<int64_t>(out.shape(1));
  const std::span<const int64_t> starts(offsets.data(), offsets.shape(0));
  if (starts.size() != out.shape(0)) {
    throw nb::value_error("gather_windows: one offset per row of out");
  }
  for (const int64_t start : starts) {
    // Written so that no sum can overflow.
    if (start < 0 || length > source.size() || start > source.size() - length) {
      const std::string symbols = std::to_string(source.size());
      const std::string words = "gather_windows: a window of " + std::to_string(length) + " at " +
                                std::to_string(start) + " leaves the stream; offsets from 0 to " +
                                std::to_string(source.size() - length) + " fit; stream (" +
                                symbols + ",)";
      throw nb::index_error(words.c_str());
    }
  }
  const pyseq::SymbolType type = symbol_type(out.dtype());
  const nb::gil_scoped_release release;
  pyseq::gather_windows(source, starts, length, type, out.data(), threads);
}

using Array = nb::ndarray<nb::device::cpu>;
using OptionalArray = std::optional<Array>;

// The kernels' own view; the caller keeps the array alive.
pyseq::Tensor tensor(const Array& array) {
  constexpr auto kBfloat = static_cast<uint8_t>(nb::dlpack::dtype_code::Bfloat);
  const nb::dlpack::dtype dtype = array.dtype();
  pyseq::Tensor found;
  found.data = array.data();
  if (dtype == nb::dtype<float>()) {
    found.dtype = pyseq::DType::kFloat32;
  } else if (dtype == nb::dtype<int32_t>()) {
    found.dtype = pyseq::DType::kInt32;
  } else if (dtype == nb::dtype<int64_t>()) {
    found.dtype = pyseq::DType::kInt64;
  } else if (dtype == nb::dtype<uint16_t>()) {
    found.dtype = pyseq::DType::kUint16;
  } else if (dtype == nb::dtype<int16_t>()) {
    found.dtype = pyseq::DType::kInt16;
  } else if (dtype.code == kBfloat && dtype.bits == 16) {
    found.dtype = pyseq::DType::kBFloat16;
  } else if (dtype.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) &&
             dtype.bits == 16) {
    found.dtype = pyseq::DType::kFloat16;
  } else {
    throw nb::type_error("a dtype that no kernel knows");
  }
  if (array.ndim() > 4) throw nb::value_error("more axes than a kernel knows");
  for (size_t axis = 0; axis < array.ndim(); ++axis) {
    found.shape[axis] = static_cast<int64_t>(array.shape(axis));
    found.stride[axis] = array.stride(axis);
  }
  return found;
}

// An output, which the caller has just allocated. A large one is new to the process: malloc gives
// such blocks back when they are freed, and keeps smaller ones.
pyseq::Tensor output(const Array& array) {
  constexpr int64_t kKept = int64_t{32} << 20;
  const pyseq::Tensor found = tensor(array);
  int64_t last = 0;
  for (size_t axis = 0; axis < array.ndim(); ++axis) {
    if (found.shape[axis] == 0) return found;
    last += (found.shape[axis] - 1) * found.stride[axis];
  }
  const int64_t bytes = (last + 1) * pyseq::size_of(found.dtype);
  if (bytes > kKept) pyseq::wish_huge_pages(found.data, bytes);
  return found;
}

pyseq::Tensor output(const std::optional<Array>& array) {
  return array.has_value() ? output(*array) : pyseq::Tensor{};
}

pyseq::Tensor tensor(const std::optional<Array>& array) {
  return array.has_value() ? tensor(*array) : pyseq::Tensor{};
}

void hard_attention(const Array& query, const Array& key, const Array& value, const Array& out,
                    const Array& index, bool causal, int threads) {
  const pyseq::HardAttention arguments{
      .query = tensor(query),
      .key = tensor(key),
      .value = tensor(value),
      .out = output(out),
      .index = tensor(index),
      .causal = causal,
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::hard_attention(arguments);
}

pyseq::Sharpness sharpness(const std::vector<float>& coefficients, float least_entropy) {
  return {coefficients.data(), static_cast<int64_t>(coefficients.size()), least_entropy};
}

void adaptive_attention(const Array& query, const Array& key, const Array& value, const Array& out,
                        const Array& measures, float scale, const std::vector<float>& coefficients,
                        float least_entropy, bool causal, int threads) {
  const pyseq::AdaptiveAttention arguments{
      .query = tensor(query),
      .key = tensor(key),
      .value = tensor(value),
      .out = output(out),
      .measures = tensor(measures),
      .scale = scale,
      .sharpness = sharpness(coefficients, least_entropy),
      .causal = causal,
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::adaptive_attention(arguments);
}

void adaptive_attention_backward(const Array& grad, const Array& query, const Array& key,
                                 const Array& value, const Array& scale, const Array& measures,
                                 const OptionalArray& grad_query, const OptionalArray& grad_key,
                                 const OptionalArray& grad_value,
                                 const std::vector<float>& coefficients, float least_entropy,
                                 bool causal, int threads) {
  const pyseq::AdaptiveAttentionBackward arguments{
      .all = {.grad = tensor(grad),
              .query = tensor(query),
              .key = tensor(key),
              .value = tensor(value),
              .scale = tensor(scale),
              .grad_query = output(grad_query),
              .grad_key = output(grad_key),
              .grad_value = output(grad_value),
              .grad_scale = {},
              .grad_query_gain = {},
              .grad_key_gain = {},
              .prepare_query = {},
              .prepare_key = {},
              .causal = causal,
              .window = 0,
              .prefix = 0,
              .threads = threads},
      .measures = tensor(measures),
      .sharpness = sharpness(coefficients, least_entropy),
  };
  const nb::gil_scoped_release release;
  pyseq::adaptive_attention_backward(arguments);
}

void hard_attention_copy_backward(const Array& grad, const Array& index, const Array& grad_value,
                                  int threads) {
  const pyseq::HardAttentionCopyBackward arguments{
      .grad = tensor(grad),
      .index = tensor(index),
      .grad_value = output(grad_value),
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::hard_attention_copy_backward(arguments);
}

pyseq::Norm norm_named(const std::optional<std::string>& name) {
  if (!name.has_value()) return pyseq::Norm::kNone;
  if (*name == "l2") return pyseq::Norm::kL2;
  if (*name == "rms") return pyseq::Norm::kRms;
  if (*name == "layer") return pyseq::Norm::kLayer;
  throw nb::value_error("a norm that no kernel knows");
}

pyseq::Preparation preparation(const std::optional<std::string>& norm, float eps,
                               const OptionalArray& gain, const OptionalArray& cos,
                               const OptionalArray& sin) {
  return {.norm = norm_named(norm),
          .eps = eps,
          .gain = tensor(gain),
          .cos = tensor(cos),
          .sin = tensor(sin)};
}

void cosine_attention(const Array& query, const Array& key, const Array& value, const Array& scale,
                      const OptionalArray& query_weight, const OptionalArray& key_weight,
                      const OptionalArray& cos, const OptionalArray& sin, const Array& out,
                      const Array& lse, const std::optional<std::string>& norm, float eps,
                      bool causal, int64_t window, int64_t prefix, float logit_bound, int threads) {
  const pyseq::CosineAttention arguments{
      .query = tensor(query),
      .key = tensor(key),
      .value = tensor(value),
      .scale = tensor(scale),
      .out = output(out),
      .lse = tensor(lse),
      .prepare_query = preparation(norm, eps, query_weight, cos, sin),
      .prepare_key = preparation(norm, eps, key_weight, cos, sin),
      .causal = causal,
      .window = window,
      .prefix = prefix,
      .logit_bound = logit_bound,
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::cosine_attention(arguments);
}

void cosine_attention_backward(
    const Array& grad, const Array& query, const Array& key, const Array& value, const Array& scale,
    const OptionalArray& query_weight, const OptionalArray& key_weight, const OptionalArray& cos,
    const OptionalArray& sin, const Array& out, const Array& lse, const OptionalArray& grad_query,
    const OptionalArray& grad_key, const OptionalArray& grad_value, const OptionalArray& grad_scale,
    const OptionalArray& grad_query_weight, const OptionalArray& grad_key_weight,
    const std::optional<std::string>& norm, float eps, bool causal, int64_t window, int64_t prefix,
    int threads) {
  const pyseq::CosineAttentionBackward arguments{
      .all = {.grad = tensor(grad),
              .query = tensor(query),
              .key = tensor(key),
              .value = tensor(value),
              .scale = tensor(scale),
              .grad_query = output(grad_query),
              .grad_key = output(grad_key),
              .grad_value = output(grad_value),
              .grad_scale = output(grad_scale),
              .grad_query_gain = output(grad_query_weight),
              .grad_key_gain = output(grad_key_weight),
              .prepare_query = preparation(norm, eps, query_weight, cos, sin),
              .prepare_key = preparation(norm, eps, key_weight, cos, sin),
              .causal = causal,
              .window = window,
              .prefix = prefix,
              .threads = threads},
      .out = tensor(out),
      .lse = tensor(lse),
  };
  const nb::gil_scoped_release release;
  pyseq::cosine_attention_backward(arguments);
}

void cosine_decode(const Array& query, const Array& key, const Array& value, const Array& scale,
                   const OptionalArray& query_weight, const OptionalArray& lengths,
                   const OptionalArray& cos, const OptionalArray& sin, const Array& out,
                   const std::optional<std::string>& norm, float eps, int64_t window,
                   int64_t prefix, std::optional<float> offset, int threads) {
  const pyseq::CosineDecode arguments{
      .query = tensor(query),
      .key = tensor(key),
      .value = tensor(value),
      .scale = tensor(scale),
      .lengths = tensor(lengths),
      .out = output(out),
      .prepare_query = preparation(norm, eps, query_weight, cos, sin),
      .window = window,
      .prefix = prefix,
      .bounded = offset.has_value(),
      .offset = offset.value_or(0),
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::cosine_decode(arguments);
}

void exponential_smoothing(const Array& values, const Array& alpha, const Array& initial,
                           const Array& out, int threads) {
  const pyseq::ExponentialSmoothing arguments{
      .values = tensor(values),
      .alpha = tensor(alpha),
      .initial = tensor(initial),
      .out = output(out),
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::exponential_smoothing(arguments);
}

void exponential_smoothing_backward(const Array& grad, const Array& values, const Array& alpha,
                                    const Array& initial, const OptionalArray& d_values,
                                    const OptionalArray& d_alpha, const OptionalArray& d_initial,
                                    int threads) {
  const pyseq::ExponentialSmoothingBackward arguments{
      .grad = tensor(grad),
      .values = tensor(values),
      .alpha = tensor(alpha),
      .initial = tensor(initial),
      .d_values = output(d_values),
      .d_alpha = output(d_alpha),
      .d_initial = output(d_initial),
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::exponential_smoothing_backward(arguments);
}

void prepare_keys(const Array& key, const OptionalArray& key_weight, const OptionalArray& cos,
                  const OptionalArray& sin, const Array& out,
                  const std::optional<std::string>& norm, float eps, int64_t position,
                  int threads) {
  const pyseq::PrepareKeys arguments{
      .key = tensor(key),
      .out = output(out),
      .prepare = preparation(norm, eps, key_weight, cos, sin),
      .position = position,
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::prepare_keys(arguments);
}

void prepare_keys_backward(const Array& grad, const Array& key, const OptionalArray& key_weight,
                           const OptionalArray& cos, const OptionalArray& sin,
                           const OptionalArray& grad_key, const OptionalArray& grad_key_weight,
                           const std::optional<std::string>& norm, float eps, int64_t position,
                           int threads) {
  const pyseq::PrepareKeysBackward arguments{
      .grad = tensor(grad),
      .key = tensor(key),
      .grad_key = output(grad_key),
      .grad_gain = output(grad_key_weight),
      .prepare = preparation(norm, eps, key_weight, cos, sin),
      .position = position,
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::prepare_keys_backward(arguments);
}

int64_t peak(const std::string& dtype, int64_t tasks, int threads) {
  if (dtype != "float32" && dtype != "bfloat16") {
    throw nb::value_error("peak: a dtype that is neither float32 nor bfloat16");
  }
  const auto type = dtype == "float32" ? pyseq::DType::kFloat32 : pyseq::DType::kBFloat16;
  int64_t operations = 0;
  const nb::gil_scoped_release release;
  pyseq::peak({.dtype = type, .tasks = tasks, .threads = threads, .operations = &operations});
  return operations;
}

void patch_embed(const Array& samples, const Array& weight, const OptionalArray& bias,
                 const Array& center, const Array& spread, const Array& out, int64_t stride,
                 int threads) {
  const pyseq::PatchEmbed arguments{
      .samples = tensor(samples),
      .weight = tensor(weight),
      .bias = tensor(bias),
      .center = tensor(center),
      .spread = tensor(spread),
      .out = output(out),
      .stride = stride,
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::patch_embed(arguments);
}

void patch_embed_backward(const Array& grad, const Array& samples, const Array& weight,
                          const Array& center, const Array& spread, const OptionalArray& d_samples,
                          const OptionalArray& d_weight, const OptionalArray& d_bias,
                          int64_t stride, int threads) {
  const pyseq::PatchEmbedBackward arguments{
      .grad = tensor(grad),
      .samples = tensor(samples),
      .weight = tensor(weight),
      .center = tensor(center),
      .spread = tensor(spread),
      .d_samples = output(d_samples),
      .d_weight = output(d_weight),
      .d_bias = output(d_bias),
      .stride = stride,
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::patch_embed_backward(arguments);
}

void scale_cross_entropy(const Array& hidden, const Array& weight, const OptionalArray& bias,
                         const Array& targets, const std::vector<int64_t>& scales,
                         const Array& losses, const Array& masses, int threads) {
  const pyseq::ScaleCrossEntropy arguments{
      .logits = {.hidden = tensor(hidden),
                 .weight = tensor(weight),
                 .bias = tensor(bias),
                 .targets = tensor(targets),
                 .scales = scales.data(),
                 .scale_count = static_cast<int64_t>(scales.size()),
                 .threads = threads},
      .losses = tensor(losses),
      .masses = tensor(masses),
  };
  const nb::gil_scoped_release release;
  pyseq::scale_cross_entropy(arguments);
}

void scale_cross_entropy_backward(const Array& grad, const Array& hidden, const Array& weight,
                                  const OptionalArray& bias, const Array& targets,
                                  const Array& masses, const std::vector<int64_t>& scales,
                                  const OptionalArray& d_hidden, const OptionalArray& d_weight,
                                  const OptionalArray& d_bias, int threads) {
  const pyseq::ScaleCrossEntropyBackward arguments{
      .logits = {.hidden = tensor(hidden),
                 .weight = tensor(weight),
                 .bias = tensor(bias),
                 .targets = tensor(targets),
                 .scales = scales.data(),
                 .scale_count = static_cast<int64_t>(scales.size()),
                 .threads = threads},
      .grad = tensor(grad),
      .masses = tensor(masses),
      .d_hidden = output(d_hidden),
      .d_weight = output(d_weight),
      .d_bias = output(d_bias),
  };
  const nb::gil_scoped_release release;
  pyseq::scale_cross_entropy_backward(arguments);
}

void softmax_attention(const Array& query, const Array& key, const Array& value,
                       const OptionalArray& lengths, const Array& out, const Array& measures,
                       float scale, bool causal, int64_t seed, int32_t dropped, int threads) {
  const pyseq::SoftmaxAttention arguments{
      .query = tensor(query),
      .key = tensor(key),
      .value = tensor(value),
      .lengths = tensor(lengths),
      .out = output(out),
      .measures = tensor(measures),
      .scale = scale,
      .causal = causal,
      .dropout = {.seed = seed, .dropped = dropped},
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::softmax_attention(arguments);
}

void softmax_attention_backward(const Array& grad, const Array& query, const Array& key,
                                const Array& value, const OptionalArray& lengths, const Array& out,
                                const Array& measures, const OptionalArray& grad_query,
                                const OptionalArray& grad_key, const OptionalArray& grad_value,
                                float scale, bool causal, int64_t seed, int32_t dropped,
                                int threads) {
  const pyseq::SoftmaxAttentionBackward arguments{
      .grad = tensor(grad),
      .query = tensor(query),
      .key = tensor(key),
      .value = tensor(value),
      .lengths = tensor(lengths),
      .out = tensor(out),
      .measures = tensor(measures),
      .d_query = output(grad_query),
      .d_key = output(grad_key),
      .d_value = output(grad_value),
      .scale = scale,
      .causal = causal,
      .dropout = {.seed = seed, .dropped = dropped},
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::softmax_attention_backward(arguments);
}

void feed_forward(const Array& x, const Array& weight_in, const Array& bias_in,
                  const Array& weight_out, const Array& bias_out, const Array& out, bool gelu,
                  int64_t seed, int32_t dropped, int threads) {
  const pyseq::FeedForward arguments{
      .x = tensor(x),
      .weight_in = tensor(weight_in),
      .bias_in = tensor(bias_in),
      .weight_out = tensor(weight_out),
      .bias_out = tensor(bias_out),
      .out = output(out),
      .hidden = {.gelu = gelu, .seed = seed, .dropped = dropped},
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::feed_forward(arguments);
}

void feed_forward_backward(const Array& grad, const Array& x, const Array& weight_in,
                           const Array& bias_in, const Array& weight_out, const OptionalArray& d_x,
                           const OptionalArray& d_weight_in, const OptionalArray& d_bias_in,
                           const OptionalArray& d_weight_out, const OptionalArray& d_bias_out,
                           bool gelu, int64_t seed, int32_t dropped, int threads) {
  const pyseq::FeedForwardBackward arguments{
      .grad = tensor(grad),
      .x = tensor(x),
      .weight_in = tensor(weight_in),
      .bias_in = tensor(bias_in),
      .weight_out = tensor(weight_out),
      .d_x = output(d_x),
      .d_weight_in = output(d_weight_in),
      .d_bias_in = output(d_bias_in),
      .d_weight_out = output(d_weight_out),
      .d_bias_out = output(d_bias_out),
      .hidden = {.gelu = gelu, .seed = seed, .dropped = dropped},
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::feed_forward_backward(arguments);
}

void lstm(const Array& x, const Array& weight_ih, const Array& weight_hh, const Array& bias,
          const Array& hidden, const Array& cell, const Array& outputs, const Array& last_hidden,
          const Array& last_cell, const OptionalArray& tape, int threads) {
  const pyseq::Lstm arguments{
      .x = tensor(x),
      .weight_ih = tensor(weight_ih),
      .weight_hh = tensor(weight_hh),
      .bias = tensor(bias),
      .hidden = tensor(hidden),
      .cell = tensor(cell),
      .outputs = output(outputs),
      .last_hidden = output(last_hidden),
      .last_cell = output(last_cell),
      .tape = output(tape),
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::lstm(arguments);
}

void lstm_backward(const OptionalArray& grad_outputs, const OptionalArray& grad_hidden,
                   const OptionalArray& grad_cell, const Array& x, const Array& weight_ih,
                   const Array& weight_hh, const Array& hidden, const Array& cell,
                   const Array& tape, const OptionalArray& d_x, const OptionalArray& d_weight_ih,
                   const OptionalArray& d_weight_hh, const OptionalArray& d_bias,
                   const OptionalArray& d_hidden, const OptionalArray& d_cell, int threads) {
  const pyseq::LstmBackward arguments{
      .grad_outputs = tensor(grad_outputs),
      .grad_hidden = tensor(grad_hidden),
      .grad_cell = tensor(grad_cell),
      .x = tensor(x),
      .weight_ih = tensor(weight_ih),
      .weight_hh = tensor(weight_hh),
      .hidden = tensor(hidden),
      .cell = tensor(cell),
      .tape = tensor(tape),
      .d_x = output(d_x),
      .d_weight_ih = output(d_weight_ih),
      .d_weight_hh = output(d_weight_hh),
      .d_bias = output(d_bias),
      .d_hidden = output(d_hidden),
      .d_cell = output(d_cell),
      .threads = threads,
  };
  const nb::gil_scoped_release release;
  pyseq::lstm_backward(arguments);
}

}  // namespace

NB_MODULE(_core, module) {
  nb::class_<pyseq::SymbolSource>(module, "SymbolSource")
      .def("__len__", &pyseq::SymbolSource::size);
  // noconvert: nanobind would make a converted copy, which nobody reads or keeps alive afterwards.
  // The source reads the arrays in place, so it keeps them alive.
  module.def("source_in_memory", &source_in_memory, "arrays"_a.noconvert(), nb::keep_alive<0, 1>());
  module.def("source_in_mapped_files", &source_in_mapped_files, "files"_a.noconvert(),
             "most_resident"_a, nb::keep_alive<0, 1>());
  module.def("source_in_files", &source_in_files, "files"_a);
  module.def("gather_windows", &gather_windows, "source"_a, "offsets"_a.noconvert(),
             "out"_a.noconvert(), "threads"_a);
  pyseq::bind_mixture(module);
  pyseq::bind_window_loader(module);
  pyseq::bind_predictors(module);
  pyseq::bind_randomness(module);

  module.def("isa", [] { return std::string(pyseq::name_of(pyseq::chosen_isa())); });
  module.def("isas", [] {
    std::vector<std::string> names;
    for (int i = 0; i <= static_cast<int>(pyseq::best_isa()); ++i) {
      names.emplace_back(pyseq::name_of(static_cast<pyseq::Isa>(i)));
    }
    return names;
  });
  module.def("hard_attention", &hard_attention, "query"_a.noconvert(), "key"_a.noconvert(),
             "value"_a.noconvert(), "out"_a.noconvert(), "index"_a.noconvert(), "causal"_a,
             "threads"_a);
  module.def("adaptive_attention", &adaptive_attention, "query"_a.noconvert(), "key"_a.noconvert(),
             "value"_a.noconvert(), "out"_a.noconvert(), "measures"_a.noconvert(), "scale"_a,
             "coefficients"_a, "least_entropy"_a, "causal"_a, "threads"_a);
  module.def("adaptive_attention_backward", &adaptive_attention_backward, "grad"_a.noconvert(),
             "query"_a.noconvert(), "key"_a.noconvert(), "value"_a.noconvert(),
             "scale"_a.noconvert(), "measures"_a.noconvert(), "grad_query"_a.noconvert().none(),
             "grad_key"_a.noconvert().none(), "grad_value"_a.noconvert().none(), "coefficients"_a,
             "least_entropy"_a, "causal"_a, "threads"_a);
  module.def("hard_attention_copy_backward", &hard_attention_copy_backward, "grad"_a.noconvert(),
             "index"_a.noconvert(), "grad_value"_a.noconvert(), "threads"_a);
  module.def("cosine_attention", &cosine_attention, "query"_a.noconvert(), "key"_a.noconvert(),
             "value"_a.noconvert(), "scale"_a.noconvert(), "query_weight"_a.noconvert().none(),
             "key_weight"_a.noconvert().none(), "cos"_a.noconvert().none(),
             "sin"_a.noconvert().none(), "out"_a.noconvert(), "lse"_a.noconvert(), "norm"_a.none(),
             "eps"_a, "causal"_a, "window"_a, "prefix"_a, "logit_bound"_a, "threads"_a);
  module.def("cosine_attention_backward", &cosine_attention_backward, "grad"_a.noconvert(),
             "query"_a.noconvert(), "key"_a.noconvert(), "value"_a.noconvert(),
             "scale"_a.noconvert(), "query_weight"_a.noconvert().none(),
             "key_weight"_a.noconvert().none(), "cos"_a.noconvert().none(),
             "sin"_a.noconvert().none(), "out"_a.noconvert(), "lse"_a.noconvert(),
             "grad_query"_a.noconvert().none(), "grad_key"_a.noconvert().none(),
             "grad_value"_a.noconvert().none(), "grad_scale"_a.noconvert().none(),
             "grad_query_weight"_a.noconvert().none(), "grad_key_weight"_a.noconvert().none(),
             "norm"_a.none(), "eps"_a, "causal"_a, "window"_a, "prefix"_a, "threads"_a);
  module.def("cosine_decode", &cosine_decode, "query"_a.noconvert(), "key"_a.noconvert(),
             "value"_a.noconvert(), "scale"_a.noconvert(), "query_weight"_a.noconvert().none(),
             "lengths"_a.noconvert().none(), "cos"_a.noconvert().none(), "sin"_a.noconvert().none(),
             "out"_a.noconvert(), "norm"_a.none(), "eps"_a, "window"_a, "prefix"_a,
             "offset"_a.none(), "threads"_a);
  module.def("exponential_smoothing", &exponential_smoothing, "values"_a.noconvert(),
             "alpha"_a.noconvert(), "initial"_a.noconvert(), "out"_a.noconvert(), "threads"_a);
  module.def("exponential_smoothing_backward", &exponential_smoothing_backward,
             "grad"_a.noconvert(), "values"_a.noconvert(), "alpha"_a.noconvert(),
             "initial"_a.noconvert(), "d_values"_a.noconvert().none(),
             "d_alpha"_a.noconvert().none(), "d_initial"_a.noconvert().none(), "threads"_a);
  module.def("prepare_keys", &prepare_keys, "key"_a.noconvert(), "key_weight"_a.noconvert().none(),
             "cos"_a.noconvert().none(), "sin"_a.noconvert().none(), "out"_a.noconvert(),
             "norm"_a.none(), "eps"_a, "position"_a, "threads"_a);
  module.def("prepare_keys_backward", &prepare_keys_backward, "grad"_a.noconvert(),
             "key"_a.noconvert(), "key_weight"_a.noconvert().none(), "cos"_a.noconvert().none(),
             "sin"_a.noconvert().none(), "grad_key"_a.noconvert().none(),
             "grad_key_weight"_a.noconvert().none(), "norm"_a.none(), "eps"_a, "position"_a,
             "threads"_a);
  module.def("peak", &peak, "dtype"_a, "tasks"_a, "threads"_a);
  module.def("patch_embed", &patch_embed, "samples"_a.noconvert(), "weight"_a.noconvert(),
             "bias"_a.noconvert().none(), "center"_a.noconvert(), "spread"_a.noconvert(),
             "out"_a.noconvert(), "stride"_a, "threads"_a);
  module.def("patch_embed_backward", &patch_embed_backward, "grad"_a.noconvert(),
             "samples"_a.noconvert(), "weight"_a.noconvert(), "center"_a.noconvert(),
             "spread"_a.noconvert(), "d_samples"_a.noconvert().none(),
             "d_weight"_a.noconvert().none(), "d_bias"_a.noconvert().none(), "stride"_a,
             "threads"_a);
  module.def("scale_cross_entropy", &scale_cross_entropy, "hidden"_a.noconvert(),
             "weight"_a.noconvert(), "bias"_a.noconvert().none(), "targets"_a.noconvert(),
             "scales"_a, "losses"_a.noconvert(), "masses"_a.noconvert(), "threads"_a);
  module.def("scale_cross_entropy_backward", &scale_cross_entropy_backward, "grad"_a.noconvert(),
             "hidden"_a.noconvert(), "weight"_a.noconvert(), "bias"_a.noconvert().none(),
             "targets"_a.noconvert(), "masses"_a.noconvert(), "scales"_a,
             "d_hidden"_a.noconvert().none(), "d_weight"_a.noconvert().none(),
             "d_bias"_a.noconvert().none(), "threads"_a);
  module.def("softmax_attention", &softmax_attention, "query"_a.noconvert(), "key"_a.noconvert(),
             "value"_a.noconvert(), "lengths"_a.noconvert().none(), "out"_a.noconvert(),
             "measures"_a.noconvert(), "scale"_a, "causal"_a, "seed"_a, "dropped"_a, "threads"_a);
  module.def("softmax_attention_backward", &softmax_attention_backward, "grad"_a.noconvert(),
             "query"_a.noconvert(), "key"_a.noconvert(), "value"_a.noconvert(),
             "lengths"_a.noconvert().none(), "out"_a.noconvert(), "measures"_a.noconvert(),
             "grad_query"_a.noconvert().none(), "grad_key"_a.noconvert().none(),
             "grad_value"_a.noconvert().none(), "scale"_a, "causal"_a, "seed"_a, "dropped"_a,
             "threads"_a);
  module.def("feed_forward", &feed_forward, "x"_a.noconvert(), "weight_in"_a.noconvert(),
             "bias_in"_a.noconvert(), "weight_out"_a.noconvert(), "bias_out"_a.noconvert(),
             "out"_a.noconvert(), "gelu"_a, "seed"_a, "dropped"_a, "threads"_a);
  module.def("feed_forward_backward", &feed_forward_backward, "grad"_a.noconvert(),
             "x"_a.noconvert(), "weight_in"_a.noconvert(), "bias_in"_a.noconvert(),
             "weight_out"_a.noconvert(), "d_x"_a.noconvert().none(),
             "d_weight_in"_a.noconvert().none(), "d_bias_in"_a.noconvert().none(),
             "d_weight_out"_a.noconvert().none(), "d_bias_out"_a.noconvert().none(), "gelu"_a,
             "seed"_a, "dropped"_a, "threads"_a);
  module.def("lstm", &lstm, "x"_a.noconvert(), "weight_ih"_a.noconvert(), "weight_hh"_a.noconvert(),
             "bias"_a.noconvert(), "hidden"_a.noconvert(), "cell"_a.noconvert(),
             "outputs"_a.noconvert(), "last_hidden"_a.noconvert(), "last_cell"_a.noconvert(),
             "tape"_a.noconvert().none(), "threads"_a);
  module.def("lstm_backward", &lstm_backward, "grad_outputs"_a.noconvert().none(),
             "grad_hidden"_a.noconvert().none(), "grad_cell"_a.noconvert().none(),
             "x"_a.noconvert(), "weight_ih"_a.noconvert(), "weight_hh"_a.noconvert(),
             "hidden"_a.noconvert(), "cell"_a.noconvert(), "tape"_a.noconvert(),
             "d_x"_a.noconvert().none(), "d_weight_ih"_a.noconvert().none(),
             "d_weight_hh"_a.noconvert().none(), "d_bias"_a.noconvert().none(),
             "d_hidden"_a.noconvert().none(), "d_cell"_a.noconvert().none(), "threads"_a);
}
