#include <cmath>
#include <numeric>

#include "core/rng.h"
#include "test/harness.h"

namespace tunesmith::test {

namespace {

struct Case {
  int64_t rows, width;
  double probability;
  bool accumulate, in_place;
  Margin margin;

  std::string text() const {
    return "dropout" + describe("rows", rows, "width", width, "probability", probability, "accumulate", accumulate,
                                "in place", in_place, "slices", margin.left > 0);
  }
};

constexpr uint64_t kKey = 0x123456789abcdef0;

Outputs run(const Device& device, const Case& c) {
  Random random(1);
  const Buffer positions = device.index(random.integers(c.rows, 4096));
  const Buffer conversations = device.index(random.integers(c.rows, 16));
  const Matrix values = random.matrix(c.rows, c.width), before = random.matrix(c.rows, c.width);
  const Buffer x =
      c.in_place ? device.inout(Kind::kCompute, values, c.margin) : device.input(Kind::kCompute, values, c.margin);
  const Buffer y = device.inout(Kind::kCompute, before, c.margin);
  const Buffer& out = c.in_place ? x : y;
  device->dropout(out, x, {c.probability, kKey, positions.ints(), conversations.ints()}, c.accumulate);
  return {{"y", out.get(), device.tolerance(1, 4), device.tolerance(0, 8)}};
}

}  // namespace

TEST_CASE("dropout: the mask is that of its definition, and a function of the place alone") {
  for (const auto& [name, backend] : backends()) {
    INFO(name);
    const Device device(*backend, DType::kFloat32, DType::kFloat32);
    const int64_t rows = 3, width = 203;
    const double probability = 0.25;
    const std::vector<int32_t> positions{4, 0, 4}, conversations{1, 2, 2};
    const Buffer y = device.output(Kind::kCompute, rows, width);
    const Buffer place = device.index(positions), conversation = device.index(conversations);
    const Matrix ones(rows, width, 1);
    device->dropout(y, device.input(Kind::kCompute, ones), {probability, kKey, place.ints(), conversation.ints()},
                    false);
    const Matrix whole = y.get();
    for (int64_t t = 0; t < rows; ++t)
      for (int64_t c = 0; c < width; ++c) {
        const auto words =
            philox(kKey, {uint32_t(c / 4), uint32_t(positions[size_t(t)]), uint32_t(conversations[size_t(t)]), 0});
        CHECK(whole(t, c) == (words[size_t(c % 4)] >= 0x40000000u ? double(float(1 / 0.75)) : 0.0));
      }
    // The last row alone.
    const Buffer alone = device.output(Kind::kCompute, 1, width);
    device->dropout(alone, device.input(Kind::kCompute, Matrix(1, width, 1)),
                    {probability, kKey, place.ints() + 2, conversation.ints() + 2}, false);
    for (int64_t c = 0; c < width; ++c) CHECK(alone.get()(0, c) == whole(2, c));
  }
}

TEST_CASE("dropout: drops the share it is told, and keeps the mean") {
  const Device device = oracle();
  const int64_t rows = 200, width = 500;
  std::vector<int32_t> positions(static_cast<size_t>(rows));
  std::iota(positions.begin(), positions.end(), 0);
  const Buffer place = device.index(positions), conversations = device.index(std::vector<int32_t>(size_t(rows), 7));
  for (const double probability : {0.0, 0.1, 0.5, 0.9}) {
    const Buffer y = device.output(Kind::kCompute, rows, width);
    device->dropout(y, device.input(Kind::kCompute, Matrix(rows, width, 1)),
                    {probability, kKey, place.ints(), conversations.ints()}, false);
    double dropped = 0, sum = 0;
    for (const double value : y.get().values) dropped += value == 0, sum += value;
    const double count = double(rows * width), deviation = std::sqrt(probability * (1 - probability) / count);
    CHECK(std::abs(dropped / count - probability) <= 4 * deviation);
    CHECK(std::abs(sum / count - 1) <= 4 * deviation / (1 - probability));
  }
}

TEST_CASE("dropout: backends against the reference") {
  for (const int64_t rows : {1, 3, 67})
    for (const int64_t width : {1, 7, 64, 100, 1003})
      for (const double probability : {0.0, 0.05, 0.5})
        for (const Margin margin : {Margin{}, kSlice})
          for (const auto& [accumulate, in_place] : {std::pair{false, false}, {true, false}, {false, true}}) {
            const Case c{rows, width, probability, accumulate, in_place, margin};
            check_backends(c.text(), [&](const Device& device) { return run(device, c); });
          }
}

}  // namespace tunesmith::test
