// One block of query rows against all keys it sees, backward. Weights are recomputed from the saved log-sum-exp:
//   p = exp(scale q·k - lse);  dv += p dout;  ds = scale p (dout·v - delta), delta = dout·out;  dq = ds k;  dk += ds q
// With a soft cap, p = exp(c - lse) of the capped score c, and ds has the factor 1 - (c / cap)².
// Tiles are transposed as in the forward pass.
#if defined(TUNESMITH_CPU_ATTENTION_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TUNESMITH_CPU_ATTENTION_BACKWARD_INL_H_
#undef TUNESMITH_CPU_ATTENTION_BACKWARD_INL_H_
#else
#define TUNESMITH_CPU_ATTENTION_BACKWARD_INL_H_
#endif

#include "cpu/attention_forward-inl.h"

HWY_BEFORE_NAMESPACE();
#if TUNESMITH_PAIR_TILES
#pragma GCC push_options
#pragma GCC target("avx512bf16")
#endif
namespace tunesmith::cpu::HWY_NAMESPACE {

// Two neighbouring rows (keys) of a transposed tile, stored as left operands of sums over queries: float32 rows of
// kQueryBlock, or bfloat16 rows of as many, whose neighbours along the queries are the pairs.
template <class Tiles>
HWY_INLINE void put_query_rows(float* to, FloatVector first, FloatVector second) {
  const FloatTag d;
  if constexpr (Tiles::kPair == 1) {
    hn::StoreU(first, d, to);
    hn::StoreU(second, d, to + kQueryBlock);
  } else {
    auto* halves = reinterpret_cast<BFloat16*>(to);
    Tiles::put_half(halves, first);
    Tiles::put_half(halves + kQueryBlock, second);
  }
}

// to[ceil(width / pair)][padded head]: the block's rows of x, to be summed over; zero beyond the block.
template <class Tiles>
void pack_queries(float* to, const QueryBlock& block, const Tensor& x) {
  using In = typename Tiles::Input;
  const int64_t head_dim = block.tensors.shape.head_dim, padded = padded_head(head_dim);
  for (int64_t r = 0; r < block.width; r += Tiles::kPair, to += padded) {
    if (r >= block.count) {
      std::fill_n(to, padded, 0.0f);
      continue;
    }
    const In* second = r + 1 < block.count ? block.row<In>(x, r + 1) : nullptr;
    Tiles::pack_row(to, block.row<In>(x, r), second, head_dim);
    std::fill(to + head_dim, to + padded, 0.0f);
  }
}

// What every score of a query row needs: lse, and delta = dout·out, summed over the head in the order of dout·v, so
// that the two cancel exactly where a row sees one key only.
struct RowStatistics {
  alignas(64) float lse[kQueryBlock], delta[kQueryBlock];

