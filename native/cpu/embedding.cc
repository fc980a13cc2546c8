// Rows of an embedding table. The gradient is added in order of t by splitting the columns, not the tokens, among the
// threads.
#include <cstring>

#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/embedding.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

void put_token_rows(const Tensor& out, const Tensor& table, const int32_t* tokens, float scale, bool accumulate,
                    int64_t first, int64_t last) {
  for (int64_t t = first; t < last; ++t) {
    const float* from = table.row<float>(tokens[t]);
    float* to = out.row<float>(t);
    for_lanes(0, out.cols, [&](auto d, int64_t i) HWY_ATTR {
      const auto row = hn::Mul(load(d, from + i), hn::Set(d, scale));
      store(d, accumulate ? hn::Add(load(d, to + i), row) : row, to + i);
    });
  }
}

void add_token_rows(const Tensor& dtable, const Tensor& dout, const int32_t* tokens, float scale, int64_t first_column,
                    int64_t last_column) {
  for (int64_t t = 0; t < dout.rows; ++t) {
    float* to = dtable.row<float>(tokens[t]);
    const float* from = dout.row<float>(t);
    for_lanes(first_column, last_column, [&](auto d, int64_t i) HWY_ATTR {
      store(d, hn::MulAdd(load(d, from + i), hn::Set(d, scale), load(d, to + i)), to + i);
    });
  }
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(put_token_rows);
HWY_EXPORT(add_token_rows);

void CpuBackend::embedding_forward(Tensor out, Tensor table, const int32_t* tokens, double scale, bool accumulate) {
  parallel_ranges(threads_, out.rows, out.cols, [&](int64_t first, int64_t last) {
    if (scale != 1 || accumulate)
      return HWY_DYNAMIC_DISPATCH(put_token_rows)(out, table, tokens, float(scale), accumulate, first, last);
    for (int64_t t = first; t < last; ++t)
      std::memcpy(out.row<float>(t), table.row<float>(tokens[t]), size_t(out.cols) * sizeof(float));
  });
}

void CpuBackend::embedding_backward(Tensor dtable, Tensor dout, const int32_t* tokens, double scale) {
  parallel_ranges(threads_, dout.cols, dout.rows, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(add_token_rows)(dtable, dout, tokens, float(scale), first, last);
  });
}

}  // namespace tunesmith::cpu
#endif
