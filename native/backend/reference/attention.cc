// Causal attention over packed sequences, one query at a time. Scores of one query are held, never a matrix of them.
#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

namespace {

// Keys [first, end) that query row i of sequence b sees, counted from the sequence's first.
struct Visible {
  int64_t first, end;

  Visible(const AttentionBatch& batch, const AttentionShape& shape, int32_t b, int64_t i)
      : end(std::min(batch.q_positions[i] + 1, batch.k_lengths[b])) {
    first = shape.window > 0 ? std::max<int64_t>(0, end - shape.window) : 0;
  }
};

struct Score {
  double value, derivative;  // by q·k

  Score(double product, const AttentionShape& shape) : value(shape.scale * product), derivative(shape.scale) {
    if (shape.softcap == 0) return;
    const double share = std::tanh(value / shape.softcap);
    value = shape.softcap * share;
    derivative *= 1 - share * share;
  }
};

template <class T>
double dot(const T* a, const T* b, int64_t n) {
  double sum = 0;
  for (int64_t d = 0; d < n; ++d) sum += double(a[d]) * b[d];
  return sum;
}

template <class T>
void zero_rows(Tensor x, int64_t first) {
  for (int64_t i = first; i < x.rows; ++i) std::fill_n(x.row<T>(i), x.cols, T(0));
}

void check(Tensor q, Tensor k, Tensor v, const AttentionShape& shape) {
  assert(shape.heads % shape.kv_heads == 0);
  assert(q.cols == int64_t(shape.heads) * shape.head_dim && k.cols == int64_t(shape.kv_heads) * shape.head_dim);
  assert(v.cols == k.cols && v.rows == k.rows);
  (void)q, (void)k, (void)v, (void)shape;
}

}  // namespace

template <class T>
void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionBatch& batch,
                       const AttentionShape& shape) {
  check(q, k, v, shape);
  assert(out.rows == q.rows && out.cols == q.cols && lse.rows == q.rows && lse.cols == shape.heads);
  const int32_t head_dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  std::vector<double> scores, sum(head_dim);
  for (int32_t b = 0; b < batch.sequences; ++b) {
    for (int64_t i = batch.q_offsets[b]; i < batch.q_offsets[b + 1]; ++i) {
      const Visible keys(batch, shape, b, i);
      const int64_t first = batch.k_offsets[b] + keys.first, count = keys.end - keys.first;
      scores.resize(count);
      for (int32_t h = 0; h < shape.heads; ++h) {
        const T* query = q.row<T>(i) + h * head_dim;
        const int64_t kv_column = int64_t(h / group) * head_dim;
        for (int64_t j = 0; j < count; ++j)
          scores[j] = Score(dot(query, k.row<T>(first + j) + kv_column, head_dim), shape).value;
        const double largest = *std::max_element(scores.begin(), scores.end());
        double total = 0;
        std::fill(sum.begin(), sum.end(), 0.0);
        for (int64_t j = 0; j < count; ++j) {
          const double weight = std::exp(scores[j] - largest);
          const T* value = v.row<T>(first + j) + kv_column;
          total += weight;
          for (int32_t d = 0; d < head_dim; ++d) sum[d] += weight * value[d];
        }
        for (int32_t d = 0; d < head_dim; ++d) out.row<T>(i)[h * head_dim + d] = T(sum[d] / total);
        lse.row<T>(i)[h] = T(largest + std::log(total));
      }
    }
  }
  zero_rows<T>(out, batch.q_offsets[batch.sequences]);
  zero_rows<T>(lse, batch.q_offsets[batch.sequences]);
}

// With p = exp(score - lse) and dp = dout · v: ds = p · (dp - dout · out), because Σ_j p_j dp_j = dout · out.
template <class T>
void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q, Tensor k,
                        Tensor v, const AttentionBatch& batch, const AttentionShape& shape) {
  check(q, k, v, shape);
  check(dq, dk, dv, shape);
  assert(dq.rows == q.rows && dk.rows == k.rows && dout.rows == q.rows && dout.cols == q.cols);
  assert(out.rows == q.rows && out.cols == q.cols && lse.rows == q.rows && lse.cols == shape.heads);
  const int32_t head_dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  zero_rows<T>(dq, 0);
  zero_rows<T>(dk, 0);
  zero_rows<T>(dv, 0);
  std::vector<double> dq_sum(head_dim), dk_sum, dv_sum;  // of one query; of one sequence and key head, [keys, D]
  for (int32_t b = 0; b < batch.sequences; ++b) {
    const int64_t first = batch.k_offsets[b], length = batch.k_lengths[b];
    for (int32_t kv = 0; kv < shape.kv_heads; ++kv) {
      const int64_t kv_column = int64_t(kv) * head_dim;
      dk_sum.assign(length * head_dim, 0.0);
      dv_sum.assign(length * head_dim, 0.0);
      for (int64_t i = batch.q_offsets[b]; i < batch.q_offsets[b + 1]; ++i) {
        for (int32_t h = kv * group; h < (kv + 1) * group; ++h) {
          const int64_t column = int64_t(h) * head_dim;
          const T* query = q.row<T>(i) + column;
          const T* gradient = dout.row<T>(i) + column;
          const double mean = dot(gradient, out.row<T>(i) + column, head_dim);
          std::fill(dq_sum.begin(), dq_sum.end(), 0.0);
          const Visible keys(batch, shape, b, i);
          for (int64_t j = keys.first; j < keys.end; ++j) {
            const T* key = k.row<T>(first + j) + kv_column;
            const T* value = v.row<T>(first + j) + kv_column;
            const Score score(dot(query, key, head_dim), shape);
            const double p = std::exp(score.value - lse.row<T>(i)[h]);
            const double ds = score.derivative * p * (dot(gradient, value, head_dim) - mean);
            for (int32_t d = 0; d < head_dim; ++d) {
              dq_sum[d] += ds * key[d];
              dk_sum[j * head_dim + d] += ds * query[d];
              dv_sum[j * head_dim + d] += p * gradient[d];
            }
          }
          for (int32_t d = 0; d < head_dim; ++d) dq.row<T>(i)[column + d] = T(dq_sum[d]);
        }
      }
      for (int64_t j = 0; j < length; ++j)
        for (int32_t d = 0; d < head_dim; ++d) {
          dk.row<T>(first + j)[kv_column + d] = T(dk_sum[j * head_dim + d]);
          dv.row<T>(first + j)[kv_column + d] = T(dv_sum[j * head_dim + d]);
        }
    }
  }
}

#define INSTANTIATE(T)                                                                                        \
  template void attention_forward<T>(Tensor, Tensor, Tensor, Tensor, Tensor, const AttentionBatch&,           \
                                     const AttentionShape&);                                                  \
  template void attention_backward<T>(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, \
                                      const AttentionBatch&, const AttentionShape&);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
