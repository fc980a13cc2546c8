// Token embedding. The gradient is added in order of t by splitting the columns, not the tokens, among the threads.
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

void add_token_rows(const Tensor& dtable, const Tensor& dout, const int32_t* tokens, int64_t first_column,
                    int64_t last_column) {
  for (int64_t t = 0; t < dout.rows; ++t) {
    float* to = dtable.row<float>(tokens[t]);
    const float* from = dout.row<float>(t);
    for_lanes(first_column, last_column,
              [&](auto d, int64_t i) HWY_ATTR { store(d, hn::Add(load(d, to + i), load(d, from + i)), to + i); });
  }
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(add_token_rows);

void CpuBackend::embedding_forward(Tensor out, Tensor table, const int32_t* tokens) {
  parallel_ranges(threads_, out.rows, out.cols, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t)
      std::memcpy(out.row<float>(t), table.row<float>(tokens[t]), size_t(out.cols) * sizeof(float));
  });
}

void CpuBackend::embedding_backward(Tensor dtable, Tensor dout, const int32_t* tokens) {
  parallel_ranges(threads_, dout.cols, dout.rows, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(add_token_rows)(dtable, dout, tokens, first, last);
  });
}

}  // namespace tunesmith::cpu
#endif
