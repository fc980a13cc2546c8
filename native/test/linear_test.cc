#include <algorithm>
#include <cmath>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

struct Case {
  int64_t m, n, k;
  bool bias, accumulate, training;
  Kind y, dx;     // accumulate asks for a wide dx
  Margin margin;  // of every activation

  std::string text() const {
    return "linear" + describe("m", m, "n", n, "k", k, "bias", bias, "accumulate", accumulate, "wide y",
                               y == Kind::kWide, "wide dx", dx == Kind::kWide, "slices", margin.left > 0);
  }
};

// Memory for linear_scratch_bytes, handed to the backend while it lives.
class Scratch {
 public:
  Scratch(const Device& device, size_t bytes) : device_(device), memory_(*device, bytes) {
    device_->set_scratch(memory_.data(), bytes);
  }
  ~Scratch() { device_->set_scratch(nullptr, 0); }

 private:
  Device device_;
  Buffer memory_;
};

// A weight with everything a backend wants around it but scratch. The master keeps the bits that the compute type
// lacks: rounding them away is the backend's work, and done here for the oracle.
class Weight {
 public:
  Weight(const Device& device, const Matrix& w, LinearUse use)
      : device_(device),
        master_(device.inout(Kind::kWide, device.type() == DType::kFloat64 ? w.rounded(device.rounding()) : w)),
        prepared_(*device, device->linear_prepared_bytes({w.rows, w.cols, device.type(), use})) {
    device_->linear_prepare(*this, use);
  }
  operator LinearWeight() const { return {master_, device_.type(), prepared_.data()}; }
  const Buffer& master() const { return master_; }

 private:
  Device device_;
  Buffer master_, prepared_;
};

// One rounding to the output's type; sums of `terms` products in the wide type, whose error grows with their root. The
// floor is for sums that happen to come out small.
Output sum(const Device& device, const std::string& name, const Matrix& value, Kind out, int64_t terms) {
  const double root = std::sqrt(double(terms));
  return {name, value, device.tolerance(out == Kind::kCompute, 4 + 2 * root), device.tolerance(0, root)};
}

Outputs run(const Device& device, const Case& c) {
  Random random(1);
  const Matrix w = random.matrix(c.n, c.k), bias = random.matrix(1, c.n), x = random.matrix(c.m, c.k);
  const Matrix dy = random.matrix(c.m, c.n), dx = random.matrix(c.m, c.k), dw = random.matrix(c.n, c.k);
  const LinearUse use = c.training ? LinearUse::kTrained : LinearUse::kInference;
  const Scratch scratch(device, device->linear_scratch_bytes(c.m + 37, {c.n, c.k, device.type(), use}));
  const Weight weight(device, w, use);
  const Buffer bias_in = device.input(Kind::kWide, bias), x_in = device.input(Kind::kCompute, x, c.margin);
  const Buffer dy_in = device.input(Kind::kCompute, dy, c.margin);
  const Buffer y_out = device.output(c.y, c.m, c.n, c.margin);
  device->linear_forward(y_out, x_in, weight, c.bias ? bias_in.tensor() : Tensor());
  Outputs outputs = {sum(device, "y", y_out.get(), c.y, c.k)};
  if (!c.training) return outputs;

  const Buffer dx_out = c.accumulate ? device.inout(c.dx, dx, c.margin) : device.output(c.dx, c.m, c.k, c.margin);
  const Buffer dw_out = c.accumulate ? device.inout(Kind::kWide, dw) : device.output(Kind::kWide, c.n, c.k);
  const Buffer dbias_out = device.inout(Kind::kWide, bias);
  device->linear_backward_input(dx_out, dy_in, weight, c.accumulate);
  device->linear_backward_weight(dw_out, dy_in, x_in, c.accumulate);
  device->bias_backward(dbias_out, dy_in);
  outputs.push_back(sum(device, "dx", dx_out.get(), c.dx, c.n));
  outputs.push_back(sum(device, "dw", dw_out.get(), Kind::kWide, c.m));
  outputs.push_back(sum(device, "dbias", dbias_out.get(), Kind::kWide, c.m));
  return outputs;
}

}  // namespace

