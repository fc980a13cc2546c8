// NF4 weights (core/nf4.h) made into matmul operands, anew for every call: 4.1 bits of each are read and 16 or 32
// written, beside a matmul that reads each hundreds of times.
#include "cuda/backend.h"
#include "cuda/kernel.h"
#include "cuda/tables.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kValues = 8;  // per thread: four bytes of codes, one scale

struct Shared {
  float scales[256], values[16];
};

template <class C, int N>
__global__ void dequantize_kernel(C* out, Nf4Matrix part, const Tables* tables) {
  Shared& shared = *shared_storage<Shared>();
  for (int i = int(threadIdx.x); i < 256; i += kThreads) shared.scales[i] = tables->nf4_scales[i];
  if (threadIdx.x < 16) shared.values[threadIdx.x] = tables->nf4_values[threadIdx.x];
  __syncthreads();
  const int64_t size = part.rows * part.cols, first = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kValues;
  if (first >= size) return;
  const int64_t block = first / kNf4Block;
  float scale = part.absmax[part.scale_codes ? block / kNf4Group : block];
  // Rounded after the product, as the definition has it.
  if (part.scale_codes) scale = add(multiply(shared.scales[part.scale_codes[block]], scale), *part.offset);
  for (int start = 0; start < kValues; start += N) {
    Pack<C, N> values;
    for (int i = 0; i < N; ++i) {
      const int64_t index = first + start + i;
      const int byte = index < size ? part.codes[index / 2] : 0;
      values.v[i] = from_float<C>(multiply(shared.values[index % 2 ? byte & 15 : byte >> 4], scale));
    }
    if (first + start < size) store(out + first + start, values);
  }
}

}  // namespace

void CudaBackend::dequantize(void* out, DType type, const LinearWeight& weight) {
  int64_t done = 0;
  with_compute(type, [&](auto c) {
    using C = decltype(c);
    for (const Nf4Matrix& part : weight.quantized) {
      C* const to = static_cast<C*>(out) + done;
      constexpr int kPack = 16 / sizeof(C);
      // Whole packs: the part begins at one and ends with one.
      with_packs<kPack>(done % kPack == 0 && part.size() % kPack == 0, [&](auto n) {
        const dim3 blocks{unsigned(ceil_div(part.size(), kThreads * kValues))};
        launch(dequantize_kernel<C, decltype(n)::value>, {blocks, kThreads, stream_, sizeof(Shared)}, to, part,
               tables_);
      });
      done += part.size();
    }
  });
}

}  // namespace tunesmith::cuda
