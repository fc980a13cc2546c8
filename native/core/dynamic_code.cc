#include "core/dynamic_code.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

namespace tunesmith {

namespace {

// torch.linspace(0.1, 1, parts + 1)[index] in float32: from whichever end is nearer, the product not rounded.
float boundary(int parts, int index) {
  const float step = (1.0f - 0.1f) / float(parts);
  return index < (parts + 1) / 2 ? float(double(0.1f) + double(step) * index)
                                 : float(1.0 - double(step) * (parts - index));
}

DynamicCode make_code(bool is_signed) {
  DynamicCode code{0.0f, 1.0f};
  size_t count = 2;
  for (int decade = 0; decade < 7; decade++) {
    const float power = float(std::pow(10.0, decade - 6));
    const int parts = is_signed ? 1 << decade : 2 << decade;
    for (int i = 0; i < parts; i++) {
      const float middle = power * ((boundary(parts, i) + boundary(parts, i + 1)) / 2.0f);
      code[count++] = middle;
      if (is_signed) code[count++] = -middle;
    }
  }
  std::sort(code.begin(), code.end());
  return code;
}

// The nearest of the values from `first` on, which are not negative, without a search: the exponent and the first 7
// bits of the fraction give a cell with at most one border between two values in it, and one comparison does the rest.
class Finder {
 public:
  Finder(const DynamicCode& code, int first) {
    border_.fill(2.0f);
    for (int i = first; i < 255; i++) {
      const float middle = (code[size_t(i)] + code[size_t(i + 1)]) * 0.5f;
      // x > border; where the index above is the even one, the middle itself belongs to it.
      border_[size_t(i)] = i % 2 ? std::nextafterf(middle, 0.0f) : middle;
    }
    cells_.resize(cell_of(1.0f) + 1);
    uint8_t index = uint8_t(first);
    for (size_t cell = 0; cell < cells_.size(); cell++) {
      const float lowest = cell == 0 ? 0.0f : std::bit_cast<float>(uint32_t(cell + kLowest) << kShift);
      while (index < 255 && lowest > border_[index]) index++;
      cells_[cell] = index;
    }
  }

  uint8_t operator()(float x) const {
    const uint8_t index = cells_[std::min(cell_of(x), cells_.size() - 1)];
    return uint8_t(index + (x > border_[index]));
  }

 private:
  static constexpr int kShift = 16;
  static constexpr uint32_t kLowest = (127 - 30) << (23 - kShift);  // 2^-30: below every border

  static size_t cell_of(float x) {
    const uint32_t top = std::bit_cast<uint32_t>(x) >> kShift;
    return top > kLowest ? top - kLowest : 0;
  }

  std::array<float, 256> border_;
  std::vector<uint8_t> cells_;
};

}  // namespace

const DynamicCode& signed_dynamic_code() {
  static const DynamicCode code = make_code(true);
  return code;
}

const DynamicCode& unsigned_dynamic_code() {
  static const DynamicCode code = make_code(false);
  return code;
}

void encode_signed(uint8_t* codes, const float* x, int64_t count) {
  // Index 127 is 0, 127 - i the negative of 127 + i for i <= 127; 255 is 1, which has no negative.
  static const Finder find(signed_dynamic_code(), 127);
  for (int64_t i = 0; i < count; i++) {
    const uint8_t index = find(std::abs(x[i]));
    codes[i] = !std::signbit(x[i]) ? index : index == 127 ? 126 : index == 255 ? 0 : uint8_t(254 - index);
  }
}

void encode_unsigned(uint8_t* codes, const float* x, int64_t count) {
  static const Finder find(unsigned_dynamic_code(), 0);
  for (int64_t i = 0; i < count; i++) codes[i] = find(x[i]);
}

}  // namespace tunesmith
