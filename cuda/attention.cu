// Causal attention over packed sequences: the Backend methods. The kernels are in attention_forward.cu,
// attention_backward.cu (bfloat16) and attention_float.cu.
#include "cuda/attention.h"

#include "cuda/backend.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 256;

// Rows from *first on, or from 0 where first is null. A few blocks: there are few such rows.
template <class C>
__global__ void zero_rows_kernel(Rows<C> x, const int32_t* first, int64_t rows, int64_t width) {
  for (int64_t row = (first ? *first : 0) + int64_t(blockIdx.x); row < rows; row += gridDim.x)
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) x[row][i] = from_float<C>(0.0f);
}

template <class C>
void zero_rows(Tensor x, const int32_t* first, int64_t blocks, cudaStream_t stream) {
  const int64_t used = x.rows < blocks ? x.rows : blocks;
  launch(zero_rows_kernel<C>, {dim3(unsigned(used)), kThreads, stream}, Rows<C>(x), first, x.rows, x.cols);
}

template <class C>
AttentionArguments<C> arguments_of(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor dout, Tensor dq,
                                   Tensor dk, Tensor dv, float* delta, const AttentionBatch& batch,
                                   const AttentionShape& shape) {
  const double log2_e = 1.4426950408889634, softcap = shape.softcap;
  const Scores scores{float(shape.scale), float(softcap != 0 ? shape.scale / softcap : shape.scale * log2_e),
                      float(softcap * log2_e), shape.window};
  const bool packs = shape.head_dim % 8 == 0 && in_packs(8, {q, k, v, dout});
  return {Rows<const C>(q),
          Rows<const C>(k),
          Rows<const C>(v),
          Rows<C>(out),
          Rows<float>(lse),
          Rows<const C>(dout),
          Rows<C>(dq),
          Rows<C>(dk),
          Rows<C>(dv),
          delta,
          batch,
          shape.heads,
          shape.heads / shape.kv_heads,
          shape.head_dim,
          scores,
          packs,
          in_packs(2, {dout ? Tensor{} : out, dq, dk, dv})};
}

}  // namespace

void CudaBackend::attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionBatch& batch,
                                    const AttentionShape& shape) {
  with_compute(q.dtype, [&](auto c) {
    using C = decltype(c);
    const int32_t* const end = batch.q_offsets + batch.sequences;
    zero_rows<C>(out, end, multiprocessors_, stream_);
    zero_rows<float>(lse, end, multiprocessors_, stream_);
    cuda::attention_forward(arguments_of<C>(out, lse, q, k, v, {}, {}, {}, {}, nullptr, batch, shape), q.rows, stream_);
  });
}

void CudaBackend::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
                                     Tensor k, Tensor v, const AttentionBatch& batch, const AttentionShape& shape) {
  with_compute(q.dtype, [&](auto c) {
    using C = decltype(c);
    zero_rows<C>(dq, batch.q_offsets + batch.sequences, multiprocessors_, stream_);
    // Keys that belong to no sequence may lie anywhere.
    zero_rows<C>(dk, nullptr, resident_blocks(), stream_);
    zero_rows<C>(dv, nullptr, resident_blocks(), stream_);
    float* const delta = partials<float>(q.rows * shape.heads);
    cuda::attention_backward(arguments_of<C>(out, lse, q, k, v, dout, dq, dk, dv, delta, batch, shape), q.rows, k.rows,
                             stream_);
  });
}

}  // namespace tunesmith::cuda
