#include "test/harness.h"

namespace tunesmith::test {

namespace {

struct Case {
  int64_t rows, width;
  bool in_place;
  Margin margin;
  double scale;  // of the gates

  std::string text() const {
    return "gated" +
           describe("rows", rows, "width", width, "in place", in_place, "slices", margin.left > 0, "scale", scale);
  }
};

Outputs run(const Device& device, const Case& c) {
  Random random(1);
  const Matrix values = random.matrix(c.rows, 2 * c.width, c.scale);
  const Buffer gate_up =
      c.in_place ? device.inout(Kind::kCompute, values, c.margin) : device.input(Kind::kCompute, values, c.margin);
  const Buffer dout = device.input(Kind::kCompute, random.matrix(c.rows, c.width), c.margin);
  const Buffer out = device.output(Kind::kCompute, c.rows, c.width, c.margin);
  const Buffer dgate_up = device.output(Kind::kCompute, c.rows, 2 * c.width, c.margin);
  device->gated_forward(out, gate_up, Activation::kSilu);
  device->gated_backward(c.in_place ? gate_up : dgate_up, dout, gate_up, Activation::kSilu);
  // One rounding; exp of a gate of size `scale` is off by as many roundoffs. A sigmoid
  // below float32's smallest normal number may be that or nothing.
  const double tolerance = device.tolerance(1, 8 + c.scale), floor = c.scale * c.scale * 0x1p-126;
  return {{"out", out.get(), tolerance, floor},
          {"dgate_up", (c.in_place ? gate_up : dgate_up).get(), tolerance, floor}};
}

}  // namespace

TEST_CASE("gated: gradient against finite differences") {
  const Device device = oracle();
  Random random(2);
  Matrix gate_up = random.matrix(4, 10, 3);
  const Matrix dout = random.matrix(4, 5);
  const Buffer dgate_up = device.output(Kind::kCompute, 4, 10);
  device->gated_backward(dgate_up, device.input(Kind::kCompute, dout), device.input(Kind::kCompute, gate_up),
                         Activation::kSilu);
  check_gradient("gated dgate_up", dgate_up.get(), gate_up, [&] {
    const Buffer out = device.output(Kind::kCompute, 4, 5);
    device->gated_forward(out, device.input(Kind::kCompute, gate_up), Activation::kSilu);
    return dot(out.get(), dout);
  });
}

TEST_CASE("gated: backends against the reference") {
  for (const int64_t rows : {1, 3, 67})
    for (const int64_t width : {1, 7, 64, 100, 1003})
      for (const bool in_place : {false, true})
        for (const Margin margin : {Margin{}, kSlice})
          for (const double scale : {3.0, 300.0}) {
            const Case c{rows, width, in_place, margin, scale};
            check_backends(c.text(), [&](const Device& device) { return run(device, c); });
          }
}

}  // namespace tunesmith::test
