#include <cmath>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

constexpr double kEpsilon = 1e-5;

struct Case {
  int64_t rows, width;
  bool delta, in_place, dx_compute;
  Margin margin;  // of the activations: y, delta, dy
  double scale;   // of x: a small one makes epsilon matter
  double offset;

  std::string text() const {
    return "rmsnorm" + describe("rows", rows, "width", width, "delta", delta, "in place", in_place, "dx_compute",
                                dx_compute, "slices", margin.left > 0, "scale", scale, "offset", offset);
  }
};

Outputs forward(const Device& device, const Case& c) {
  Random random(1);
  const Matrix residual = random.matrix(c.rows, c.width, c.scale), delta = random.matrix(c.rows, c.width, c.scale);
  // Out of place the residual is an input, which must not change.
  const Buffer x = c.in_place ? device.inout(Kind::kWide, residual) : device.input(Kind::kWide, residual);
  const Buffer delta_in = device.input(Kind::kCompute, delta, c.margin);
  const Buffer weight = device.input(Kind::kWide, random.matrix(1, c.width));
  const Buffer sum = device.output(Kind::kWide, c.rows, c.width), rstd = device.output(Kind::kWide, 1, c.rows);
  const Buffer y = device.output(Kind::kCompute, c.rows, c.width, c.margin);
  const Buffer again = device.output(Kind::kCompute, c.rows, c.width, c.margin);
  const Tensor out = !c.delta ? Tensor() : c.in_place ? x.tensor() : sum.tensor();
  device->rmsnorm_forward(out, y, rstd, x, c.delta ? delta_in.tensor() : Tensor(), weight, c.offset, kEpsilon);
  device->rmsnorm_apply(again, c.delta ? out : x.tensor(), rstd, weight, c.offset);

  // The mean of squares is a sum of `width` positive terms; its root halves the error.
  const double statistics = 4 + std::sqrt(double(c.width));
  Outputs outputs = {{"y", y.get(), device.tolerance(1, statistics)},
                     {"rstd", rstd.get(), device.tolerance(0, statistics)},
                     {"y of rmsnorm_apply", again.get(), device.tolerance(1, statistics)}};
  if (c.delta) outputs.push_back({"out", c.in_place ? x.get() : sum.get(), device.tolerance(0, 1)});
  return outputs;
}

Outputs backward(const Device& device, const Case& c) {
  Random random(2);
  const Matrix x = random.matrix(c.rows, c.width, c.scale);
  Matrix rstd(1, c.rows);
  for (int64_t r = 0; r < c.rows; ++r) {
    double squares = 0;
    for (int64_t h = 0; h < c.width; ++h) squares += x(r, h) * x(r, h);
    rstd(0, r) = 1 / std::sqrt(squares / double(c.width) + kEpsilon);
  }
  const Buffer x_in = device.input(Kind::kWide, x), rstd_in = device.input(Kind::kWide, rstd);
  const Buffer weight = device.input(Kind::kWide, random.matrix(1, c.width));
  const Buffer dy = device.input(Kind::kCompute, random.matrix(c.rows, c.width), c.margin);
  const Matrix before = random.matrix(c.rows, c.width);
  const Buffer dx = device.inout(Kind::kWide, before), dx_alone = device.inout(Kind::kWide, before);
  const Buffer dweight = device.inout(Kind::kWide, random.matrix(1, c.width));
  const Buffer dx_compute = device.output(Kind::kCompute, c.rows, c.width, c.margin);
  device->rmsnorm_backward(dx, c.dx_compute ? dx_compute.tensor() : Tensor(), dweight, dy, x_in, rstd_in, weight,
                           c.offset);
  device->rmsnorm_backward(dx_alone, Tensor(), Tensor(), dy, x_in, rstd_in, weight, c.offset);
  check_same(c.text() + ": dx without dweight", dx_alone.get(), dx.get());
  if (c.dx_compute && device.type() != DType::kFloat64)
    check_same(c.text() + ": dx_compute is dx, rounded", dx_compute.get(), dx.get().rounded(device.type()));
  // dx is a difference of terms as large as itself; dweight a sum over the rows that may happen to come out small.
  const double root = std::sqrt(double(c.rows));
  return {{"dx", dx.get(), device.tolerance(0, 8 + 2 * std::sqrt(double(c.width)))},
          {"dweight", dweight.get(), device.tolerance(0, 8 + 2 * root), device.tolerance(0, root)}};
}

}  // namespace

namespace {

void check_gradients(double offset) {
  const Device device = oracle();
  const int64_t rows = 3, width = 6;
  Random random(3);
  Matrix residual = random.matrix(rows, width), delta = random.matrix(rows, width), weight = random.matrix(1, width);
  const Matrix dy = random.matrix(rows, width), dout = random.matrix(rows, width);
  struct Forward {
    Matrix out, y, rstd;
  };
  const auto forward = [&]() -> Forward {
    const Buffer out = device.output(Kind::kWide, rows, width), y = device.output(Kind::kCompute, rows, width);
    const Buffer rstd = device.output(Kind::kWide, 1, rows);
    device->rmsnorm_forward(out, y, rstd, device.input(Kind::kWide, residual), device.input(Kind::kCompute, delta),
                            device.input(Kind::kWide, weight), offset, 0.1);
    return {out.get(), y.get(), rstd.get()};
  };
  // out flows on beside y: its gradient is what dx holds before the backward pass.
  const auto loss = [&] {
    const Forward result = forward();
    return dot(result.y, dy) + dot(result.out, dout);
  };
  const Forward saved = forward();
  const Buffer dx = device.inout(Kind::kWide, dout), dweight = device.inout(Kind::kWide, Matrix(1, width));
  const Buffer dx_compute = device.output(Kind::kCompute, rows, width);
  device->rmsnorm_backward(dx, dx_compute, dweight, device.input(Kind::kCompute, dy),
                           device.input(Kind::kWide, saved.out), device.input(Kind::kWide, saved.rstd),
                           device.input(Kind::kWide, weight), offset);
  check_gradient("rmsnorm dresidual", dx.get(), residual, loss);
  check_gradient("rmsnorm ddelta", dx_compute.get(), delta, loss);
  check_gradient("rmsnorm dweight", dweight.get(), weight, loss);
}

}  // namespace

TEST_CASE("rmsnorm: gradients against finite differences") {
  check_gradients(0);
  check_gradients(1);
}

TEST_CASE("rmsnorm: backends against the reference") {
  for (const int64_t rows : {1, 3, 67})
    for (const int64_t width : {1, 7, 64, 100, 576, 1003})
      for (const double scale : {1.0, 1e-3})
        for (const auto& [margin, offset] : {std::pair{Margin{}, 0.0}, {kSlice, 0.0}, {kSlice, 1.0}}) {
          for (const auto& [delta, in_place] : {std::pair{false, false}, {true, false}, {true, true}}) {
            const Case c{rows, width, delta, in_place, false, margin, scale, offset};
            check_backends(c.text(), [&](const Device& device) { return forward(device, c); });
          }
          for (const bool dx_compute : {false, true}) {
            const Case c{rows, width, false, false, dx_compute, margin, scale, offset};
            check_backends(c.text(), [&](const Device& device) { return backward(device, c); });
          }
        }
}

}  // namespace tunesmith::test
