#include "model/svd.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/rng.h"

namespace tunesmith {

namespace {

using Vector = std::vector<double>;

// Partial sums in several lanes, so that the compiler may use vectors: the order is still fixed.
double dot(const double* a, const double* b, int64_t n) {
  constexpr int64_t kLanes = 8;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; lane++) lanes[lane] += a[i + lane] * b[i + lane];
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  for (; i < n; i++) sum += a[i] * b[i];
  return sum;
}

void add(double* to, const double* from, double factor, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] += factor * from[i];
}

double norm(const Vector& x) { return std::sqrt(dot(x.data(), x.data(), int64_t(x.size()))); }

// Takes the components along `basis` out of x, twice: once leaves what cancellation has made.
void orthogonalise(Vector& x, const std::vector<Vector>& basis) {
  for (int pass = 0; pass < 2; pass++)
    for (const Vector& b : basis)
      add(x.data(), b.data(), -dot(b.data(), x.data(), int64_t(x.size())), int64_t(x.size()));
}

// A unit vector orthogonal to `basis`, where the bidiagonalisation has met an invariant subspace.
Vector fresh(int64_t size, const std::vector<Vector>& basis, uint64_t stream) {
  Vector x(static_cast<size_t>(size));
  for (uint64_t attempt = 0;; attempt++) {
    for (size_t i = 0; i < x.size(); i++) x[i] = philox_normal(attempt, stream, i);
    orthogonalise(x, basis);
    const double length = norm(x);
    if (length < 1e-8) continue;
    for (double& value : x) value /= length;
    return x;
  }
}

// Of the upper bidiagonal matrix with the given diagonals.
SingularVectors bidiagonal_svd(const Vector& diagonal, const Vector& above) {
  const int64_t m = int64_t(diagonal.size());
  Vector dense(static_cast<size_t>(m * m));
  for (int64_t i = 0; i < m; i++) {
    dense[size_t(i * m + i)] = diagonal[size_t(i)];
    if (i + 1 < m) dense[size_t(i * m + i + 1)] = above[size_t(i)];
  }
  return jacobi_svd(dense, m, m);
}

// rows of `parts` combined: Σ_j weights[j] · basis[j]
void combine(double* to, const double* weights, const std::vector<Vector>& basis, int64_t size) {
  for (size_t j = 0; j < basis.size(); j++) add(to, basis[j].data(), weights[j], size);
}

// n >= k.
SingularVectors lanczos(const Vector& w, int64_t n, int64_t k, int64_t rank) {
  std::vector<Vector> us, vs;  // orthonormal
  Vector diagonal, above;      // W V = U B
  double largest = 0;
  vs.push_back(fresh(k, {}, 0));
  int64_t next_check = std::min(k, 3 * rank + 20);
  for (;;) {
    const int64_t step = int64_t(us.size());
    Vector u(static_cast<size_t>(n));
    for (int64_t row = 0; row < n; row++) u[size_t(row)] = dot(w.data() + row * k, vs.back().data(), k);
    if (step > 0) add(u.data(), us.back().data(), -above.back(), n);
    orthogonalise(u, us);
    double alpha = norm(u);
    largest = std::max(largest, alpha);
    if (alpha <= 1e-14 * largest) {
      alpha = 0;
      u = fresh(n, us, uint64_t(2 * step + 1));
    } else {
      for (double& value : u) value /= alpha;
    }
    us.push_back(std::move(u));
    diagonal.push_back(alpha);

    Vector v(static_cast<size_t>(k));
    for (int64_t row = 0; row < n; row++) add(v.data(), w.data() + row * k, us.back()[size_t(row)], k);
    add(v.data(), vs.back().data(), -alpha, k);
    orthogonalise(v, vs);
    double beta = int64_t(vs.size()) == k ? 0 : norm(v);
    const bool done = int64_t(vs.size()) == k;
    if (!done && beta <= 1e-14 * largest) {
      beta = 0;
      v = fresh(k, vs, uint64_t(2 * step + 2));
    } else if (!done) {
      for (double& value : v) value /= beta;
    }

    if (done || int64_t(us.size()) >= next_check) {
      const int64_t m = int64_t(us.size());
      const SingularVectors small = bidiagonal_svd(diagonal, above);
      // What is left over of a triplet is beta times the last component of its left vector.
      double worst = 0;
      for (int64_t i = 0; i < rank; i++) worst = std::max(worst, beta * std::abs(small.u[size_t(i * m + m - 1)]));
      if (done || worst <= 1e-12 * small.s[0]) {
        SingularVectors result{Vector(small.s.begin(), small.s.begin() + rank), Vector(size_t(rank * n)),
                               Vector(size_t(rank * k))};
        for (int64_t i = 0; i < rank; i++) {
          combine(result.u.data() + i * n, small.u.data() + i * m, us, n);
          combine(result.v.data() + i * k, small.v.data() + i * m, vs, k);
        }
        return result;
      }
      next_check = std::min(k, m + m / 2);
    }
    above.push_back(beta);
    vs.push_back(std::move(v));
  }
}

}  // namespace