  // douts and outs [head_dim / pair, kQueryBlock]: the block's rows, transposed.
  template <class Tiles>
  void read(const QueryBlock& block, const float* douts, const float* outs) {
    const FloatTag d;
    std::fill_n(lse, kQueryBlock, 0.0f);
    for (int64_t r = 0; r < block.count; ++r)
      lse[r] = block.tensors.lse.row<float>(block.token(r))[block.query_head(r)];
    const int64_t steps = block.tensors.shape.head_dim / Tiles::kPair;
    for (int64_t lane = 0; lane < block.width; lane += kLanes) {
      auto sum = hn::Zero(d);
      for (int64_t i = 0; i < steps; ++i) {
        const int64_t at = i * kQueryBlock + lane;
        sum = Tiles::multiply_add(hn::Load(d, outs + at), hn::Load(d, douts + at), sum);
      }
      hn::Store(sum, d, delta + lane);
    }
  }
};

// From raw or capped scores and dout·v of a tile: p and ds as left operands of the sums over queries, and ds as left
// operand of the sum over keys.
template <class Tiles, Sight kSight, bool kCapped>
void gradient_tile(float* p_rows, float* ds_rows, float* ds_columns, const float* scores, const float* dp,
                   const RowStatistics& statistics, const QueryBlock& block, int64_t key, int64_t count) {
  const FloatTag d;
  const AttentionShape& shape = block.tensors.shape;
  const auto scale = hn::Set(d, float(shape.scale)), per_cap = hn::Set(d, float(1 / shape.softcap));
  for (int64_t lane = 0; lane < block.width; lane += kLanes) {
    const auto lse = hn::Load(d, statistics.lse + lane), delta = hn::Load(d, statistics.delta + lane);
    const auto one_row = [&](int64_t i, FloatVector& p, FloatVector& ds) HWY_ATTR {
      const auto score = hn::Load(d, scores + i * kQueryBlock + lane);
      auto slope = scale;
      if constexpr (kCapped) {
        const auto share = hn::Mul(score, per_cap);
        slope = hn::Mul(scale, hn::NegMulAdd(share, share, hn::Set(d, 1.0f)));
        p = exp_negative(hn::Sub(score, lse));
      } else {
        p = exp_negative(hn::MulSub(score, scale, lse));
      }
      if constexpr (kSight != Sight::kAll) p = hn::IfThenZeroElse(unseen<kSight>(block, lane, key + i), p);
      ds = hn::Mul(hn::Mul(p, slope), hn::Sub(hn::Load(d, dp + i * kQueryBlock + lane), delta));
    };
    for (int64_t i = 0; i < count; i += 2) {
      FloatVector p0, ds0, p1 = hn::Zero(d), ds1 = p1;
      one_row(i, p0, ds0);
      if (i + 1 < count) one_row(i + 1, p1, ds1);
      const int64_t at = (i * kQueryBlock + lane) / Tiles::kPair;
      put_query_rows<Tiles>(p_rows + at, p0, p1);
      put_query_rows<Tiles>(ds_rows + at, ds0, ds1);
      if constexpr (Tiles::kPair > 1) Tiles::put_rows(ds_columns + i / Tiles::kPair * kQueryBlock + lane, ds0, ds1);
    }
  }
}

template <class Tiles, bool kCapped>
auto gradient_of(Sight sight) {
  return sight == Sight::kAll      ? gradient_tile<Tiles, Sight::kAll, kCapped>
         : sight == Sight::kCausal ? gradient_tile<Tiles, Sight::kCausal, kCapped>
                                   : gradient_tile<Tiles, Sight::kWindow, kCapped>;
}

// dq of the block; dk_sum, dv_sum [keys of the sequence, padded head] += its share.
template <class Tiles>
void backward_block(const AttentionTensors& tensors, AttentionHead head, int64_t first, float* dk_sum, float* dv_sum,
                    float* workspace) {
  using In = typename Tiles::Input;
  constexpr int64_t kPair = Tiles::kPair, kTile = kKeyBlock * kQueryBlock;
  const QueryBlock block(tensors, head, first);
  const int64_t head_dim = tensors.shape.head_dim, padded = padded_head(head_dim), steps = head_dim / kPair;
  float* queries_t = workspace;                                // [head_dim / pair, kQueryBlock]
  float* douts_t = queries_t + padded * kQueryBlock;           // [head_dim / pair, kQueryBlock]
  float* queries = douts_t + padded * kQueryBlock;             // [kQueryBlock / pair, padded]
  float* douts = queries + padded * kQueryBlock;               // [kQueryBlock / pair, padded]
  float* dq = douts + padded * kQueryBlock;                    // [kQueryBlock, padded]
  float* keys = dq + padded * kQueryBlock;                     // [kKeyBlock / pair, padded]
  float* converted = keys + padded * kKeyBlock;                // [kKeyBlock, padded]
  float* scores = converted + padded * kKeyBlock;              // [kKeyBlock, kQueryBlock]
  float* dp = scores + kTile;                                  // [kKeyBlock, kQueryBlock]
  float* p_rows = dp + kTile;                                  // [kKeyBlock, kQueryBlock / pair]
  float* ds_rows = p_rows + kTile;                             // [kKeyBlock, kQueryBlock / pair]
  float* ds_columns = kPair == 1 ? ds_rows : ds_rows + kTile;  // [kKeyBlock / pair, kQueryBlock]
  constexpr int64_t kRowBytes = kQueryBlock * int64_t(sizeof(float));

  RowStatistics statistics;
  pack_transposed<Tiles>(douts_t, block, tensors.dout);
  pack_transposed<Tiles>(queries_t, block, tensors.out);
  statistics.read<Tiles>(block, douts_t, queries_t);
  pack_transposed<Tiles>(queries_t, block, tensors.q);
  pack_queries<Tiles>(queries, block, tensors.q);
  pack_queries<Tiles>(douts, block, tensors.dout);
  const bool capped = tensors.shape.softcap != 0;
  const int64_t begin = block.first_visible;
  for (int64_t key = begin; key < block.keys; key += kKeyBlock) {
    const int64_t count = std::min(kKeyBlock, block.keys - key);
    {
      const KeyOperand<Tiles> k(converted, block, tensors.k, key, count);
      multiply<Tiles>(scores, kQueryBlock, false, k.data, k.row_bytes, sizeof(float), queries_t, kQueryBlock, count,
                      block.width, steps);
    }
    {
      const KeyOperand<Tiles> v(converted, block, tensors.v, key, count);
      multiply<Tiles>(dp, kQueryBlock, false, v.data, v.row_bytes, sizeof(float), douts_t, kQueryBlock, count,
                      block.width, steps);
    }
    if (capped) cap_scores(scores, block, count);
    const Sight sight = block.sight(key, count);
    const auto gradient = capped ? gradient_of<Tiles, true>(sight) : gradient_of<Tiles, false>(sight);
    gradient(p_rows, ds_rows, ds_columns, scores, dp, statistics, block, key, count);
    multiply<Tiles>(dv_sum + key * padded, padded, true, reinterpret_cast<const char*>(p_rows), kRowBytes / kPair,
                    sizeof(float), douts, padded, count, padded, block.width / kPair);
    multiply<Tiles>(dk_sum + key * padded, padded, true, reinterpret_cast<const char*>(ds_rows), kRowBytes / kPair,
                    sizeof(float), queries, padded, count, padded, block.width / kPair);
    pack_keys<Tiles>(keys, block, tensors.k, key, count);
    multiply<Tiles>(dq, padded, key > begin, reinterpret_cast<const char*>(ds_columns), sizeof(float), kRowBytes, keys,
                    padded, block.count, padded, (count + kPair - 1) / kPair);
  }
  for (int64_t r = 0; r < block.count; ++r) {
    In* to = block.row<In>(tensors.dq, r);
    const float* from = dq + r * padded;
    for_lanes(0, head_dim, [&](auto lanes, int64_t i) HWY_ATTR { store(lanes, load(lanes, from + i), to + i); });
  }
}

// to[first + i] = Σ over parts of sums[part][i], for keys [0, count) of one head.
template <class In>
void write_key_gradient(const Tensor& to, AttentionHead head, const AttentionShape& shape, int64_t first_row,
                        const float* sums, int64_t parts, int64_t part_stride, int64_t count) {
  const int64_t padded = padded_head(shape.head_dim);
  for (int64_t key = 0; key < count; ++key) {
    In* row = to.row<In>(first_row + key) + head.kv_head * shape.head_dim;
    const float* from = sums + key * padded;
    for_lanes(0, shape.head_dim, [&](auto d, int64_t i) HWY_ATTR {
      auto sum = load(d, from + i);
      for (int64_t part = 1; part < parts; ++part) sum = hn::Add(sum, load(d, from + part * part_stride + i));
      store(d, sum, row + i);
    });
  }
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
#if TUNESMITH_PAIR_TILES
#pragma GCC pop_options
#endif
HWY_AFTER_NAMESPACE();

#endif
