// Gathering and scattering of rows, and conversion between float types: nothing but memory traffic, in packs of 16
// bytes where the rows allow it.
#include "core/storage.h"
#include "cuda/backend.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 256;

// One block per run of a row. Word: what moves at once.
template <class Word>
__global__ void gather_kernel(Word* out, int64_t out_stride, const Word* x, int64_t x_stride, const int32_t* rows,
                              int64_t words) {
  const int64_t i = int64_t(blockIdx.y) * blockDim.x + threadIdx.x, row = blockIdx.x;
  if (i < words) out[row * out_stride + i] = x[rows[row] * x_stride + i];
}

template <class Word>
void gather(Tensor out, Tensor x, const int32_t* rows, cudaStream_t stream) {
  const int64_t size = int64_t(size_of(x.dtype)), word = int64_t(sizeof(Word)), words = x.cols * size / word;
  const unsigned threads = threads_for(words, kThreads);
  const dim3 blocks{unsigned(out.rows), unsigned(ceil_div(words, threads))};
  launch(gather_kernel<Word>, {blocks, threads, stream}, static_cast<Word*>(out.data), out.stride * size / word,
         static_cast<const Word*>(x.data), x.stride * size / word, rows, words);
}

template <class T, int N>
__global__ void scatter_add_kernel(Rows<T> x, Rows<T> in, const int32_t* rows, int64_t width) {
  const int64_t column = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N, row = blockIdx.x;
  if (column >= width) return;
  T* const to = x[rows[row]] + column;
  const Pack<T, N> more = load<N>(in[row] + column);
  Pack<T, N> sum = load<N>(to);
  for (int i = 0; i < N; ++i) sum.v[i] = from_float<T>(to_float(sum.v[i]) + to_float(more.v[i]));
  store(to, sum);
}

template <class To, class From>
__device__ To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else {
    // The 16-bit types convert to and from float32 only.
    float narrow;
    if constexpr (std::is_same_v<From, __nv_bfloat16>)
      narrow = __bfloat162float(value);
    else if constexpr (std::is_same_v<From, __half>)
      narrow = __half2float(value);
    else
      narrow = float(value);
    if constexpr (std::is_same_v<To, __nv_bfloat16>)
      return __float2bfloat16(narrow);
    else if constexpr (std::is_same_v<To, __half>)
      return __float2half(narrow);
    else
      return To(narrow);
  }
}

template <class To, class From, int N>
__global__ void cast_kernel(Rows<To> out, Rows<From> in, int64_t width) {
  const int64_t column = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N, row = blockIdx.x;
  if (column >= width) return;
  const Pack<From, N> values = load<N>(in[row] + column);
  Pack<To, N> converted;
  for (int i = 0; i < N; ++i) converted.v[i] = convert<To>(values.v[i]);
  store(out[row] + column, converted);
}

// Calls `use` with a value of the device's type for a float dtype.
template <class Use>
void with_device_type(DType type, const Use& use) {
  with_float_type(type, [&](auto value) {
    using T = decltype(value);
    if constexpr (std::is_same_v<T, BFloat16>)
      use(__nv_bfloat16());
    else if constexpr (std::is_same_v<T, Float16>)
      use(__half());
    else
      use(value);
  });
}

}  // namespace

void CudaBackend::gather_rows(Tensor out, Tensor x, const int32_t* rows) {
  const int64_t size = int64_t(size_of(x.dtype));
  if (in_packs(16 / size, {out, x}))
    gather<int4>(out, x, rows, stream_);
  else if (size == 8)
    gather<uint64_t>(out, x, rows, stream_);
  else if (size == 4)
    gather<uint32_t>(out, x, rows, stream_);
  else
    gather<uint16_t>(out, x, rows, stream_);
}

void CudaBackend::scatter_add_rows(Tensor x, Tensor in, const int32_t* rows, int64_t count) {
  with_compute(x.dtype, [&](auto c) {
    using C = decltype(c);
    with_packs<16 / sizeof(C)>(in_packs(16 / sizeof(C), {x, in}), [&](auto n) {
      constexpr int N = decltype(n)::value;
      const unsigned threads = threads_for(x.cols / N, kThreads);
      const dim3 blocks{unsigned(count), unsigned(ceil_div(x.cols / N, threads))};
      launch(scatter_add_kernel<C, N>, {blocks, threads, stream_}, Rows<C>(x), Rows<C>(in), rows, x.cols);
    });
  });
}

void CudaBackend::cast(Tensor out, Tensor in) {
  // A contiguous matrix is one long row; many short ones would leave most threads of a block idle.
  if (out.contiguous() && in.contiguous() && in.rows > 1) {
    int64_t width = in.size();
    int64_t rows = 1;
    while (width > 4096 && width % 2 == 0) width /= 2, rows *= 2;
    out.rows = in.rows = rows, out.cols = in.cols = out.stride = in.stride = width;
  }
  with_device_type(out.dtype, [&](auto out_type) {
    with_device_type(in.dtype, [&](auto in_type) {
      using To = decltype(out_type);
      using From = decltype(in_type);
      with_packs<4>(in_packs(4, {out, in}), [&](auto n) {
        constexpr int N = decltype(n)::value;
        const unsigned threads = threads_for(in.cols / N, kThreads);
        // The second dimension of a grid ends at 65535.
        const int64_t columns_at_once = int64_t(threads) * N * 32768;
        for (int64_t first = 0; first < in.cols; first += columns_at_once) {
          const int64_t width = in.cols - first < columns_at_once ? in.cols - first : columns_at_once;
          const dim3 blocks{unsigned(in.rows), unsigned(ceil_div(width / N, threads))};
          launch(cast_kernel<To, From, N>, {blocks, threads, stream_}, Rows<To>(out.slice_cols(first, width)),
                 Rows<From>(in.slice_cols(first, width)), width);
        }
      });
    });
  });
}

}  // namespace tunesmith::cuda
