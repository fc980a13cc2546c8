// Quantisation against test/golden/nf4.txt, bit for bit.
#include "core/nf4.h"

#include <bit>
#include <cmath>
#include <fstream>
#include <string>

#include "doctest/doctest.h"

namespace tunesmith::test {

namespace {

class Golden {
 public:
  Golden() : file_(TUNESMITH_GOLDEN_DIR "/nf4.txt") { REQUIRE_MESSAGE(file_.good(), "test/golden/nf4.txt is missing"); }

  bool word(std::string& text) { return bool(file_ >> text); }
  int64_t number() {
    int64_t value = 0;
    REQUIRE(bool(file_ >> value));
    return value;
  }
  std::vector<float> floats(int64_t count) {
    std::vector<float> values;
    std::string text;
    for (int64_t i = 0; i < count; i++) {
      REQUIRE(word(text));
      values.push_back(std::bit_cast<float>(uint32_t(std::stoul(text, nullptr, 16))));
    }
    return values;
  }
  std::vector<uint8_t> bytes(int64_t count) {
    std::string text;
    REQUIRE(word(text));
    REQUIRE(int64_t(text.size()) == 2 * count);
    std::vector<uint8_t> values;
    for (int64_t i = 0; i < count; i++)
      values.push_back(uint8_t(std::stoul(text.substr(size_t(2 * i), 2), nullptr, 16)));
    return values;
  }

 private:
  std::ifstream file_;
};

uint32_t mix(uint32_t x) {
  x *= 0x9E3779B1u;
  x ^= x >> 16;
  x *= 0x85EBCA6Bu;
  return x ^ x >> 13;
}

std::vector<float> hashed(int64_t count) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; i++) {
    const float value = float(int32_t(mix(uint32_t(i)) >> 8) - (1 << 23));
    const float scale = float(mix(uint32_t(i / kNf4Block) + (1 << 20)) >> 8);
    values.push_back(value * scale * 0x1p-50f);
  }
  return values;
}

void check_bits(const std::string& what, const std::vector<float>& actual, const std::vector<float>& expected) {
  REQUIRE(actual.size() == expected.size());
  for (size_t i = 0; i < actual.size(); i++)
    if (std::bit_cast<uint32_t>(actual[i]) != std::bit_cast<uint32_t>(expected[i]))
      FAIL_CHECK(what << "[" << i << "] is " << actual[i] << ", not " << expected[i]);
}

void check_bytes(const std::string& what, const std::vector<uint8_t>& actual, const std::vector<uint8_t>& expected) {
  REQUIRE(actual.size() == expected.size());
  for (size_t i = 0; i < actual.size(); i++)
    if (actual[i] != expected[i])
      FAIL_CHECK(what << "[" << i << "] is " << int(actual[i]) << ", not " << int(expected[i]));
}

}  // namespace

TEST_CASE("nf4: codes, scales and offset are bit-equal to the golden ones") {
  Golden golden;
  const auto& dynamic = signed_dynamic_code();
  check_bits("dynamic code", {dynamic.begin(), dynamic.end()}, golden.floats(256));
  int cases = 0;
  for (std::string name; golden.word(name); cases++) {
    const int64_t count = golden.number();
    const std::vector<float> values = name == "hashed" ? hashed(count) : golden.floats(count);
    std::vector<uint8_t> codes(size_t(count + 1) / 2);
    std::vector<float> absmax;
    for (int64_t first = 0; first < count; first += kNf4Block)
      absmax.push_back(
          nf4_quantize_block(codes.data() + first / 2, values.data() + first, std::min(kNf4Block, count - first)));
    check_bytes(name + " codes", codes, golden.bytes(int64_t(codes.size())));
    std::vector<uint8_t> scale_codes(absmax.size());
    std::vector<float> groups((absmax.size() + kNf4Group - 1) / kNf4Group);
    const float offset = nf4_quantize_scales(scale_codes.data(), groups.data(), absmax);
    check_bytes(name + " scale codes", scale_codes, golden.bytes(int64_t(scale_codes.size())));
    check_bits(name + " group absmax", groups, golden.floats(int64_t(groups.size())));
    check_bits(name + " offset", {offset}, golden.floats(1));
    check_bits(name + " absmax", absmax, golden.floats(int64_t(absmax.size())));
  }
  CHECK(cases == 8);
}

TEST_CASE("nf4: every value is within half a step of the code book, and zero stays zero") {
  const std::vector<float> values = hashed(3 * kNf4Block + 7);
  for (int64_t first = 0; first < int64_t(values.size()); first += kNf4Block) {
    const int64_t count = std::min(kNf4Block, int64_t(values.size()) - first);
    std::vector<uint8_t> codes(size_t(count + 1) / 2);
    const float absmax = nf4_quantize_block(codes.data(), values.data() + first, count);
    const Nf4Matrix matrix{1, count, codes.data(), nullptr, nullptr, nullptr};
    for (int64_t i = 0; i < count; i++)
      CHECK(std::abs(kNf4Values[matrix.code(i)] * absmax - values[size_t(first + i)]) <= 0.152f * absmax);
  }
  const std::vector<float> small(5, 1e-39f);  // 1 / absmax is infinite
  std::vector<uint8_t> codes(3);
  CHECK(nf4_quantize_block(codes.data(), small.data(), 5) == 0);
  CHECK(codes == std::vector<uint8_t>{0x77, 0x77, 0x70});
}

}  // namespace tunesmith::test
