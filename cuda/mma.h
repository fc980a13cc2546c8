// Tensor cores and what feeds them, one instruction per function, each with a twin for the CPU that works on what the
// lanes of a warp hand in together.
#pragma once

#include "cuda/launch.h"

namespace tunesmith::cuda {

#ifndef TUNESMITH_CUDA_HOST

// D[16,8] += A[16,16] · B[16,8] with bfloat16 operands and float32 sums. Fragments as mma.sync.aligned.m16n8k16.row.col
// has them (PTX ISA, "Matrix fragments for mma.m16n8k16"), with g = lane / 4 and q = lane % 4:
//   a[0] = A[g, 2q..]  a[1] = A[g+8, 2q..]  a[2] = A[g, 2q+8..]  a[3] = A[g+8, 2q+8..]   two columns each
//   b[0] = B[2q.., g]  b[1] = B[2q+8.., g]                                               two rows each
//   d[0], d[1] = D[g, 2q..]  d[2], d[3] = D[g+8, 2q..]
__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8x8 matrices of 16-bit values from shared memory. Lane l gives the address of row l % 8 of matrix l / 8, 16
// bytes aligned to 16, and gets of each matrix the two values [l / 4][2 · (l % 4)..].
__device__ inline void load_matrices(uint32_t (&r)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
// The same of the transposed matrices: [2 · (l % 4)..][l / 4].
__device__ inline void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// Copies 16 bytes to shared memory without passing through registers, or writes zeros where `exists` is false. Past L1:
// nobody else on this multiprocessor reads them again soon.
__device__ inline void copy_async(void* shared, const void* global, bool exists) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(global), "r"(exists ? 16 : 0)
               : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
// Until this thread's copies have arrived, but for the last `left` groups. What other threads copied is there after the
// next __syncthreads().
template <int left>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(left) : "memory");
}

#else

struct MmaOperands {
  float d[4];
  uint32_t a[4], b[2];
};

// Value `index` (0 or 1) of a pair of bfloat16.
inline float half_of(uint32_t pair, int index) {
  const uint32_t bits = index ? pair & 0xffff0000u : pair << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                         std::source_location where = std::source_location::current()) {
  MmaOperands mine;
  std::memcpy(mine.d, d, sizeof mine.d);
  std::memcpy(mine.a, a, sizeof mine.a);
  mine.b[0] = b0, mine.b[1] = b1;
  const auto multiply = [](void* const operands[host::kLanes]) {
    float a_rows[16][16], b_rows[16][8];  // A and B
    for (int lane = 0; lane < host::kLanes; ++lane) {
      const MmaOperands& o = *static_cast<const MmaOperands*>(operands[lane]);
      const int group = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 4; ++i)
        for (int c = 0; c < 2; ++c) a_rows[group + i % 2 * 8][pair + i / 2 * 8 + c] = half_of(o.a[i], c);
      for (int i = 0; i < 2; ++i)
        for (int r = 0; r < 2; ++r) b_rows[pair + i * 8 + r][group] = half_of(o.b[i], r);
    }
    for (int row = 0; row < 16; ++row) {
      float sum[8] = {};
      for (int k = 0; k < 16; ++k)
        for (int column = 0; column < 8; ++column) sum[column] += a_rows[row][k] * b_rows[k][column];
      for (int column = 0; column < 8; ++column)
        static_cast<MmaOperands*>(operands[row % 8 * 4 + column / 2])->d[row / 8 * 2 + column % 2] += sum[column];
    }
  };
  host::wait_for_warp(~0u, multiply, &mine, where);
  std::memcpy(d, mine.d, sizeof mine.d);
}

struct MatrixRow {
  const void* address;
  uint32_t r[4];
};

template <bool transposed>
void load_matrices_of(void* const operands[host::kLanes]) {
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint16_t values[8][8];
    for (int row = 0; row < 8; ++row)
      std::memcpy(values[row], static_cast<const MatrixRow*>(operands[matrix * 8 + row])->address, 16);
    for (int lane = 0; lane < host::kLanes; ++lane) {
      const int i = lane / 4, j = lane % 4 * 2;
      const uint16_t low = transposed ? values[j][i] : values[i][j];
      const uint16_t high = transposed ? values[j + 1][i] : values[i][j + 1];
      static_cast<MatrixRow*>(operands[lane])->r[matrix] = uint32_t(high) << 16 | low;
    }
  }
}

inline void load_matrices(uint32_t (&r)[4], const void* row,
                          std::source_location where = std::source_location::current()) {
  MatrixRow mine{row, {}};
  host::wait_for_warp(~0u, load_matrices_of<false>, &mine, where);
  std::memcpy(r, mine.r, sizeof mine.r);
}
inline void load_matrices_transposed(uint32_t (&r)[4], const void* row,
                                     std::source_location where = std::source_location::current()) {
  MatrixRow mine{row, {}};
  host::wait_for_warp(~0u, load_matrices_of<true>, &mine, where);
  std::memcpy(r, mine.r, sizeof mine.r);
}

inline void copy_async(void* shared, const void* global, bool exists) {
  host::start_copy(shared, global, exists ? 16 : 0, exists ? 0 : 16);
}
inline void commit_copies() { host::commit_copies(); }
template <int left>
void wait_for_copies() {
  host::wait_for_copies(left);
}

#endif

}  // namespace tunesmith::cuda
