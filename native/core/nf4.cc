#include "core/nf4.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace tunesmith {

namespace {

// torch.linspace(0.1, 1, parts + 1)[index] in float32: from whichever end is nearer, the product not rounded.
float boundary(int parts, int index) {
  const float step = (1.0f - 0.1f) / float(parts);
  return index < (parts + 1) / 2 ? float(double(0.1f) + double(step) * index)
                                 : float(1.0 - double(step) * (parts - index));
}

std::array<float, 256> make_dynamic_code() {
  std::array<float, 256> code{0.0f, 1.0f};
  size_t count = 2;
  for (int decade = 0; decade < 7; decade++) {
    const float power = float(std::pow(10.0, decade - 6));
    const int parts = 1 << decade;
    for (int i = 0; i < parts; i++) {
      const float middle = power * ((boundary(parts, i) + boundary(parts, i + 1)) / 2.0f);
      code[count++] = middle;
      code[count++] = -middle;
    }
  }
  std::sort(code.begin(), code.end());
  return code;
}

uint8_t nearest_nf4(float x) {
  uint8_t code = 0;
  for (size_t i = 1; i < kNf4Values.size(); i++) code += x > (kNf4Values[i - 1] + kNf4Values[i]) * 0.5f;
  return code;
}

// The nearest entry; half-way between two, the one with the even index; NaN gives 0: what bitsandbytes' binary search
// over 256 entries comes to.
uint8_t nearest_dynamic(const std::array<float, 256>& code, float x) {
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

const std::array<float, 256>& nf4_dynamic_code() {
  static const std::array<float, 256> code = make_dynamic_code();
  return code;
}

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
    for (int64_t i = 0; i < count; i++)
      scale_codes[first + i] = nearest_dynamic(nf4_dynamic_code(), centred[size_t(i)] * inverse);
  }
  return offset;
}

}  // namespace tunesmith