TEST_CASE("linear: gradients against finite differences") {
  const Device device = oracle();
  Random random(2);
  Matrix x = random.matrix(3, 5), w = random.matrix(4, 5), bias = random.matrix(1, 4);
  const Matrix dy = random.matrix(3, 4);
  const auto loss = [&] {
    const Weight weight(device, w, LinearUse::kTrained);
    const Buffer y = device.output(Kind::kCompute, 3, 4);
    device->linear_forward(y, device.input(Kind::kCompute, x), weight, device.input(Kind::kWide, bias));
    return dot(y.get(), dy);
  };
  const Weight weight(device, w, LinearUse::kTrained);
  const Buffer x_in = device.input(Kind::kCompute, x), dy_in = device.input(Kind::kCompute, dy);
  const Buffer dx = device.output(Kind::kCompute, 3, 5), dw = device.output(Kind::kWide, 4, 5);
  const Buffer dbias = device.inout(Kind::kWide, Matrix(1, 4));
  device->linear_backward_input(dx, dy_in, weight, false);
  device->linear_backward_weight(dw, dy_in, x_in, false);
  device->bias_backward(dbias, dy_in);
  check_gradient("linear dx", dx.get(), x, loss);
  check_gradient("linear dw", dw.get(), w, loss);
  check_gradient("linear dbias", dbias.get(), bias, loss);
}

TEST_CASE("linear: backends against the reference") {
  const struct {
    int64_t m, n, k;
  } shapes[] = {{0, 5, 3}, {1, 1, 1}, {1, 7, 5}, {2, 1, 64}, {3, 64, 16}, {17, 511, 33}, {64, 96, 128}, {65, 1003, 24}};
  for (const auto& [m, n, k] : shapes)
    for (const bool bias : {false, true})
      for (const Margin margin : {Margin{}, kSlice})
        for (const Kind kind : {Kind::kCompute, Kind::kWide})
          for (const bool accumulate : {false, true}) {
            if (accumulate && kind == Kind::kCompute) continue;
            const Case c{m, n, k, bias, accumulate, true, kind, kind, margin};
            check_backends(c.text(), [&](const Device& device) { return run(device, c); });
          }
  // More rows of dw than the CPU backend transposes at once, the last ones few.
  const Case tall{5, 8200, 24, false, true, true, Kind::kCompute, Kind::kWide, {}};
  check_backends(tall.text(), [&](const Device& device) { return run(device, tall); });
  // Several blocks of every dimension, as a model has them.
  const Case large{257, 320, 576, true, true, true, Kind::kCompute, Kind::kWide, {}};
  check_backends(large.text(), [&](const Device& device) { return run(device, large); });
}

TEST_CASE("linear: prepared for inference only") {
  for (const int64_t m : {1, 5, 33}) {
    const Case c{m, 130, 72, true, false, false, Kind::kCompute, Kind::kCompute, {}};
    check_backends(c.text() + " inference", [&](const Device& device) { return run(device, c); });
  }
}

TEST_CASE("linear: prepared again after the master weights changed") {
  check_backends("linear, second weights", [](const Device& device) -> Outputs {
    Random random(3);
    const Matrix first = random.matrix(40, 24), second = random.matrix(40, 24).rounded(device.rounding());
    const Scratch scratch(device, device->linear_scratch_bytes(9, {40, 24, device.type(), LinearUse::kTrained}));
    const Weight weight(device, first, LinearUse::kTrained);
    const Buffer x = device.input(Kind::kCompute, random.matrix(9, 24));
    const Buffer dy = device.input(Kind::kCompute, random.matrix(9, 40));
    const Buffer y = device.output(Kind::kWide, 9, 40), dx = device.output(Kind::kWide, 9, 24);
    device->linear_forward(y, x, weight, {});
    device->linear_backward_input(dx, dy, weight, false);
    device->cast(weight.master(), device.input(Kind::kWide, second));
    device->linear_prepare(weight, LinearUse::kTrained);
    device->linear_backward_input(dx, dy, weight, false);
    device->linear_forward(y, x, weight, {});
    return {sum(device, "y", y.get(), Kind::kWide, 24), sum(device, "dx", dx.get(), Kind::kWide, 40)};
  });
}

