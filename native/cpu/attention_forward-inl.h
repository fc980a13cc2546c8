// One block of query rows against all keys it sees, with the online softmax of arXiv 2205.14135. Scores are held
// transposed, keys down and queries across: maxima and sums over the keys are then plain vector operations, keys are
// multiplied where they lie, and the weights come out in the order their product with the values reads them.
#if defined(TUNESMITH_CPU_ATTENTION_FORWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TUNESMITH_CPU_ATTENTION_FORWARD_INL_H_
#undef TUNESMITH_CPU_ATTENTION_FORWARD_INL_H_
#else
#define TUNESMITH_CPU_ATTENTION_FORWARD_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/attention_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
#if TUNESMITH_PAIR_TILES
#pragma GCC push_options
#pragma GCC target("avx512bf16")
#endif
namespace tunesmith::cpu::HWY_NAMESPACE {

// Of a tile's keys: every row sees all; some row does not see the last ones; or not the first ones, for its window.
enum class Sight { kAll, kCausal, kWindow };

// The query rows [first, first + count) of one sequence and key head.
struct QueryBlock {
  const AttentionTensors& tensors;
  AttentionHead head;
  int64_t first, count;
  int64_t group;      // query heads per key head
  int64_t width;      // count, rounded up to whole vectors
  int64_t first_key;  // row of k and v
  // Rows see keys [first_visible, keys), and every row of the block [common_first, common_keys).
  int64_t first_visible, keys, common_first, common_keys;
  alignas(64) int32_t positions[kQueryBlock];  // last key each row sees; -1 in rows beyond count

  QueryBlock(const AttentionTensors& t, AttentionHead h, int64_t begin)
      : tensors(t), head(h), first(begin), group(t.shape.heads / t.shape.kv_heads) {
    const AttentionBatch& batch = *t.batch;
    const int64_t tokens = batch.q_offsets[h.sequence + 1] - batch.q_offsets[h.sequence];
    count = std::min(kQueryBlock, tokens * group - first);
    width = round_up(count, kLanes);
    first_key = batch.k_offsets[h.sequence];
    const int32_t last_key = batch.k_lengths[h.sequence] - 1;
    int32_t least = last_key, most = -1;
    for (int64_t r = 0; r < count; ++r) {
      positions[r] = std::min(batch.q_positions[token(r)], last_key);
      least = std::min(least, positions[r]);
      most = std::max(most, positions[r]);
    }
    std::fill(positions + count, positions + kQueryBlock, -1);
    common_keys = count == width ? least + 1 : 0;
    keys = most + 1;
    const int64_t window = t.shape.window > 0 ? t.shape.window : keys;
    first_visible = std::max<int64_t>(0, least + 1 - window);
    common_first = std::max<int64_t>(0, most + 1 - window);
  }

  // How the rows see keys [key, key + n).
  Sight sight(int64_t key, int64_t n) const {
    if (key < common_first) return Sight::kWindow;
    return key + n > common_keys ? Sight::kCausal : Sight::kAll;
  }

  int64_t token(int64_t r) const { return tensors.batch->q_offsets[head.sequence] + (first + r) / group; }
  int64_t query_head(int64_t r) const { return head.kv_head * group + (first + r) % group; }

  template <class T>
  T* row(const Tensor& x, int64_t r) const {
    return x.row<T>(token(r)) + query_head(r) * tensors.shape.head_dim;
  }
  template <class T>
  T* key_row(const Tensor& x, int64_t key) const {
    return x.row<T>(first_key + key) + head.kv_head * tensors.shape.head_dim;
  }
};

// to[head_dim / pair][kQueryBlock]: the block's rows of x, transposed.
template <class Tiles>
void pack_transposed(float* to, const QueryBlock& block, const Tensor& x) {
  const int64_t steps = block.tensors.shape.head_dim / Tiles::kPair;
  if (block.count < block.width)
    for (int64_t i = 0; i < steps; ++i)
      std::fill(to + i * kQueryBlock + block.count, to + i * kQueryBlock + block.width, 0.0f);
  using In = typename Tiles::Input;
  int64_t r = 0;
  for (; r + 4 <= block.count; r += 4) {
    const In* rows[4];
    for (int i = 0; i < 4; ++i) rows[i] = block.row<In>(x, r + i);
    transpose_four<Tiles>(to + r, rows, steps);
  }
  for (; r < block.count; ++r) {
    const In* row = block.row<In>(x, r);
    for (int64_t i = 0; i < steps; ++i) to[i * kQueryBlock + r] = Tiles::element(row, i);
  }
}

// to[ceil(count / pair)][padded head]: rows of keys or values, to be summed over.
template <class Tiles>
void pack_keys(float* to, const QueryBlock& block, const Tensor& x, int64_t key, int64_t count) {
  using In = typename Tiles::Input;
  const int64_t head_dim = block.tensors.shape.head_dim, padded = padded_head(head_dim);
  for (int64_t i = 0; i < count; i += Tiles::kPair, to += padded) {
    const In* second = i + 1 < count ? block.key_row<In>(x, key + i + 1) : nullptr;
    Tiles::pack_row(to, block.key_row<In>(x, key + i), second, head_dim);
    std::fill(to + head_dim, to + padded, 0.0f);
  }
}

// Keys or values as left operands of a product: where they lie if their elements are the tile's, else converted.
template <class Tiles>
struct KeyOperand {
  const char* data;
  int64_t row_bytes;

