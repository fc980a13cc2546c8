// Scaling of columns and sums over them, as low-rank adapters need them beside their matmuls.
#include <algorithm>

#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/columns.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

template <class D>
HWY_INLINE hn::Vec<D> factor(D d, const float* gain, float scale, float shift, int64_t i) {
  if (!gain) return hn::Set(d, scale + shift);
  return hn::MulAdd(load(d, gain + i), hn::Set(d, scale), hn::Set(d, shift));
}

template <class C>
void add_scaled_typed(const Tensor& y, const Tensor& x, const float* gain, float scale, float shift, int64_t first,
                      int64_t last) {
  for (int64_t t = first; t < last; ++t) {
    C* to = y.row<C>(t);
    const C* from = x.row<C>(t);
    for_lanes(0, y.cols, [&](auto d, int64_t i) HWY_ATTR {
      store(d, hn::MulAdd(load(d, from + i), factor(d, gain, scale, shift, i), load(d, to + i)), to + i);
    });
  }
}

void add_scaled_rows(const Tensor& y, const Tensor& x, const float* gain, float scale, float shift, int64_t first,
                     int64_t last) {
  const auto run = y.dtype == DType::kFloat32 ? add_scaled_typed<float> : add_scaled_typed<BFloat16>;
  run(y, x, gain, scale, shift, first, last);
}

template <class C>
void scale_columns_typed(const Tensor& y, const Tensor& x, const float* gain, float scale, float shift,
                         const float* bias, int64_t first, int64_t last) {
  for (int64_t t = first; t < last; ++t) {
    C* to = y.row<C>(t);
    const C* from = x.row<C>(t);
    for_lanes(0, y.cols, [&](auto d, int64_t i) HWY_ATTR {
      const auto scaled = hn::Mul(load(d, from + i), factor(d, gain, scale, shift, i));
      store(d, bias ? hn::Add(scaled, load(d, bias + i)) : scaled, to + i);
    });
  }
}

void scale_columns_rows(const Tensor& y, const Tensor& x, const float* gain, float scale, float shift,
                        const float* bias, int64_t first, int64_t last) {
  const auto run = y.dtype == DType::kFloat32 ? scale_columns_typed<float> : scale_columns_typed<BFloat16>;
  run(y, x, gain, scale, shift, bias, first, last);
}

// Rows that are summed in registers before they join the sum of those before: keeps the error of long sums small.
constexpr int64_t kRowGroup = 64;

template <class C>
void column_dots_typed(float* out, const Tensor& a, const Tensor& b, const float* divisor, float* sums, int64_t first,
                       int64_t last) {
  std::fill(sums + first, sums + last, 0.0f);
  for (int64_t group = 0; group < a.rows; group += kRowGroup) {
    const int64_t end = std::min(group + kRowGroup, a.rows);
    for_lanes(first, last, [&](auto d, int64_t i) HWY_ATTR {
      auto sum = hn::Zero(d);
      for (int64_t t = group; t < end; ++t) sum = hn::MulAdd(load(d, a.row<C>(t) + i), load(d, b.row<C>(t) + i), sum);
      store(d, hn::Add(load(d, sums + i), sum), sums + i);
    });
  }
  for_lanes(first, last, [&](auto d, int64_t i) HWY_ATTR {
    store(d, hn::Add(load(d, out + i), hn::Div(load(d, sums + i), load(d, divisor + i))), out + i);
  });
}

void column_dots_range(float* out, const Tensor& a, const Tensor& b, const float* divisor, float* sums, int64_t first,
                       int64_t last) {
  const auto run = a.dtype == DType::kFloat32 ? column_dots_typed<float> : column_dots_typed<BFloat16>;
  run(out, a, b, divisor, sums, first, last);
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(add_scaled_rows);
HWY_EXPORT(scale_columns_rows);
HWY_EXPORT(column_dots_range);

namespace {

const float* floats(const Tensor& vector) { return vector ? vector.as<float>() : nullptr; }

}  // namespace

void CpuBackend::add_scaled(Tensor y, Tensor x, Tensor gain, double scale, double shift) {
  parallel_ranges(threads_, y.rows, y.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(add_scaled_rows)(y, x, floats(gain), float(scale), float(shift), first, last);
  });
}

void CpuBackend::scale_columns(Tensor y, Tensor x, Tensor gain, double scale, double shift, Tensor bias) {
  parallel_ranges(threads_, y.rows, y.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(scale_columns_rows)(y, x, floats(gain), float(scale), float(shift), floats(bias), first, last);
  });
}

void CpuBackend::column_dots(Tensor out, Tensor a, Tensor b, Tensor divisor) {
  std::vector<float> sums(size_t(a.cols));
  parallel_ranges(threads_, a.cols, a.rows, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(column_dots_range)
    (out.as<float>(), a, b, divisor.as<float>(), sums.data(), first, last);
  });
}

}  // namespace tunesmith::cpu
#endif