// As in a model: one scratch for all weights, calls for one weight broken off by calls for another, and by attention,
// which no weight knows of. What a backend keeps from call to call must still be right.
TEST_CASE("linear: weights in turn, with one scratch") {
  check_backends("linear, two weights in turn", [](const Device& device) -> Outputs {
    const auto bytes = [&](int64_t n, int64_t k) {
      return device->linear_scratch_bytes(33, {n, k, device.type(), LinearUse::kTrained});
    };
    const Scratch scratch(device, std::max(bytes(48, 40), bytes(40, 48)));
    Random random(4);
    const Weight up(device, random.matrix(48, 40), LinearUse::kTrained),
        down(device, random.matrix(40, 48), LinearUse::kTrained);
    const Buffer narrow = device.input(Kind::kCompute, random.matrix(33, 40));
    const Buffer broad = device.input(Kind::kCompute, random.matrix(33, 48));
    const Buffer q_offsets = device.index({0, 3}), k_offset = device.index({0}), length = device.index({33}),
                 positions = device.index({32, 31, 30});
    const AttentionBatch queries{1, q_offsets.ints(), k_offset.ints(), length.ints(), positions.ints()};

    Outputs outputs;
    const auto forward = [&](const std::string& name, const Weight& weight, Tensor x, int64_t rows, int64_t n) {
      const Buffer y = device.output(Kind::kWide, rows, n);
      device->linear_forward(y, x.slice_rows(0, rows), weight, {});
      outputs.push_back(sum(device, name, y.get(), Kind::kWide, x.cols));
    };
    const auto backward = [&](const std::string& name, const Weight& weight, Tensor dy, int64_t rows, int64_t k) {
      const Buffer dx = device.output(Kind::kWide, rows, k);
      device->linear_backward_input(dx, dy.slice_rows(0, rows), weight, false);
      outputs.push_back(sum(device, name, dx.get(), Kind::kWide, dy.cols));
    };
    const auto attend = [&] {
      const Buffer out = device.output(Kind::kCompute, 3, 40), lse = device.output(Kind::kWide, 3, 5);
      const Tensor x = narrow;
      device->attention_forward(out, lse, x.slice_rows(0, 3), x.slice_cols(0, 8), x.slice_cols(8, 8), queries,
                                {5, 1, 8, 1});
    };
    forward("up", up, narrow, 33, 48);
    forward("down", down, broad, 33, 40);
    backward("down'", down, narrow, 33, 48);
    backward("down' again, fewer rows", down, narrow, 7, 48);
    backward("up'", up, broad, 33, 40);
    attend();
    backward("up' after attention", up, broad, 33, 40);
    forward("up after up'", up, narrow, 7, 48);
    backward("down' after up'", down, narrow, 33, 48);
    const Buffer dw = device.output(Kind::kWide, 40, 48);
    device->linear_backward_weight(dw, narrow, broad, false);
    outputs.push_back(sum(device, "gradient of down", dw.get(), Kind::kWide, 33));
    backward("down' after its gradient", down, narrow, 33, 48);

    // The same bytes mean another matrix in the other direction, and nothing but that tells them apart here.
    const Weight square(device, random.matrix(40, 40), LinearUse::kTrained);
    forward("square", square, narrow, 33, 40);
    backward("square'", square, narrow, 33, 40);
    forward("square after square'", square, narrow, 33, 40);
    return outputs;
  });
}

// What is kept of one weight must give way to what another needs.
TEST_CASE("linear: a weight gradient that needs the room of held weights") {
  check_backends("linear, one large gradient", [](const Device& device) -> Outputs {
    const auto bytes = [&](int64_t n, int64_t k) {
      return device->linear_scratch_bytes(300, {n, k, device.type(), LinearUse::kTrained});
    };
    const Scratch scratch(device, std::max(bytes(512, 512), bytes(16, 2048)));
    Random random(5);
    const Weight square(device, random.matrix(512, 512), LinearUse::kTrained);
    const Buffer dy = device.input(Kind::kCompute, random.matrix(300, 512));
    const Buffer narrow = device.input(Kind::kCompute, random.matrix(300, 16));
    const Buffer broad = device.input(Kind::kCompute, random.matrix(300, 2048));
    const Buffer first = device.output(Kind::kWide, 300, 512), again = device.output(Kind::kWide, 300, 512);
    const Buffer dw = device.output(Kind::kWide, 16, 2048);
    device->linear_backward_input(first, dy, square, false);
    device->linear_backward_weight(dw, narrow, broad, false);
    device->linear_backward_input(again, dy, square, false);
    return {sum(device, "dx", first.get(), Kind::kWide, 512), sum(device, "dw", dw.get(), Kind::kWide, 300),
            sum(device, "dx again", again.get(), Kind::kWide, 512)};
  });
}

}  // namespace tunesmith::test