  KeyOperand(float* room, const QueryBlock& block, const Tensor& x, int64_t key, int64_t count) {
    using In = typename Tiles::Input;
    if constexpr (Tiles::kPair * sizeof(In) == sizeof(float)) {
      data = reinterpret_cast<const char*>(block.key_row<In>(x, key));
      row_bytes = x.stride * int64_t(sizeof(In));
    } else {
      pack_keys<Tiles>(room, block, x, key, count);
      data = reinterpret_cast<const char*>(room);
      row_bytes = padded_head(block.tensors.shape.head_dim) * int64_t(sizeof(float));
    }
  }
};

// Lanes of the rows that do not see this key.
template <Sight kSight>
HWY_INLINE hn::Mask<FloatTag> unseen(const QueryBlock& block, int64_t lane, int64_t key) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  const auto position = hn::Load(di, block.positions + lane), keys = hn::Set(di, int32_t(key));
  auto mask = hn::Gt(keys, position);
  if constexpr (kSight == Sight::kWindow) {
    const auto before = hn::Sub(position, hn::Set(di, block.tensors.shape.window));  // the last key before the window
    mask = hn::Or(mask, hn::Not(hn::Gt(keys, before)));
  }
  return hn::RebindMask(d, mask);
}

// Raw scores become cap · tanh(scale · score / cap).
inline void cap_scores(float* scores, const QueryBlock& block, int64_t count) {
  const FloatTag d;
  const auto cap = hn::Set(d, float(block.tensors.shape.softcap));
  const auto share = hn::Set(d, float(block.tensors.shape.scale / block.tensors.shape.softcap));
  for (int64_t i = 0; i < count; ++i)
    for (int64_t lane = 0; lane < block.width; lane += kLanes) {
      float* score = scores + i * kQueryBlock + lane;
      hn::Store(hn::Mul(cap, tanh(d, hn::Mul(hn::Load(d, score), share))), d, score);
    }
}

struct OnlineSoftmax {
  alignas(64) float maximum[kQueryBlock], sum[kQueryBlock], rescale[kQueryBlock];
};

// Turns a tile of scores into weights for its product with the values, and updates maxima and sums.
template <class Tiles, Sight kSight>
void softmax_tile(float* weights, float* scores, OnlineSoftmax& state, const QueryBlock& block, int64_t key,
                  int64_t count, float scale) {
  const FloatTag d;
  const auto scales = hn::Set(d, scale);
  const auto hidden = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (int64_t lane = 0; lane < block.width; lane += kLanes) {
    const auto before = hn::Load(d, state.maximum + lane);
    auto maximum = before;
    for (int64_t i = 0; i < count; ++i) {
      float* score = scores + i * kQueryBlock + lane;
      auto s = hn::Load(d, score);
      if constexpr (kSight != Sight::kAll) {
        s = hn::IfThenElse(unseen<kSight>(block, lane, key + i), hidden, s);
        hn::Store(s, d, score);
      }
      maximum = hn::Max(maximum, hn::Mul(s, scales));
    }
    auto sum = hn::Zero(d);
    for (int64_t i = 0; i < count; i += 2) {
      const float* score = scores + i * kQueryBlock + lane;
      const auto first = exp_negative(hn::MulSub(hn::Load(d, score), scales, maximum));
      auto second = hn::Zero(d);
      if (i + 1 < count) second = exp_negative(hn::MulSub(hn::Load(d, score + kQueryBlock), scales, maximum));
      sum = hn::Add(sum, hn::Add(first, second));
      Tiles::put_rows(weights + i / Tiles::kPair * kQueryBlock + lane, first, second);
    }
    const auto rescale = exp_negative(hn::Sub(before, maximum));
    hn::Store(maximum, d, state.maximum + lane);
    hn::Store(rescale, d, state.rescale + lane);
    hn::Store(hn::MulAdd(hn::Load(d, state.sum + lane), rescale, sum), d, state.sum + lane);
  }
}