SingularVectors jacobi_svd(const Vector& w, int64_t n, int64_t k) {
  // Columns of w as rows, and the same rotations applied to the identity.
  std::vector<Vector> columns(static_cast<size_t>(k), Vector(static_cast<size_t>(n)));
  std::vector<Vector> right(static_cast<size_t>(k), Vector(static_cast<size_t>(k)));
  for (int64_t c = 0; c < k; c++) {
    for (int64_t r = 0; r < n; r++) columns[size_t(c)][size_t(r)] = w[size_t(r * k + c)];
    right[size_t(c)][size_t(c)] = 1;
  }
  const auto rotate = [](Vector& a, Vector& b, double cosine, double sine) {
    for (size_t i = 0; i < a.size(); i++) {
      const double x = a[i], y = b[i];
      a[i] = cosine * x - sine * y;
      b[i] = sine * x + cosine * y;
    }
  };
  // Dot products of n terms are not more exact than this, and columns far below the largest are rounding noise, whose
  // angles mean nothing: without both bounds the rotations would never end.
  const double orthogonal = 1e-15 * std::max(4.0, std::sqrt(double(n)));
  double largest = 0;
  for (const Vector& column : columns) largest = std::max(largest, dot(column.data(), column.data(), n));
  constexpr int kMostSweeps = 60;  // about ten are needed
  bool rotated = true;
  for (int sweep = 0; rotated && sweep < kMostSweeps; sweep++) {
    rotated = false;
    for (int64_t p = 0; p + 1 < k; p++)
      for (int64_t q = p + 1; q < k; q++) {
        Vector &a = columns[size_t(p)], &b = columns[size_t(q)];
        const double aa = dot(a.data(), a.data(), n), bb = dot(b.data(), b.data(), n), ab = dot(a.data(), b.data(), n);
        if (std::min(aa, bb) <= 1e-30 * largest || std::abs(ab) <= orthogonal * std::sqrt(aa * bb)) continue;
        rotated = true;
        const double zeta = (bb - aa) / (2 * ab);
        const double tangent = std::copysign(1, zeta) / (std::abs(zeta) + std::sqrt(1 + zeta * zeta));
        const double cosine = 1 / std::sqrt(1 + tangent * tangent), sine = cosine * tangent;
        rotate(a, b, cosine, sine);
        rotate(right[size_t(p)], right[size_t(q)], cosine, sine);
      }
  }
  Vector lengths(static_cast<size_t>(k));
  for (int64_t c = 0; c < k; c++) lengths[size_t(c)] = norm(columns[size_t(c)]);
  std::vector<size_t> order(static_cast<size_t>(k));
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return lengths[a] > lengths[b]; });
  SingularVectors result;
  for (const size_t c : order) {
    result.s.push_back(lengths[c]);
    for (const double value : columns[c]) result.u.push_back(lengths[c] > 0 ? value / lengths[c] : 0);
    result.v.insert(result.v.end(), right[c].begin(), right[c].end());
  }
  return result;
}

SingularVectors leading_singular_vectors(const Vector& w, int64_t n, int64_t k, int64_t rank) {
  if (n >= k) return lanczos(w, n, k, rank);
  Vector transposed(w.size());
  for (int64_t row = 0; row < n; row++)
    for (int64_t col = 0; col < k; col++) transposed[size_t(col * n + row)] = w[size_t(row * k + col)];
  SingularVectors result = lanczos(transposed, k, n, rank);
  std::swap(result.u, result.v);
  return result;
}

}  // namespace tunesmith
