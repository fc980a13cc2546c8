#include <cmath>
#include <limits>
#include <numeric>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

// Where queries and keys lie. Rows that belong to no sequence hold NaN in every input: nothing may depend on them.
struct Layout {
  std::string name;
  std::vector<int32_t> q_offsets, k_offsets, k_lengths, q_positions;
  int64_t q_rows = 0, k_rows = 0;
  bool fused = false;  // q, k and v are column slices of one buffer, and so are their gradients

  std::vector<bool> used_queries() const {
    std::vector<bool> used(size_t(q_rows), false);
    std::fill_n(used.begin(), q_offsets.back(), true);
    return used;
  }
  std::vector<bool> used_keys() const {
    std::vector<bool> used(size_t(k_rows), false);
    for (size_t b = 0; b < k_offsets.size(); ++b) std::fill_n(used.begin() + k_offsets[b], k_lengths[b], true);
    return used;
  }
};

// A training micro-batch: every row is a query and a key, and `filler` rows follow.
Layout packed(const std::vector<int32_t>& lengths, int64_t filler) {
  Layout layout{"packed", {0}, {}, lengths, {}};
  for (const int32_t length : lengths) {
    layout.k_offsets.push_back(layout.q_offsets.back());
    layout.q_offsets.push_back(layout.q_offsets.back() + length);
    for (int32_t i = 0; i < length; ++i) layout.q_positions.push_back(i);
  }
  layout.q_rows = layout.k_rows = layout.q_offsets.back() + filler;
  layout.q_positions.resize(size_t(layout.q_rows), 0);
  layout.fused = true;
  return layout;
}

// The last layer, where only rows that carry loss query: every second of a sequence from its third key on, so that
// short sequences have no query at all.
Layout subset(const std::vector<int32_t>& lengths, int64_t filler) {
  Layout layout = packed(lengths, filler);
  layout.name = "query subset", layout.fused = false;
  layout.q_offsets = {0}, layout.q_positions.clear();
  for (const int32_t length : lengths) {
    for (int32_t i = 2; i < length; i += 2) layout.q_positions.push_back(i);
    layout.q_offsets.push_back(int32_t(layout.q_positions.size()));
  }
  layout.q_rows = layout.q_offsets.back() + filler;
  layout.q_positions.resize(size_t(layout.q_rows), 0);
  return layout;
}

// Decoding: the newest `queries` tokens of each sequence query a cache with room for `capacity` keys, of which
// k_lengths are written. The cache's slots are not in the order of the sequences.
Layout cached(const std::vector<int32_t>& lengths, int32_t queries, int32_t capacity) {
  Layout layout{"key/value cache", {0}, {}, lengths, {}};
  for (size_t b = 0; b < lengths.size(); ++b) {
    for (int32_t i = std::max(0, lengths[b] - queries); i < lengths[b]; ++i) layout.q_positions.push_back(i);
    layout.q_offsets.push_back(int32_t(layout.q_positions.size()));
    layout.k_offsets.push_back(int32_t(lengths.size() - 1 - b) * capacity);
  }
  layout.q_rows = layout.q_offsets.back();
  layout.k_rows = int64_t(lengths.size()) * capacity;
  return layout;
}

struct Case {
  Layout layout;
  int32_t heads, kv_heads, head_dim;
  double gain = 1;  // scores are about this large
  int32_t window = 0;
  double softcap = 0;

  AttentionShape shape() const {
    return {heads, kv_heads, head_dim, 1.7 / std::sqrt(double(head_dim)), softcap, window};
  }
  std::string text() const {
    std::ostringstream text;
    text << "attention, " << layout.name << describe("heads", heads, "kv_heads", kv_heads, "head_dim", head_dim);
    text << describe("gain", gain, "window", window, "softcap", softcap) << " lengths";
    for (const int32_t length : layout.k_lengths) text << " " << length;
    return text.str();
  }
};

struct Inputs {
  Matrix q, k, v, dout;
};

void poison(Matrix& values, const std::vector<bool>& used) {
  for (int64_t r = 0; r < values.rows; ++r)
    if (!used[size_t(r)])
      for (int64_t c = 0; c < values.cols; ++c) values(r, c) = std::numeric_limits<double>::quiet_NaN();
}

Inputs make_inputs(const Case& c) {
  Random random(uint64_t(c.head_dim));
  const int64_t q_cols = int64_t(c.heads) * c.head_dim, k_cols = int64_t(c.kv_heads) * c.head_dim;
  const Layout& layout = c.layout;
  Inputs in{random.matrix(layout.q_rows, q_cols, 1.7 * c.gain), random.matrix(layout.k_rows, k_cols, 1.7),
            random.matrix(layout.k_rows, k_cols), random.matrix(layout.q_rows, q_cols)};
  poison(in.q, layout.used_queries());
  poison(in.dout, layout.used_queries());
  poison(in.k, layout.used_keys());
  poison(in.v, layout.used_keys());
  return in;
}

