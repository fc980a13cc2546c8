#include <cmath>

#include "core/rng.h"
#include "test/harness.h"

namespace tunesmith::test {

namespace {

constexpr uint64_t kKey = 0xfedcba9876543210;
constexpr double kAlpha = 5;

struct Case {
  std::vector<int32_t> offsets, numbers;  // of the sequences
  int64_t rows, width;
};

Buffer conversations(const Device& device, const Case& c) {
  std::vector<int32_t> of_rows(static_cast<size_t>(c.rows), 0);
  for (size_t b = 0; b + 1 < c.offsets.size(); ++b)
    std::fill(of_rows.begin() + c.offsets[b], of_rows.begin() + c.offsets[b + 1], c.numbers[b]);
  return device.index(of_rows);
}

Matrix noise(const Device& device, const Case& c, const Matrix& before) {
  const Buffer x = device.inout(Kind::kWide, before), offsets = device.index(c.offsets);
  const Buffer numbers = conversations(device, c);
  device->embedding_noise(x, {kAlpha, kKey, numbers.ints(), int32_t(c.numbers.size()), offsets.ints()});
  return x.get();
}

}  // namespace

TEST_CASE("embedding_noise: NEFTune's size, keyed by conversation and position alone") {
  const Case c{{0, 5, 6, 13}, {4, 0, 9}, 16, 203};
  for (const auto& [name, backend] : backends()) {
    INFO(name);
    const Device device(*backend, DType::kFloat32, DType::kFloat32);
    const Matrix found = noise(device, c, Matrix(c.rows, c.width));
    for (size_t b = 0; b < c.numbers.size(); ++b) {
      const int32_t first = c.offsets[b], end = c.offsets[b + 1];
      const double scale = kAlpha / std::sqrt(double(end - first) * double(c.width));
      for (int32_t t = first; t < end; ++t)
        for (int64_t h = 0; h < c.width; ++h) {
          const auto words = philox(kKey, {uint32_t(h / 4), uint32_t(t - first), uint32_t(c.numbers[b]), 0});
          const double u = 2 * (double(words[size_t(h % 4)]) * 0x1p-32) - 1;
          REQUIRE(std::abs(found(t, h) - scale * u) < 1e-6 * scale);
        }
    }
    // Filler rows belong to no conversation.
    for (int64_t h = 0; h < c.width; ++h) REQUIRE(found(13, h) == 0);
    // The last conversation by itself, as another micro-batch has it.
    const Matrix alone = noise(device, {{0, 7}, {9}, 7, c.width}, Matrix(7, c.width));
    for (int64_t t = 0; t < 7; ++t)
      for (int64_t h = 0; h < c.width; ++h) REQUIRE(alone(t, h) == found(6 + t, h));
  }
}

TEST_CASE("embedding_noise: uniform in [-1, 1), adding to what is there") {
  const Device device = oracle();
  const Case c{{0, 64}, {0}, 64, 256};
  Random random(1);
  const Matrix before = random.matrix(64, 256), after = noise(device, c, before);
  const double scale = kAlpha / std::sqrt(64.0 * 256.0);
  double sum = 0, squares = 0;
  for (size_t i = 0; i < before.values.size(); ++i) {
    const double u = (after.values[i] - before.values[i]) / scale;
    CHECK(std::abs(u) <= 1 + 1e-9);
    sum += u, squares += u * u;
  }
  const double count = double(before.values.size());
  // 4 standard deviations of the mean and of the mean square of a uniform variable.
  CHECK(std::abs(sum / count) < 4 / std::sqrt(3 * count));
  CHECK(std::abs(squares / count - 1.0 / 3) < 4 * std::sqrt(4.0 / 45 / count));
}

TEST_CASE("embedding_noise: backends against the reference") {
  for (const int64_t width : {1, 7, 64, 576, 1003}) {
    const Case c{{0, 1, 4, 67}, {2, 0, 1}, 67, width};
    Random random(2);
    const Matrix before = random.matrix(c.rows, width).rounded(DType::kFloat32);
    const Matrix expected = noise(oracle(), c, before);
    for (const auto& [name, backend] : backends()) {
      const Device device(*backend, DType::kFloat32, DType::kFloat32);
      const std::string what = name + ": embedding_noise" + describe("width", width);
      const Matrix found = noise(device, c, before);
      check_close(what, found, expected, device.tolerance(0, 4));
      check_same(what + ", run again", noise(device, c, before), found);
    }
  }
}

}  // namespace tunesmith::test