template <class Tiles>
void forward_block(const AttentionTensors& tensors, AttentionHead head, int64_t first, float* workspace) {
  using In = typename Tiles::Input;
  const FloatTag d;
  const QueryBlock block(tensors, head, first);
  const int64_t head_dim = tensors.shape.head_dim, padded = padded_head(head_dim);
  constexpr int64_t kRowBytes = kQueryBlock * int64_t(sizeof(float));
  float* queries = workspace;                         // [head_dim / pair, kQueryBlock]
  float* values = queries + padded * kQueryBlock;     // [kKeyBlock / pair, padded]
  float* converted = values + padded * kKeyBlock;     // [kKeyBlock, padded]
  float* out = converted + padded * kKeyBlock;        // [kQueryBlock, padded]
  float* scores = out + padded * kQueryBlock;         // [kKeyBlock, kQueryBlock]
  float* weights = scores + kKeyBlock * kQueryBlock;  // [kKeyBlock / pair, kQueryBlock]
  const bool capped = tensors.shape.softcap != 0;
  const float scale = capped ? 1.0f : float(tensors.shape.scale);
  OnlineSoftmax state;
  std::fill_n(state.maximum, kQueryBlock, -1e30f);  // finite: a row that sees no key of a tile gives it weight 0
  std::fill_n(state.sum, kQueryBlock, 0.0f);

  pack_transposed<Tiles>(queries, block, tensors.q);
  const int64_t begin = block.first_visible;
  for (int64_t key = begin; key < block.keys; key += kKeyBlock) {
    const int64_t count = std::min(kKeyBlock, block.keys - key);
    const KeyOperand<Tiles> keys(converted, block, tensors.k, key, count);
    multiply<Tiles>(scores, kQueryBlock, false, keys.data, keys.row_bytes, sizeof(float), queries, kQueryBlock, count,
                    block.width, head_dim / Tiles::kPair);
    if (capped) cap_scores(scores, block, count);
    const Sight sight = block.sight(key, count);
    const auto softmax = sight == Sight::kAll      ? softmax_tile<Tiles, Sight::kAll>
                         : sight == Sight::kCausal ? softmax_tile<Tiles, Sight::kCausal>
                                                   : softmax_tile<Tiles, Sight::kWindow>;
    softmax(weights, scores, state, block, key, count, scale);
    if (key > begin)
      for (int64_t r = 0; r < block.count; ++r) {
        if (state.rescale[r] == 1.0f) continue;
        const auto factor = hn::Set(d, state.rescale[r]);
        for (int64_t i = 0; i < padded; i += kLanes)
          hn::Store(hn::Mul(hn::Load(d, out + r * padded + i), factor), d, out + r * padded + i);
      }
    pack_keys<Tiles>(values, block, tensors.v, key, count);
    multiply<Tiles>(out, padded, key > begin, reinterpret_cast<const char*>(weights), sizeof(float), kRowBytes, values,
                    padded, block.count, padded, (count + Tiles::kPair - 1) / Tiles::kPair);
  }
  for (int64_t r = 0; r < block.count; ++r) {
    const float total = state.sum[r], factor = 1 / total;
    In* to = block.row<In>(tensors.out, r);
    const float* from = out + r * padded;
    for_lanes(0, head_dim, [&](auto lanes, int64_t i) HWY_ATTR {
      store(lanes, hn::Mul(load(lanes, from + i), hn::Set(lanes, factor)), to + i);
    });
    tensors.lse.row<float>(block.token(r))[block.query_head(r)] = state.maximum[r] + std::log(total);
  }
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
#if TUNESMITH_PAIR_TILES
#pragma GCC pop_options
#endif
HWY_AFTER_NAMESPACE();

#endif