// q, k and v, or their gradients, in one buffer or in three.
class Triple {
 public:
  Triple(const Device& device, const Case& c, const Inputs* in)
      : whole_(make(device, in ? joined(in->q, in->k, in->v) : Matrix(c.layout.fused ? c.layout.q_rows : 0, width(c)),
                    in != nullptr, c.layout.fused)),
        q_(make(device, in ? in->q : Matrix(c.layout.q_rows, q_cols(c)), in != nullptr, !c.layout.fused)),
        k_(make(device, in ? in->k : Matrix(c.layout.k_rows, k_cols(c)), in != nullptr, !c.layout.fused)),
        v_(make(device, in ? in->v : Matrix(c.layout.k_rows, k_cols(c)), in != nullptr, !c.layout.fused)) {
    if (!whole_) return;
    const Tensor all = *whole_;
    fused_q_ = all.slice_cols(0, q_cols(c));
    fused_k_ = all.slice_cols(q_cols(c), k_cols(c));
    fused_v_ = all.slice_cols(q_cols(c) + k_cols(c), k_cols(c));
  }
  Tensor q() const { return whole_ ? fused_q_ : q_->tensor(); }
  Tensor k() const { return whole_ ? fused_k_ : k_->tensor(); }
  Tensor v() const { return whole_ ? fused_v_ : v_->tensor(); }
  Matrix get_q() const { return whole_ ? whole_->get(fused_q_) : q_->get(); }
  Matrix get_k() const { return whole_ ? whole_->get(fused_k_) : k_->get(); }
  Matrix get_v() const { return whole_ ? whole_->get(fused_v_) : v_->get(); }

 private:
  static int64_t q_cols(const Case& c) { return int64_t(c.heads) * c.head_dim; }
  static int64_t k_cols(const Case& c) { return int64_t(c.kv_heads) * c.head_dim; }
  static int64_t width(const Case& c) { return q_cols(c) + 2 * k_cols(c); }

  static Matrix joined(const Matrix& q, const Matrix& k, const Matrix& v) {
    if (q.rows != k.rows) return Matrix(0, 0);
    Matrix all(q.rows, q.cols + k.cols + v.cols);
    for (int64_t r = 0; r < q.rows; ++r) {
      auto out = all.values.begin() + r * all.cols;
      for (const Matrix* part : {&q, &k, &v}) out = std::copy_n(part->values.begin() + r * part->cols, part->cols, out);
    }
    return all;
  }
  static std::unique_ptr<Buffer> make(const Device& device, const Matrix& values, bool input, bool wanted) {
    if (!wanted) return nullptr;
    if (input) return std::unique_ptr<Buffer>(new Buffer(device.input(Kind::kCompute, values, kSlice)));
    return std::unique_ptr<Buffer>(new Buffer(device.output(Kind::kCompute, values.rows, values.cols, kSlice)));
  }

  std::unique_ptr<Buffer> whole_, q_, k_, v_;
  Tensor fused_q_, fused_k_, fused_v_;
};

class Batch {
 public:
  Batch(const Device& device, const Layout& layout)
      : q_offsets_(device.index(layout.q_offsets)),
        k_offsets_(device.index(layout.k_offsets)),
        k_lengths_(device.index(layout.k_lengths)),
        q_positions_(device.index(layout.q_positions)),
        sequences_(int32_t(layout.k_offsets.size())) {}
  operator AttentionBatch() const {
    return {sequences_, q_offsets_.ints(), k_offsets_.ints(), k_lengths_.ints(), q_positions_.ints()};
  }

 private:
  Buffer q_offsets_, k_offsets_, k_lengths_, q_positions_;
  int32_t sequences_;
};

struct Forward {
  Matrix out, lse;
};

Forward forward(const Device& device, const Case& c, const Inputs& in) {
  const Triple qkv(device, c, &in);
  const Batch batch(device, c.layout);
  const Buffer out = device.output(Kind::kCompute, in.q.rows, in.q.cols, kSlice);
  const Buffer lse = device.output(Kind::kWide, in.q.rows, c.heads);
  device->attention_forward(out, lse, qkv.q(), qkv.k(), qkv.v(), batch, c.shape());
  return {out.get(), lse.get()};
}

struct Gradients {
  Matrix dq, dk, dv;
};

// `saved` is what a right forward pass leaves: the backward pass is judged by itself.
Gradients backward(const Device& device, const Case& c, const Inputs& in, const Forward& saved) {
  const Triple qkv(device, c, &in), gradients(device, c, nullptr);
  const Batch batch(device, c.layout);
  const Buffer out = device.input(Kind::kCompute, saved.out, kSlice), lse = device.input(Kind::kWide, saved.lse);
  const Buffer dout = device.input(Kind::kCompute, in.dout);
  device->attention_backward(gradients.q(), gradients.k(), gradients.v(), dout, out, lse, qkv.q(), qkv.k(), qkv.v(),
                             batch, c.shape());
  return {gradients.get_q(), gradients.get_k(), gradients.get_v()};
}

