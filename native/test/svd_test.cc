#include "model/svd.h"

#include <algorithm>
#include <cmath>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

Matrix matrix_of(const std::vector<double>& values, int64_t rows, int64_t cols) {
  Matrix result(rows, cols);
  result.values = values;
  return result;
}

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix result(a.rows, b.cols);
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t j = 0; j < b.cols; ++j)
      for (int64_t k = 0; k < a.cols; ++k) result(i, j) += a(i, k) * b(k, j);
  return result;
}

Matrix transposed(const Matrix& a) {
  Matrix result(a.cols, a.rows);
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t j = 0; j < a.cols; ++j) result(j, i) = a(i, j);
  return result;
}

// Everything that makes triplets singular: orthonormal vectors, descending values, w v = s u and wᵀ u = s v.
void check_triplets(const std::string& what, const SingularVectors& found, const Matrix& w, int64_t rank) {
  INFO(what);
  REQUIRE(int64_t(found.s.size()) == rank);
  const Matrix u = matrix_of(found.u, rank, w.rows), v = matrix_of(found.v, rank, w.cols);
  const Matrix uu = product(u, transposed(u)), vv = product(v, transposed(v));
  const Matrix wv = product(v, transposed(w)), wu = product(u, w);
  double worst = 0;
  for (int64_t i = 0; i < rank; ++i) {
    if (i > 0) CHECK(found.s[size_t(i)] <= found.s[size_t(i - 1)]);
    for (int64_t j = 0; j < rank; ++j) {
      worst = std::max(worst, std::abs(vv(i, j) - (i == j)));
      worst = std::max(worst, std::abs(uu(i, j) - (i == j)));
    }
    for (int64_t j = 0; j < w.rows; ++j)
      worst = std::max(worst, std::abs(wv(i, j) - found.s[size_t(i)] * u(i, j)) / found.s[0]);
    for (int64_t j = 0; j < w.cols; ++j)
      worst = std::max(worst, std::abs(wu(i, j) - found.s[size_t(i)] * v(i, j)) / found.s[0]);
  }
  CHECK(worst < 1e-11);
}

}  // namespace

TEST_CASE("svd: numpy.linalg.svd of a small matrix") {
  // numpy 2.4.6: np.linalg.svd([[1, 2, 3], [4, 5, 6], [7, 8, 10], [-2, 0, 1]], compute_uv=False)
  const double expected[] = {17.414163714532133, 2.3886961529850868, 0.20256557502845862};
  const std::vector<double> w{1, 2, 3, 4, 5, 6, 7, 8, 10, -2, 0, 1};
  const SingularVectors jacobi = jacobi_svd(w, 4, 3), lanczos = leading_singular_vectors(w, 4, 3, 3);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(jacobi.s[i] == doctest::Approx(expected[i]).epsilon(1e-13));
    CHECK(lanczos.s[i] == doctest::Approx(expected[i]).epsilon(1e-13));
  }
}

TEST_CASE("svd: Jacobi takes a whole matrix apart") {
  Random random(1);
  for (const auto& [n, k] : {std::pair{1, 1}, {5, 3}, {7, 7}, {40, 23}}) {
    const Matrix w = random.matrix(n, k);
    const SingularVectors found = jacobi_svd(w.values, n, k);
    check_triplets("jacobi" + describe("n", n, "k", k), found, w, k);
  }
}

TEST_CASE("svd: the leading triplets are those of the whole") {
  Random random(2);
  for (const auto& [n, k] : {std::pair{1, 1}, {1, 6}, {6, 1}, {20, 33}, {33, 20}, {150, 90}, {64, 200}})
    for (const int64_t rank : {1, 4, 16, 90}) {
      if (rank > std::min(n, k)) continue;
      const Matrix w = random.matrix(n, k);
      const SingularVectors found = leading_singular_vectors(w.values, n, k, rank);
      check_triplets("lanczos" + describe("n", n, "k", k, "rank", rank), found, w, rank);
      const Matrix tall = n >= k ? w : transposed(w);
      const SingularVectors whole = jacobi_svd(tall.values, tall.rows, tall.cols);
      for (int64_t i = 0; i < rank; ++i) CHECK(std::abs(found.s[size_t(i)] - whole.s[size_t(i)]) < 1e-11 * whole.s[0]);
    }
}

TEST_CASE("svd: matrices of low rank, of zeros, and the identity") {
  Random random(3);
  const Matrix low = product(random.matrix(40, 2), random.matrix(2, 30));
  const SingularVectors found = leading_singular_vectors(low.values, 40, 30, 5);
  const SingularVectors two{{found.s[0], found.s[1]},
                            {found.u.begin(), found.u.begin() + 2 * 40},
                            {found.v.begin(), found.v.begin() + 2 * 30}};
  check_triplets("low rank", two, low, 2);
  CHECK(found.s[1] > 1e-3);
  CHECK(found.s[2] < 1e-12 * found.s[0]);
  Matrix identity(9, 9);
  for (int64_t i = 0; i < 9; ++i) identity(i, i) = 3;
  check_triplets("identity", leading_singular_vectors(identity.values, 9, 9, 4), identity, 4);
  const SingularVectors nothing = leading_singular_vectors(Matrix(6, 4).values, 6, 4, 2);
  CHECK(nothing.s == std::vector<double>{0, 0});
}

}  // namespace tunesmith::test
