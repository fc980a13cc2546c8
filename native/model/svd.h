// The largest singular values of a matrix with their vectors, to the precision of double.
#pragma once

#include <cstdint>
#include <vector>

namespace tunesmith {

// w ≈ Σ_i u_i · s_i · v_iᵀ
struct SingularVectors {
  std::vector<double> s;  // [rank], descending
  std::vector<double> u;  // [rank, n]
  std::vector<double> v;  // [rank, k]
};

// Of w[n, k], for 1 <= rank <= min(n, k). Golub-Kahan-Lanczos bidiagonalisation with full reorthogonalisation (Golub
// and Kahan 1965; Simon and Zha 2000) goes on until every wanted triplet has ‖w v - s u‖ and ‖wᵀ u - s v‖ of at most
// 1e-12 of the largest value, which at min(n, k) steps it always has; the small bidiagonal matrix is taken apart by
// one-sided Jacobi rotations (Hestenes 1958). The signs of a pair u_i, v_i are free.
SingularVectors leading_singular_vectors(const std::vector<double>& w, int64_t n, int64_t k, int64_t rank);

// All of w[n, k], n >= k, by one-sided Jacobi rotations; u rows of zero values are zero.
SingularVectors jacobi_svd(const std::vector<double>& w, int64_t n, int64_t k);

}  // namespace tunesmith
