// Values of NF4 weights, on the fly.
#pragma once

#include <cstdint>
#include <span>

#include "core/nf4.h"

namespace tunesmith::cpu {

// to[rows, cols] (rows to_stride apart) = rows [first_row, ...) and columns [first_col, ...) of the weight that `parts`
// are the rows of. On the calling thread.
void nf4_rectangle(float* to, int64_t to_stride, std::span<const Nf4Matrix> parts, int64_t first_row, int64_t rows,
                   int64_t first_col, int64_t cols);

}  // namespace tunesmith::cpu
