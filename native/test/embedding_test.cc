#include "test/harness.h"

namespace tunesmith::test {

namespace {

Outputs run(const Device& device, int64_t tokens, int64_t vocabulary, int64_t width, double scale, bool accumulate) {
  Random random(1);
  const Buffer index = device.index(random.integers(tokens, int32_t(vocabulary)));
  const Buffer table = device.input(Kind::kWide, random.matrix(vocabulary, width));
  const Matrix before = random.matrix(tokens, width);
  const Buffer out = accumulate ? device.inout(Kind::kWide, before) : device.output(Kind::kWide, tokens, width);
  const Buffer dout = device.input(Kind::kWide, random.matrix(tokens, width));
  const Buffer dtable = device.inout(Kind::kWide, random.matrix(vocabulary, width));
  device->embedding_forward(out, table, index.ints(), scale, accumulate);
  device->embedding_backward(dtable, dout, index.ints(), scale);
  // A row of the gradient is at most `tokens` additions; with a small vocabulary they come to tens.
  return {{"out", out.get(), accumulate || scale != 1 ? device.tolerance(0, 2) : 0},
          {"dtable", dtable.get(), device.tolerance(0, 16), device.tolerance(0, 4 * scale)}};
}

}  // namespace

TEST_CASE("embedding: gradient against finite differences") {
  const Device device = oracle();
  Random random(2);
  Matrix table = random.matrix(5, 3);
  const Matrix dout = random.matrix(7, 3);
  const Buffer index = device.index({4, 0, 4, 1, 1, 4, 3});
  const Buffer dtable = device.inout(Kind::kWide, Matrix(5, 3));
  device->embedding_backward(dtable, device.input(Kind::kWide, dout), index.ints(), 3);
  check_gradient("embedding dtable", dtable.get(), table, [&] {
    const Buffer out = device.output(Kind::kWide, 7, 3);
    device->embedding_forward(out, device.input(Kind::kWide, table), index.ints(), 3, false);
    return dot(out.get(), dout);
  });
}

TEST_CASE("embedding: backends against the reference") {
  for (const int64_t tokens : {1, 3, 130})
    for (const int64_t vocabulary : {1, 7, 511, 1003})
      for (const int64_t width : {1, 8, 67, 576})
        for (const double scale : {1.0, 24.0})
          for (const bool accumulate : {false, true})
            check_backends(
                "embedding" + describe("tokens", tokens, "vocabulary", vocabulary, "width", width, "scale", scale,
                                       "accumulate", accumulate),
                [&](const Device& device) { return run(device, tokens, vocabulary, width, scale, accumulate); });
}

}  // namespace tunesmith::test
