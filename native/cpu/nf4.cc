// NF4 codes to float32 values. A code is looked up as four bytes, in one table per byte of a float32: 16 entries of a
// byte are what one shuffle instruction looks up, in every instruction set from SSSE3 on.
#include "cpu/nf4.h"

#include <algorithm>
#include <array>
#include <bit>

#ifndef TUNESMITH_CPU_NF4_ONCE
#define TUNESMITH_CPU_NF4_ONCE
namespace tunesmith::cpu {

using ByteTable = std::array<uint8_t, 16>;
constexpr std::array<ByteTable, 4> make_byte_tables() {
  std::array<ByteTable, 4> tables{};
  for (size_t byte = 0; byte < 4; ++byte)
    for (size_t code = 0; code < 16; ++code)
      tables[byte][code] = uint8_t(std::bit_cast<uint32_t>(kNf4Values[code]) >> 8 * byte);
  return tables;
}
// Byte 0, the lowest, to 3 of each of the 16 values.
alignas(16) constexpr std::array<ByteTable, 4> kByteTables = make_byte_tables();

}  // namespace tunesmith::cpu
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/nf4.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
using CodeTag = hn::FixedTag<uint8_t, 16>;
using Codes = hn::Vec<CodeTag>;

// 16 values in the order of their codes.
HWY_INLINE void put_sixteen(float* to, Codes codes, FourFloats scale) {
  const CodeTag d8;
  const hn::RepartitionToWide<CodeTag> d16;
  const FourTag d;
  Codes bytes[4];
  for (size_t i = 0; i < 4; ++i) bytes[i] = hn::TableLookupBytes(hn::Load(d8, kByteTables[i].data()), codes);
  const auto put = [&](float* at, auto low, auto high) HWY_ATTR {
    hn::StoreU(hn::Mul(hn::BitCast(d, hn::InterleaveLower(d16, low, high)), scale), d, at);
    hn::StoreU(hn::Mul(hn::BitCast(d, hn::InterleaveUpper(d16, low, high)), scale), d, at + 4);
  };
  put(to, hn::BitCast(d16, hn::InterleaveLower(d8, bytes[0], bytes[1])),
      hn::BitCast(d16, hn::InterleaveLower(d8, bytes[2], bytes[3])));
  put(to + 8, hn::BitCast(d16, hn::InterleaveUpper(d8, bytes[0], bytes[1])),
      hn::BitCast(d16, hn::InterleaveUpper(d8, bytes[2], bytes[3])));
}
#endif

// Values [first, last) of one block.
HWY_INLINE void put_block(float* to, const Nf4Matrix& matrix, int64_t first, int64_t last) {
  const float scale = matrix.scale(first / kNf4Block);
  int64_t i = first;
  const auto put_one = [&] { *to++ = kNf4Values[matrix.code(i++)] * scale; };
#if HWY_TARGET != HWY_SCALAR
  if (i % 2 && i < last) put_one();
  const CodeTag d;
  const auto scales = hn::Set(FourTag(), scale);
  for (; i + 32 <= last; i += 32, to += 32) {
    const auto pairs = hn::LoadU(d, matrix.codes + i / 2);
    const auto even = hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(hn::RepartitionToWide<CodeTag>(), pairs)));
    const auto low = hn::Set(d, uint8_t(15));
    const auto evens = hn::And(even, low), odds = hn::And(pairs, low);
    put_sixteen(to, hn::InterleaveLower(d, evens, odds), scales);
    put_sixteen(to + 16, hn::InterleaveUpper(d, evens, odds), scales);
  }
#endif
  while (i < last) put_one();
}

// Values [first, last) of the matrix, in the order of its rows.
void put_values(float* to, const Nf4Matrix& matrix, int64_t first, int64_t last) {
  while (first < last) {
    const int64_t end = std::min(last, (first / kNf4Block + 1) * kNf4Block);
    put_block(to, matrix, first, end);
    to += end - first;
    first = end;
  }
}

void put_rows(float* to, int64_t to_stride, const Nf4Matrix& matrix, int64_t first_row, int64_t rows, int64_t first_col,
              int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t first = (first_row + r) * matrix.cols + first_col;
    put_values(to + r * to_stride, matrix, first, first + cols);
  }
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(put_rows);

void nf4_rectangle(float* to, int64_t to_stride, std::span<const Nf4Matrix> parts, int64_t first_row, int64_t rows,
                   int64_t first_col, int64_t cols) {
  const int64_t end = first_row + rows;
  int64_t start = 0;  // of the part
  for (const Nf4Matrix& part : parts) {
    const int64_t first = std::max(first_row, start), last = std::min(end, start + part.rows);
    if (first < last) HWY_DYNAMIC_DISPATCH(put_rows)
    (to + (first - first_row) * to_stride, to_stride, part, first - start, last - first, first_col, cols);
    start += part.rows;
  }
}

}  // namespace tunesmith::cpu
#endif