Inputs rounded(Inputs in, DType type) {
  return {in.q.rounded(type), in.k.rounded(type), in.v.rounded(type), in.dout.rounded(type)};
}

Outputs run(const Device& device, const Case& c) {
  const Inputs in = rounded(make_inputs(c), device.rounding());
  const Forward saved = forward(oracle(), c, in);
  const Forward made = forward(device, c, in);
  const Gradients gradients = backward(device, c, in, saved);
  // Scores are sums of head_dim products; exp turns their error, relative to their size, into its own. With 16-bit
  // operands the probabilities (and in the backward pass their gradients) are rounded once, and each result once.
  // dq and dk come of differences of two dot products, which cancel where one key takes all the weight: their terms are
  // of size 1 and `gain`.
  const double score = (4 + std::sqrt(double(c.head_dim))) * (1 + c.gain);
  return {{"out", made.out, device.tolerance(2, 8 + score)},
          {"lse", made.lse, device.tolerance(0, 8 + score)},
          {"dq", gradients.dq, device.tolerance(3, 16 + 4 * score), device.tolerance(0, 0.1 * score)},
          {"dk", gradients.dk, device.tolerance(3, 16 + 4 * score), device.tolerance(0, 0.1 * score * c.gain)},
          {"dv", gradients.dv, device.tolerance(2, 16 + 4 * score)}};
}

// Whose gradient by out is dout.
double loss_of(const Case& c, const Inputs& in) {
  const Forward result = forward(oracle(), c, in);
  double loss = 0;
  for (int64_t i = 0; i < c.layout.q_offsets.back() * in.q.cols; ++i)
    loss += result.out.values[size_t(i)] * in.dout.values[size_t(i)];
  return loss;
}

void check(const Case& c) {
  check_backends(c.text(), [&](const Device& device) { return run(device, c); });
}

}  // namespace

TEST_CASE("attention: gradients against finite differences") {
  for (const Layout& layout : {packed({1, 3, 4}, 1), subset({5, 1, 4}, 1), cached({3, 1, 5}, 2, 6)})
    for (const int32_t kv_heads : {1, 2}) {
      const Case c{layout, 2, kv_heads, 8};
      Inputs in = make_inputs(c);
      const Forward saved = forward(oracle(), c, in);
      const Gradients gradients = backward(oracle(), c, in, saved);
      const auto check_input = [&](const std::string& name, const Matrix& gradient, Matrix& x) {
        check_gradient(c.text() + ": " + name, gradient, x, [&] { return loss_of(c, in); });
      };
      check_input("dq", gradients.dq, in.q);
      check_input("dk", gradients.dk, in.k);
      check_input("dv", gradients.dv, in.v);
    }
}

TEST_CASE("attention: gradients with windows and soft caps against finite differences") {
  for (const Layout& layout : {packed({1, 3, 7}, 1), subset({5, 1, 7}, 1), cached({3, 1, 6}, 2, 6)})
    for (const auto& [window, softcap] : {std::pair{1, 0.0}, {3, 0.0}, {0, 0.7}, {2, 0.7}}) {
      const Case c{layout, 2, 1, 8, 1, window, softcap};
      Inputs in = make_inputs(c);
      const Gradients gradients = backward(oracle(), c, in, forward(oracle(), c, in));
      const auto check_input = [&](const std::string& name, const Matrix& gradient, Matrix& x) {
        check_gradient(c.text() + ": " + name, gradient, x, [&] { return loss_of(c, in); });
      };
      // With a window of one key its weight is 1: what is left of dq and dk is noise.
      if (window != 1) {
        check_input("dq", gradients.dq, in.q);
        check_input("dk", gradients.dk, in.k);
      }
      check_input("dv", gradients.dv, in.v);
    }
}

TEST_CASE("attention: one query, by hand") {
  // Two keys seen of three; scores 0 and log 3, so that the weights are 1/4 and 3/4.
  const Case c{{"by hand", {0, 1}, {0}, {3}, {1}, 1, 3}, 1, 1, 8};
  Inputs in{Matrix(1, 8), Matrix(3, 8), Matrix(3, 8), Matrix(1, 8)};
  in.q(0, 0) = 1, in.k(1, 0) = std::log(3.0) / c.shape().scale;
  in.k(2, 0) = in.v(2, 5) = 100;
  in.v(0, 5) = 4, in.v(1, 5) = 8;
  const Forward result = forward(oracle(), c, in);
  Matrix out(1, 8), lse(1, 1, std::log(4.0));
  out(0, 5) = 7;
  check_close("attention out", result.out, out, 1e-14);
  check_close("attention lse", result.lse, lse, 1e-14);
}

