#include "core/nf4.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace tunesmith {

namespace {

uint8_t nearest_nf4(float x) {
  uint8_t code = 0;
  for (size_t i = 1; i < kNf4Values.size(); i++) code += x > (kNf4Values[i - 1] + kNf4Values[i]) * 0.5f;
  return code;
}

// The nearest entry; half-way between two, the one with the even index; NaN gives 0: what bitsandbytes' binary search
// over 256 entries comes to. Unlike encode_signed(), it lets small negative values become 0.
uint8_t nearest_dynamic(float x) {
  const DynamicCode& code = signed_dynamic_code();
  if (!(x > code[0])) return 0;
  const size_t upper = size_t(std::lower_bound(code.begin(), code.end(), x) - code.begin());
  if (upper == code.size()) return uint8_t(upper - 1);
  const float middle = (code[upper - 1] + code[upper]) * 0.5f;
  if (x == middle) return uint8_t(upper - upper % 2);
  return uint8_t(x > middle ? upper : upper - 1);
}

float largest_magnitude(const float* values, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; i++) largest = std::max(largest, std::abs(values[i]));
  return largest;
}

}  // namespace

float nf4_quantize_block(uint8_t* codes, const float* values, int64_t count) {
  const float absmax = largest_magnitude(values, count);
  const float inverse = 1.0f / absmax;
  const bool zero = !std::isfinite(inverse);
  const auto code = [&](int64_t i) -> uint8_t {
    return i >= count ? 0 : zero ? kNf4Zero : nearest_nf4(values[i] * inverse);
  };
  for (int64_t i = 0; i < count; i += 2) codes[i / 2] = uint8_t(code(i) << 4 | code(i + 1));
  return zero ? 0.0f : absmax;
}

float nf4_quantize_scales(uint8_t* scale_codes, float* group_absmax, const std::vector<float>& absmax) {
  const int64_t blocks = int64_t(absmax.size());
  double sum = 0;
  for (const float value : absmax) sum += value;
  const float offset = float(sum / double(blocks));
  std::vector<float> centred;
  for (int64_t first = 0; first < blocks; first += kNf4Group) {
    const int64_t count = std::min(kNf4Group, blocks - first);
    centred.resize(size_t(count));
    for (int64_t i = 0; i < count; i++) centred[size_t(i)] = absmax[size_t(first + i)] - offset;
    const float largest = largest_magnitude(centred.data(), count), inverse = 1.0f / largest;
    group_absmax[first / kNf4Group] = largest;
    for (int64_t i = 0; i < count; i++) scale_codes[first + i] = nearest_dynamic(centred[size_t(i)] * inverse);
  }
  return offset;
}

}  // namespace tunesmith
