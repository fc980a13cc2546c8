// Code books of 8-bit moments and of NF4 in device memory.
#pragma once

#include "core/nf4.h"

namespace tunesmith::cuda {

struct Tables {
  float signed_code[256], unsigned_code[256];        // core/dynamic_code.h
  float signed_borders[256], unsigned_borders[256];  // x > borders[i] is nearer to value i + 1 than to value i
  float nf4_scales[256], nf4_values[16];             // core/nf4.h
};

Tables make_tables();

}  // namespace tunesmith::cuda