TEST_CASE("attention: a window, by hand") {
  // The third query of a window of two sees keys 1 and 2, with capped scores 0 and log 2.
  const Case c{{"by hand", {0, 1}, {0}, {3}, {2}, 1, 3}, 1, 1, 8, 1, 2, 2.0};
  Inputs in{Matrix(1, 8), Matrix(3, 8), Matrix(3, 8), Matrix(1, 8)};
  // 2 · tanh(s / 2) = log 2
  const double score = 2 * std::atanh(std::log(2.0) / 2);
  in.q(0, 0) = 1, in.k(2, 0) = score / c.shape().scale;
  in.k(0, 0) = in.v(0, 5) = 100;
  in.v(1, 5) = 3, in.v(2, 5) = 6;
  const Forward result = forward(oracle(), c, in);
  Matrix out(1, 8), lse(1, 1, std::log(3.0));
  out(0, 5) = 5;
  check_close("attention out", result.out, out, 1e-14);
  check_close("attention lse", result.lse, lse, 1e-14);
}

TEST_CASE("attention: rows of no sequence are zero") {
  for (const auto& [name, backend] : backends()) {
    const Device device(*backend, DType::kFloat32, DType::kFloat32);
    const Case c{packed({3, 2}, 60), 2, 1, 16};
    const Inputs in = make_inputs(c);
    const Forward result = forward(device, c, in);
    const Gradients gradients = backward(device, c, in, result);
    for (const Matrix* values : {&result.out, &result.lse, &gradients.dq, &gradients.dk, &gradients.dv}) {
      bool zero = true;
      for (int64_t i = 5 * values->cols; i < values->rows * values->cols; ++i) zero &= values->values[size_t(i)] == 0;
      CHECK_MESSAGE(zero, name);
    }
  }
}

TEST_CASE("attention: head dimensions") {
  for (const int32_t head_dim : {8, 10, 16, 24, 64, 80, 128, 256}) check({packed({5, 1, 37}, 3), 2, 1, head_dim});
}

TEST_CASE("attention: query heads per key head") {
  for (const int32_t kv_heads : {1, 3})
    for (const int32_t group : {1, 2, 4, 7}) check({packed({19, 2, 33}, 2), kv_heads * group, kv_heads, 16});
}

TEST_CASE("attention: lengths") {
  check({packed({1}, 0), 1, 1, 8});
  check({packed({1, 1, 1}, 5), 3, 1, 8});
  for (const int32_t length : {2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 300})
    check({packed({length}, 0), 2, 1, 16});
  check({packed({70, 1, 5, 130, 16}, 34), 3, 3, 64});
}

TEST_CASE("attention: some rows query") {
  for (const int32_t head_dim : {8, 64, 80}) {
    check({subset({9, 1, 2, 40}, 5), 4, 2, head_dim});
    check({subset({1, 133}, 0), 4, 1, head_dim});
    for (const int32_t queries : {1, 3}) check({cached({40, 1, 17, 130}, queries, 140), 4, 2, head_dim});
  }
  // No query at all, or filler only: the keys still get their gradient, of zeros.
  for (const int64_t filler : {0, 3}) check({subset({1, 2}, filler), 2, 1, 16});
  // Queries in no order, with repetitions, and keys that nobody sees.
  Layout layout = packed({20, 30}, 2);
  layout.name = "queries in no order", layout.fused = false;
  layout.q_offsets = {0, 3, 7}, layout.q_positions = {17, 0, 4, 9, 9, 1, 20, 0}, layout.q_rows = 8;
  check({layout, 2, 1, 16});
}

TEST_CASE("attention: sliding windows") {
  for (const int32_t window : {1, 2, 15, 63, 64, 65, 100, 400}) {
    check({packed({70, 1, 5, 130}, 34), 4, 2, 16, 1, window});
    check({packed({300}, 0), 3, 1, 24, 1, window});
    check({subset({9, 1, 133}, 5), 2, 1, 64, 1, window});
    check({cached({40, 1, 130}, 3, 140), 4, 2, 16, 1, window});
  }
}

TEST_CASE("attention: soft caps") {
  for (const double softcap : {0.5, 2.0, 50.0})
    for (const int32_t window : {0, 20})
      for (const double gain : {1.0, 30.0}) {
        check({packed({70, 1, 5, 130}, 34), 4, 2, 16, gain, window, softcap});
        check({subset({9, 1, 133}, 5), 2, 1, 80, gain, window, softcap});
      }
}

TEST_CASE("attention: scores far apart") {
  for (const double gain : {30.0, 300.0}) check({packed({40, 3}, 1), 2, 1, 64, gain});
}

}  // namespace tunesmith::test
