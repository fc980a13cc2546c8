// Gathering and scattering of rows, and conversion between float types.
#include <cstring>
#include <type_traits>

#include "core/storage.h"
#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rows.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

template <class T>
void add_row(const Tensor& x, const Tensor& in, int64_t to, int64_t from) {
  T* sum = x.row<T>(to);
  const T* add = in.row<T>(from);
  for_lanes(0, x.cols,
            [&](auto d, int64_t i) HWY_ATTR { store(d, hn::Add(load(d, sum + i), load(d, add + i)), sum + i); });
}

void scatter_add(const Tensor& x, const Tensor& in, const int32_t* rows, int64_t first, int64_t last) {
  const auto add = x.dtype == DType::kFloat32 ? add_row<float> : add_row<BFloat16>;
  for (int64_t r = first; r < last; ++r) add(x, in, rows[r], r);
}

template <class Out, class In>
void convert_lanes(const Tensor& out, const Tensor& in, int64_t first, int64_t last) {
  for (int64_t r = first; r < last; ++r) {
    const In* from = in.row<In>(r);
    Out* to = out.row<Out>(r);
    for_lanes(0, in.cols, [&](auto d, int64_t i) HWY_ATTR { store(d, load(d, from + i), to + i); });
  }
}

void widen_rows(const Tensor& out, const Tensor& in, int64_t first, int64_t last) {
  convert_lanes<float, BFloat16>(out, in, first, last);
}

void narrow_rows(const Tensor& out, const Tensor& in, int64_t first, int64_t last) {
  convert_lanes<BFloat16, float>(out, in, first, last);
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(scatter_add);
HWY_EXPORT(widen_rows);
HWY_EXPORT(narrow_rows);

namespace {

void copy_rows(const Tensor& out, const Tensor& in, int64_t first, int64_t last) {
  for (int64_t r = first; r < last; ++r)
    std::memcpy(out.slice_rows(r, 1).data, in.slice_rows(r, 1).data, size_t(in.cols) * size_of(in.dtype));
}

// The pairs of types that only loading and saving meet. The 16-bit types convert to and from float; a double on its way
// there is rounded to float first.
template <class Out, class In>
void convert_rows(const Tensor& out, const Tensor& in, int64_t first, int64_t last) {
  for (int64_t r = first; r < last; ++r)
    for (int64_t c = 0; c < in.cols; ++c) {
      const In value = in.row<In>(r)[c];
      if constexpr (sizeof(In) == 2 || sizeof(Out) == 2)
        out.row<Out>(r)[c] = Out(float(value));
      else
        out.row<Out>(r)[c] = Out(value);
    }
}

using ConvertRows = void (*)(const Tensor& out, const Tensor& in, int64_t first, int64_t last);

ConvertRows converter(DType to, DType from) {
  if (to == from && to != DType::kInt32) return copy_rows;
  if (to == DType::kFloat32 && from == DType::kBFloat16) return HWY_DYNAMIC_DISPATCH(widen_rows);
  if (to == DType::kBFloat16 && from == DType::kFloat32) return HWY_DYNAMIC_DISPATCH(narrow_rows);
  return with_float_type(to, [&](auto out) {
    return with_float_type(from, [&](auto in) -> ConvertRows { return convert_rows<decltype(out), decltype(in)>; });
  });
}

}  // namespace

void CpuBackend::gather_rows(Tensor out, Tensor x, const int32_t* rows) {
  const size_t bytes = size_t(x.cols) * size_of(x.dtype);
  parallel_ranges(threads_, out.rows, out.cols, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) std::memcpy(out.slice_rows(r, 1).data, x.slice_rows(rows[r], 1).data, bytes);
  });
}

void CpuBackend::scatter_add_rows(Tensor x, Tensor in, const int32_t* rows, int64_t count) {
  parallel_ranges(threads_, count, x.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(scatter_add)(x, in, rows, first, last);
  });
}

void CpuBackend::cast(Tensor out, Tensor in) {
  const ConvertRows convert = converter(out.dtype, in.dtype);
  if (in.rows == 1) {  // a vector: split its elements
    parallel_ranges(threads_, in.cols, 1, [&](int64_t first, int64_t last) {
      convert(out.slice_cols(first, last - first), in.slice_cols(first, last - first), 0, 1);
    });
    return;
  }
  parallel_ranges(threads_, in.rows, in.cols, [&](int64_t first, int64_t last) { convert(out, in, first, last); });
}

}  // namespace tunesmith::cpu
#endif
