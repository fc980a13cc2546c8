#include "workloads.h"

#include <algorithm>
#include <cmath>
#include <memory>

namespace tunesmith::bench {

namespace {

constexpr int64_t kHidden = 576, kHeads = 9, kKvHeads = 3, kHeadDim = 64, kMlp = 1536, kVocabulary = 49152;
constexpr int64_t kLayers = 30, kQkv = (kHeads + 2 * kKvHeads) * kHeadDim;
constexpr int64_t kParameters = 134515008;
constexpr int64_t kChunk = 256;  // rows of the output projection at a time

uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

}  // namespace

Pool::~Pool() {
  for (void* memory : memory_) backend.release(memory);
}

void* Pool::bytes(size_t size) { return memory_.emplace_back(backend.allocate(std::max(size, size_t(64)))); }

Tensor Pool::values(DType type, int64_t rows, int64_t cols, double scale) {
  const uint64_t seed = ++draw_ << 40;
  std::vector<float> host(static_cast<size_t>(rows * cols));
  for (size_t i = 0; i < host.size(); ++i)
    host[i] = float(BFloat16(float(scale * (double(mix(seed + i) >> 11) * 0x1p-52 - 1))));
  const Tensor wide_view = matrix(bytes(host.size() * sizeof(float)), DType::kFloat32, rows, cols);
  backend.upload(wide_view.data, host.data(), host.size() * sizeof(float));
  if (type == DType::kFloat32) return wide_view;
  const Tensor view = matrix(bytes(host.size() * size_of(type)), type, rows, cols);
  backend.cast(view, wide_view);
  return view;
}

Tensor Pool::zeros(DType type, int64_t rows, int64_t cols) {
  const size_t size = size_t(rows * cols) * size_of(type);
  const Tensor view = matrix(bytes(size), type, rows, cols);
  backend.zero(view.data, size);
  return view;
}

const int32_t* Pool::integers(const std::vector<int32_t>& values) {
  void* memory = bytes(values.size() * sizeof(int32_t));
  backend.upload(memory, values.data(), values.size() * sizeof(int32_t));
  return static_cast<int32_t*>(memory);
}

namespace {

double size_in_bytes(std::initializer_list<Tensor> tensors) {
  double bytes = 0;
  for (const Tensor& tensor : tensors) bytes += double(tensor.size()) * double(size_of(tensor.dtype));
  return bytes;
}

// ---- linear ---------------------------------------------------------------------------------------------------------

LinearWeight weight_of(Pool& pool, int64_t tokens, int64_t n, int64_t k) {
  const DType compute = pool.compute;
  LinearWeight weight{pool.values(DType::kFloat32, n, k, 0.05), compute, nullptr};
  const LinearShape shape{n, k, compute, LinearUse::kTrained};
  if (const size_t size = pool.backend.linear_prepared_bytes(shape)) weight.prepared = pool.bytes(size);
  const size_t scratch = pool.backend.linear_scratch_bytes(tokens, shape);
  pool.backend.set_scratch(scratch ? pool.bytes(scratch) : nullptr, scratch);
  pool.backend.linear_prepare(weight, LinearUse::kTrained);
  return weight;
}

Workload linear_forward(Pool& pool, int64_t tokens, int64_t n, int64_t k, bool wide_output) {
  const LinearWeight weight = weight_of(pool, tokens, n, k);
  const Tensor x = pool.values(pool.compute, tokens, k);
  const Tensor y = pool.zeros(wide_output ? DType::kFloat32 : pool.compute, tokens, n);
  return {[=, &pool] { pool.backend.linear_forward(y, x, weight, {}); }, {y}, 2.0 * double(tokens * n * k)};
}

// `chunked`: as for the output projection, whose weights are the same in successive calls; else another layer's weights
// come between two calls.
Workload linear_backward_input(Pool& pool, int64_t tokens, int64_t n, int64_t k, bool chunked) {
  const LinearWeight weight = weight_of(pool, tokens, n, k);
  LinearWeight other = weight;
  other.master = pool.values(DType::kFloat32, n, k, 0.05);
  const Tensor dy = pool.values(pool.compute, tokens, n), dx = pool.zeros(pool.compute, tokens, k);
  auto turn = std::make_shared<bool>(false);
  return {[=, &pool] {
            *turn = !*turn;
            pool.backend.linear_backward_input(dx, dy, *turn || chunked ? weight : other, false);
          },
          {dx},
          2.0 * double(tokens * n * k)};
}

Workload linear_backward_weight(Pool& pool, int64_t tokens, int64_t n, int64_t k) {
  const size_t scratch = pool.backend.linear_scratch_bytes(tokens, {n, k, pool.compute, LinearUse::kTrained});
  pool.backend.set_scratch(scratch ? pool.bytes(scratch) : nullptr, scratch);
  const Tensor dy = pool.values(pool.compute, tokens, n), x = pool.values(pool.compute, tokens, k);
  const Tensor dw = pool.zeros(DType::kFloat32, n, k);
  return {[=, &pool] { pool.backend.linear_backward_weight(dw, dy, x, true); }, {dw}, 2.0 * double(tokens * n * k)};
}

Workload linear_prepare(Pool& pool, int64_t n, int64_t k) {
  const LinearWeight weight = weight_of(pool, 1, n, k);
  const double bytes = double(n * k) * double(size_of(DType::kFloat32) + size_of(pool.compute));
  return {[=, &pool] { pool.backend.linear_prepare(weight, LinearUse::kTrained); }, {}, 0, bytes};
}

void add_linear(std::vector<Op>& ops, const std::string& name, int64_t n, int64_t k, double runs, bool head) {
  const int64_t check = head ? 8 : 24;
  const auto rows = [head](int64_t tokens) { return head ? std::min(tokens, kChunk) : tokens; };
  if (head) runs *= 1024.0 / double(kChunk);
  ops.push_back({"linear_forward " + name, runs, 4e-3, check,
                 [=](Pool& pool, int64_t tokens) { return linear_forward(pool, rows(tokens), n, k, head); }});
  ops.push_back({"linear_backward_input " + name, runs, 4e-3, check,
                 [=](Pool& pool, int64_t tokens) { return linear_backward_input(pool, rows(tokens), n, k, head); }});
  ops.push_back({"linear_backward_weight " + name, runs, 1e-4, check,
                 [=](Pool& pool, int64_t tokens) { return linear_backward_weight(pool, rows(tokens), n, k); }});
  ops.push_back({"linear_prepare " + name, head ? 1 : runs, 0, check,
                 [=](Pool& pool, int64_t) { return linear_prepare(pool, n, k); }});
}

// ---- attention ------------------------------------------------------------------------------------------------------

struct Packed {
  AttentionBatch batch;
  AttentionShape shape{kHeads, kKvHeads, kHeadDim, 1 / std::sqrt(double(kHeadDim))};
  Tensor qkv, q, k, v, out, lse;
  double scores = 0;  // query-key pairs over all heads
};

Packed packed(Pool& pool, int64_t tokens, int64_t sequences, int32_t window, double softcap) {
  sequences = std::min(sequences, tokens);
  Packed p;
  p.shape.window = window, p.shape.softcap = softcap;
  std::vector<int32_t> offsets{0}, lengths, positions;
  for (int64_t b = 0; b < sequences; ++b) {
    offsets.push_back(int32_t(tokens * (b + 1) / sequences));
    lengths.push_back(offsets[size_t(b) + 1] - offsets[size_t(b)]);
    for (int32_t i = 0; i < lengths.back(); ++i) {
      positions.push_back(i);
      p.scores += double(kHeads * (window > 0 ? std::min(i + 1, window) : i + 1));
    }
  }
  p.batch = {int32_t(sequences), pool.integers(offsets), pool.integers(offsets), pool.integers(lengths),
             pool.integers(positions)};
  p.qkv = pool.values(pool.compute, tokens, kQkv, 2);
  p.q = p.qkv.slice_cols(0, kHeads * kHeadDim);
  p.k = p.qkv.slice_cols(kHeads * kHeadDim, kKvHeads * kHeadDim);
  p.v = p.qkv.slice_cols((kHeads + kKvHeads) * kHeadDim, kKvHeads * kHeadDim);
  p.out = pool.zeros(pool.compute, tokens, kHeads * kHeadDim);
  p.lse = pool.zeros(DType::kFloat32, tokens, kHeads);
  return p;
}

Workload attention_forward(Pool& pool, int64_t tokens, int64_t sequences, int32_t window = 0, double softcap = 0) {
  const Packed p = packed(pool, tokens, sequences, window, softcap);
  return {[=, &pool] { pool.backend.attention_forward(p.out, p.lse, p.q, p.k, p.v, p.batch, p.shape); },
          {p.out, p.lse},
          4 * p.scores * kHeadDim};
}

Workload attention_backward(Pool& pool, int64_t tokens, int64_t sequences, int32_t window = 0, double softcap = 0) {
  const Packed p = packed(pool, tokens, sequences, window, softcap);
  const Tensor dout = pool.values(pool.compute, tokens, kHeads * kHeadDim);
  const Tensor dqkv = pool.zeros(pool.compute, tokens, kQkv);
  const Tensor dq = dqkv.slice_cols(0, kHeads * kHeadDim);
  const Tensor dk = dqkv.slice_cols(kHeads * kHeadDim, kKvHeads * kHeadDim);
  const Tensor dv = dqkv.slice_cols((kHeads + kKvHeads) * kHeadDim, kKvHeads * kHeadDim);
  pool.backend.attention_forward(p.out, p.lse, p.q, p.k, p.v, p.batch, p.shape);
  return {
      [=, &pool] { pool.backend.attention_backward(dq, dk, dv, dout, p.out, p.lse, p.q, p.k, p.v, p.batch, p.shape); },
      {dqkv},
      10 * p.scores * kHeadDim};
}

// ---- the others -----------------------------------------------------------------------------------------------------

Workload rmsnorm_forward(Pool& pool, int64_t tokens) {
  const Tensor x = pool.values(DType::kFloat32, tokens, kHidden),
               delta = pool.values(pool.compute, tokens, kHidden, 0.01);
  const Tensor weight = pool.values(DType::kFloat32, 1, kHidden), y = pool.zeros(pool.compute, tokens, kHidden);
  const Tensor rstd = pool.zeros(DType::kFloat32, 1, tokens), out = pool.zeros(DType::kFloat32, tokens, kHidden);
  return {[=, &pool] { pool.backend.rmsnorm_forward(out, y, rstd, x, delta, weight, 0, 1e-5); },
          {out, y, rstd},
          0,
          size_in_bytes({out, y, x, delta})};
}

Workload rmsnorm_backward(Pool& pool, int64_t tokens) {
  const Tensor x = pool.values(DType::kFloat32, tokens, kHidden), dy = pool.values(pool.compute, tokens, kHidden);
  const Tensor weight = pool.values(DType::kFloat32, 1, kHidden), rstd = pool.values(DType::kFloat32, 1, tokens);
  const Tensor dx = pool.values(DType::kFloat32, tokens, kHidden), copy = pool.zeros(pool.compute, tokens, kHidden);
  const Tensor dweight = pool.zeros(DType::kFloat32, 1, kHidden);
  return {[=, &pool] { pool.backend.rmsnorm_backward(dx, copy, dweight, dy, x, rstd, weight, 0); },
          {dx, copy, dweight},
          0,
          size_in_bytes({x, dy, dx, dx, copy})};
}

Workload rope(Pool& pool, int64_t tokens) {
  const int64_t heads = kHeads + kKvHeads;
  const Tensor qkv = pool.values(pool.compute, tokens, kQkv), table = pool.values(DType::kFloat32, tokens, kHeadDim);
  std::vector<int32_t> positions(static_cast<size_t>(tokens));
  for (size_t t = 0; t < positions.size(); ++t) positions[t] = int32_t(t);
  const int32_t* at = pool.integers(positions);
  const Tensor x = qkv.slice_cols(0, heads * kHeadDim);
  return {[=, &pool] { pool.backend.rope(x, int32_t(heads), int32_t(kHeadDim), table, at, false); },
          {qkv},
          0,
          size_in_bytes({x, x})};
}

Workload group_rmsnorm_forward(Pool& pool, int64_t tokens) {
  const Tensor x = pool.values(pool.compute, tokens, kHidden), y = pool.zeros(pool.compute, tokens, kHidden);
  const Tensor weight = pool.values(DType::kFloat32, 1, kHeadDim);
  return {
      [=, &pool] { pool.backend.group_rmsnorm_forward(y, x, kHeads, weight, 0, 1e-5); }, {y}, 0, size_in_bytes({x, y})};
}

Workload group_rmsnorm_backward(Pool& pool, int64_t tokens) {
  const Tensor x = pool.values(pool.compute, tokens, kHidden), dy = pool.values(pool.compute, tokens, kHidden);
  const Tensor weight = pool.values(DType::kFloat32, 1, kHeadDim), dx = pool.zeros(pool.compute, tokens, kHidden);
  const Tensor dweight = pool.zeros(DType::kFloat32, 1, kHeadDim);
  return {[=, &pool] { pool.backend.group_rmsnorm_backward(dx, dweight, dy, x, kHeads, weight, 0, 1e-5); },
          {dx, dweight},
          0,
          size_in_bytes({x, dy, dx})};
}

Workload layernorm_forward(Pool& pool, int64_t tokens) {
  const Tensor x = pool.values(DType::kFloat32, tokens, kHidden),
               delta = pool.values(pool.compute, tokens, kHidden, 0.01);
  const Tensor weight = pool.values(DType::kFloat32, 1, kHidden), bias = pool.values(DType::kFloat32, 1, kHidden);
  const Tensor y = pool.zeros(pool.compute, tokens, kHidden), out = pool.zeros(DType::kFloat32, tokens, kHidden);
  const Tensor statistics = pool.zeros(DType::kFloat32, 2, tokens);
  return {[=, &pool] { pool.backend.layernorm_forward(out, y, statistics, x, delta, weight, bias, 1e-5); },
          {out, y},
          0,
          size_in_bytes({out, y, x, delta})};
}

Workload layernorm_backward(Pool& pool, int64_t tokens) {
  const Tensor x = pool.values(DType::kFloat32, tokens, kHidden), dy = pool.values(pool.compute, tokens, kHidden);
  const Tensor weight = pool.values(DType::kFloat32, 1, kHidden), statistics = pool.values(DType::kFloat32, 2, tokens);
  const Tensor dx = pool.values(DType::kFloat32, tokens, kHidden), copy = pool.zeros(pool.compute, tokens, kHidden);
  const Tensor dweight = pool.zeros(DType::kFloat32, 1, kHidden), dbias = pool.zeros(DType::kFloat32, 1, kHidden);
  return {[=, &pool] { pool.backend.layernorm_backward(dx, copy, dweight, dbias, dy, x, statistics, weight); },
          {dx, copy, dweight, dbias},
          0,
          size_in_bytes({x, dy, dx, dx, copy})};
}

Workload residual_add(Pool& pool, int64_t tokens) {
  const Tensor x = pool.values(DType::kFloat32, tokens, kHidden), delta = pool.values(pool.compute, tokens, kHidden);
  const Tensor out = pool.zeros(DType::kFloat32, tokens, kHidden), copy = pool.zeros(pool.compute, tokens, kHidden);
  return {[=, &pool] { pool.backend.residual_add(out, copy, x, delta); },
          {out, copy},
          0,
          size_in_bytes({x, delta, out, copy})};
}

Workload softcap_forward(Pool& pool, int64_t tokens) {
  const Tensor logits = pool.values(DType::kFloat32, std::min(tokens, kChunk), kVocabulary, 30);
  return {[=, &pool] { pool.backend.softcap_forward(logits, 30); }, {logits}, 0, size_in_bytes({logits, logits})};
}

Workload softcap_backward(Pool& pool, int64_t tokens) {
  const int64_t rows = std::min(tokens, kChunk);
  const Tensor y = pool.values(DType::kFloat32, rows, kVocabulary, 29),
               dx = pool.values(pool.compute, rows, kVocabulary);
  return {[=, &pool] { pool.backend.softcap_backward(dx, y, 30); }, {dx}, 0, size_in_bytes({y, dx, dx})};
}

Workload activation_forward(Pool& pool, int64_t tokens, Activation activation, bool gated) {
  const Tensor in = pool.values(pool.compute, tokens, (gated ? 2 : 1) * kMlp, 4);
  const Tensor out = pool.zeros(pool.compute, tokens, kMlp);
  return {[=, &pool] { pool.backend.activation_forward(out, in, activation); }, {out}, 0, size_in_bytes({in, out})};
}

Workload activation_backward(Pool& pool, int64_t tokens, Activation activation, bool gated) {
  const Tensor in = pool.values(pool.compute, tokens, (gated ? 2 : 1) * kMlp, 4);
  const Tensor dout = pool.values(pool.compute, tokens, kMlp), din = pool.zeros(pool.compute, tokens, in.cols);
  return {[=, &pool] { pool.backend.activation_backward(din, dout, in, activation); },
          {din},
          0,
          size_in_bytes({in, dout, din})};
}

Workload embedding_forward(Pool& pool, int64_t tokens) {
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  for (size_t t = 0; t < ids.size(); ++t) ids[t] = int32_t(mix(t) % kVocabulary);
  const int32_t* at = pool.integers(ids);
  const Tensor table = pool.values(DType::kFloat32, kVocabulary, kHidden);
  const Tensor out = pool.zeros(DType::kFloat32, tokens, kHidden);
  return {
      [=, &pool] { pool.backend.embedding_forward(out, table, at, 1, false); }, {out}, 0, size_in_bytes({out, out})};
}

Workload embedding_backward(Pool& pool, int64_t tokens) {
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  for (size_t t = 0; t < ids.size(); ++t) ids[t] = int32_t(mix(t) % kVocabulary);
  const int32_t* at = pool.integers(ids);
  const Tensor dtable = pool.zeros(DType::kFloat32, kVocabulary, kHidden);
  const Tensor dout = pool.values(DType::kFloat32, tokens, kHidden);
  return {[=, &pool] { pool.backend.embedding_backward(dtable, dout, at, 1); },
          {dtable},
          0,
          size_in_bytes({dout, dout, dout})};
}

Workload cross_entropy(Pool& pool, int64_t tokens) {
  const int64_t rows = std::min(tokens, kChunk);
  const Tensor logits = pool.values(DType::kFloat32, rows, kVocabulary, 10);
  const Tensor dlogits = pool.zeros(pool.compute, rows, kVocabulary), nll = pool.zeros(DType::kFloat32, 1, rows);
  const Tensor weights = pool.values(DType::kFloat32, 1, rows);
  std::vector<int32_t> ids(static_cast<size_t>(rows));
  for (size_t t = 0; t < ids.size(); ++t) ids[t] = int32_t(mix(t) % kVocabulary);
  const int32_t* targets = pool.integers(ids);
  auto* correct = static_cast<int32_t*>(pool.bytes(ids.size() * sizeof(int32_t)));
  return {[=, &pool] { pool.backend.cross_entropy(logits, dlogits, nll, correct, targets, weights, 0.1, {}); },
          {dlogits, nll},
          0,
          size_in_bytes({logits, dlogits})};
}

// Parameters are stood for by so many values in a check.
int64_t parameters(int64_t tokens) { return tokens < 1024 ? 100003 : kParameters; }

Workload sum_squares(Pool& pool, int64_t tokens) {
  const Tensor x = pool.values(DType::kFloat32, 1, parameters(tokens));
  const Tensor sum = pool.zeros(DType::kFloat32, 1, 1);
  return {[=, &pool] {
            const float value = float(pool.backend.sum_squares(x));
            pool.backend.upload(sum.data, &value, sizeof(value));
          },
          {sum},
          0,
          size_in_bytes({x})};
}

Workload adamw(Pool& pool, int64_t tokens) {
  const int64_t n = parameters(tokens);
  const Tensor w = pool.values(DType::kFloat32, 1, n), grad = pool.values(DType::kFloat32, 1, n);
  const Tensor m = pool.zeros(DType::kFloat32, 1, n), v = pool.zeros(DType::kFloat32, 1, n);
  return {[=, &pool] {
            pool.backend.adamw(w, m, v, grad, {1e-3, 0.9, 0.999, 1e-8, 0.1, 0.1, 0.001, 0.5});
          },
          {w, m, v},
          0,
          size_in_bytes({w, w, m, m, v, v, grad})};
}

void add_activation(std::vector<Op>& ops, const std::string& name, double runs, Activation activation, bool gated) {
  ops.push_back({"activation_forward " + name, runs, 4e-3, 24,
                 [=](Pool& pool, int64_t tokens) { return activation_forward(pool, tokens, activation, gated); }});
  ops.push_back({"activation_backward " + name, runs, 4e-3, 24,
                 [=](Pool& pool, int64_t tokens) { return activation_backward(pool, tokens, activation, gated); }});
}

// What other families have, on the same sizes.
void add_other_families(std::vector<Op>& ops) {
  for (const auto& [name, window, softcap] : {std::tuple{"window of 256", 256, 0.0}, {"soft cap", 0, 50.0}}) {
    ops.push_back({std::string("attention_forward ") + name, 0, 1e-2, 200,
                   [=, window = window, softcap = softcap](Pool& pool, int64_t tokens) {
                     return attention_forward(pool, tokens, 1, window, softcap);
                   }});
    ops.push_back({std::string("attention_backward ") + name, 0, 1e-2, 200,
                   [=, window = window, softcap = softcap](Pool& pool, int64_t tokens) {
                     return attention_backward(pool, tokens, 1, window, softcap);
                   }});
  }
  add_activation(ops, "gelu, plain", 0, Activation::kGelu, false);
  add_activation(ops, "gelu_tanh, gated", 0, Activation::kGeluTanh, true);
  ops.push_back({"group_rmsnorm_forward", 0, 4e-3, 24, group_rmsnorm_forward});
  ops.push_back({"group_rmsnorm_backward", 0, 4e-3, 24, group_rmsnorm_backward});
  ops.push_back({"layernorm_forward", 0, 4e-3, 24, layernorm_forward});
  ops.push_back({"layernorm_backward", 0, 4e-3, 24, layernorm_backward});
  ops.push_back({"residual_add", 0, 4e-3, 24, residual_add});
  ops.push_back({"softcap_forward", 0, 1e-5, 8, softcap_forward});
  ops.push_back({"softcap_backward", 0, 4e-3, 8, softcap_backward});
}

Workload adamw_8bit(Pool& pool, int64_t tokens) {
  const int64_t n = parameters(tokens), blocks = (n + 255) / 256;
  const Tensor w = pool.values(DType::kFloat32, 1, n), grad = pool.values(DType::kFloat32, 1, n);
  const Tensor absmax = pool.zeros(DType::kFloat32, 2, blocks), codes = pool.zeros(DType::kFloat32, 2, (n + 3) / 4);
  const auto bytes = [](const Tensor& row) { return static_cast<uint8_t*>(row.data); };
  const Moments8 moments{bytes(codes.slice_rows(0, 1)), absmax.row<float>(0), bytes(codes.slice_rows(1, 1)),
                         absmax.row<float>(1)};
  return {[=, &pool] {
            pool.backend.adamw_8bit(w, moments, grad, {1e-3, 0.9, 0.999, 1e-8, 0.1, 0.1, 0.001, 0.5});
          },
          {w, absmax},
          0,
          size_in_bytes({w, w, codes, codes, absmax, absmax, grad})};
}

Workload lion(Pool& pool, int64_t tokens) {
  const int64_t n = parameters(tokens);
  const Tensor w = pool.values(DType::kFloat32, 1, n), grad = pool.values(DType::kFloat32, 1, n);
  const Tensor m = pool.zeros(DType::kFloat32, 1, n);
  return {[=, &pool] {
            pool.backend.lion(w, m, grad, {1e-3, 0.9, 0.99, 0.1, 0.5});
          },
          {w, m},
          0,
          size_in_bytes({w, w, m, m, grad})};
}

Workload adafactor(Pool& pool, int64_t tokens) {
  const int64_t rows = tokens < 1024 ? 67 : kMlp, cols = tokens < 1024 ? 131 : kHidden;
  const Tensor w = pool.values(DType::kFloat32, rows, cols), grad = pool.values(DType::kFloat32, rows, cols);
  const Tensor row = pool.zeros(DType::kFloat32, 1, rows), col = pool.zeros(DType::kFloat32, 1, cols);
  return {[=, &pool] {
            pool.backend.adafactor(w, row, col, grad, {1e-3, 0.5, 0.1, 0.5});
          },
          {w, row, col},
          0,
          size_in_bytes({w, w, grad})};
}

Workload muon(Pool& pool, int64_t tokens) {
  const int64_t rows = tokens < 1024 ? 67 : kMlp, cols = tokens < 1024 ? 131 : kHidden;
  const Tensor w = pool.values(DType::kFloat32, rows, cols), grad = pool.values(DType::kFloat32, rows, cols);
  const Tensor m = pool.zeros(DType::kFloat32, rows, cols);
  const Tensor scratch = pool.zeros(DType::kFloat32, 1, muon_scratch_size(rows, cols));
  const double small = double(std::min(rows, cols)), large = double(std::max(rows, cols));
  return {[=, &pool] {
            pool.backend.muon(w, m, grad, scratch, {1e-3, 0.95, 0.1, 0.5});
          },
          {w, m},
          5 * 2 * (2 * small * small * large + small * small * small),
          size_in_bytes({w, w, m, m, grad})};
}

}  // namespace

std::vector<Op> step_ops() {
  std::vector<Op> ops;
  add_linear(ops, "qkv", kQkv, kHidden, kLayers, false);
  add_linear(ops, "o", kHidden, kHidden, kLayers, false);
  add_linear(ops, "gate_up", 2 * kMlp, kHidden, kLayers, false);
  add_linear(ops, "down", kHidden, kMlp, kLayers, false);
  add_linear(ops, "head", kVocabulary, kHidden, 1, true);
  for (const int64_t sequences : {1, 8}) {
    const std::string name = sequences == 1 ? "one sequence" : "eight sequences";
    const double runs = sequences == 1 ? kLayers : 0;  // a step has one or the other
    ops.push_back({"attention_forward " + name, runs, 1e-2, 200,
                   [=](Pool& pool, int64_t tokens) { return attention_forward(pool, tokens, sequences); }});
    ops.push_back({"attention_backward " + name, runs, 1e-2, 200,
                   [=](Pool& pool, int64_t tokens) { return attention_backward(pool, tokens, sequences); }});
  }
  ops.push_back({"rmsnorm_forward", 2 * kLayers + 1, 4e-3, 24, rmsnorm_forward});
  ops.push_back({"rmsnorm_backward", 2 * kLayers + 1, 4e-3, 24, rmsnorm_backward});
  ops.push_back({"rope", 2 * kLayers, 4e-3, 24, rope});
  add_activation(ops, "silu, gated", kLayers, Activation::kSilu, true);
  ops.push_back({"embedding_forward", 1, 1e-6, 24, embedding_forward});
  ops.push_back({"embedding_backward", 1, 1e-6, 24, embedding_backward});
  ops.push_back({"cross_entropy", 1024.0 / kChunk, 4e-3, 8, cross_entropy});
  ops.push_back({"sum_squares", 1, 1e-5, 24, sum_squares});
  ops.push_back({"adamw", 1, 1e-5, 24, adamw});
  // Instead of AdamW where a run asks for them: adafactor and muon once per matrix.
  ops.push_back({"adamw_8bit", 0, 1e-5, 24, adamw_8bit});
  ops.push_back({"lion", 0, 1e-5, 24, lion});
  ops.push_back({"adafactor", 0, 1e-4, 24, adafactor});
  ops.push_back({"muon", 0, 1e-4, 24, muon});
  add_other_families(ops);
  return ops;
}

}  // namespace tunesmith::bench
