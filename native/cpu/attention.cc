// Attention over packed sequences: who computes which block. Forward, every block of query rows stands alone. Backward,
// a block also adds to the gradients of the keys it sees; blocks are therefore dealt to parts, each with sums of its
// own for one key head of one sequence, and the parts are added in order. Results depend on the thread count (through
// the number of parts) but not on which thread runs what.
#include "cpu/attention.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/matmul.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/attention.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/attention_backward-inl.h"
#include "cpu/attention_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

void attention_forward_block(const AttentionTensors& tensors, AttentionHead head, int64_t first, bool pairs,
                             float* workspace) {
  auto run =
      tensors.q.dtype == DType::kFloat32 ? forward_block<FloatTiles<float>> : forward_block<FloatTiles<BFloat16>>;
#if TUNESMITH_PAIR_TILES
  if (pairs) run = forward_block<PairTiles>;
#endif
  (void)pairs;
  run(tensors, head, first, workspace);
}

void attention_backward_block(const AttentionTensors& tensors, AttentionHead head, int64_t first, bool pairs,
                              float* dk_sum, float* dv_sum, float* workspace) {
  auto run =
      tensors.q.dtype == DType::kFloat32 ? backward_block<FloatTiles<float>> : backward_block<FloatTiles<BFloat16>>;
#if TUNESMITH_PAIR_TILES
  if (pairs) run = backward_block<PairTiles>;
#endif
  (void)pairs;
  run(tensors, head, first, dk_sum, dv_sum, workspace);
}

void attention_write_keys(const Tensor& to, AttentionHead head, const AttentionShape& shape, int64_t first_row,
                          const float* sums, int64_t parts, int64_t part_stride, int64_t count) {
  const auto run = to.dtype == DType::kFloat32 ? write_key_gradient<float> : write_key_gradient<BFloat16>;
  run(to, head, shape, first_row, sums, parts, part_stride, count);
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(attention_forward_block);
HWY_EXPORT(attention_backward_block);
HWY_EXPORT(attention_write_keys);

namespace {

bool use_pairs(DType type) {
  static const bool available = __builtin_cpu_supports("avx512bf16");
  return type == DType::kBFloat16 && available;
}

int64_t query_rows(const AttentionTensors& t, int32_t sequence) {
  const int64_t tokens = t.batch->q_offsets[sequence + 1] - t.batch->q_offsets[sequence];
  return tokens * (t.shape.heads / t.shape.kv_heads);
}

void zero_rows(Tensor x, int64_t first, int64_t last) {
  for (int64_t r = first; r < last; ++r) std::memset(x.slice_rows(r, 1).data, 0, size_t(x.cols) * size_of(x.dtype));
}

// Rows of dk and dv that no sequence owns.
void zero_unowned_rows(const AttentionTensors& t) {
  std::vector<std::pair<int32_t, int32_t>> owned;
  for (int32_t b = 0; b < t.batch->sequences; ++b) owned.emplace_back(t.batch->k_offsets[b], t.batch->k_lengths[b]);
  std::sort(owned.begin(), owned.end());
  int64_t next = 0;
  for (const auto& [first, length] : owned) {
    zero_rows(t.dk, next, first);
    zero_rows(t.dv, next, first);
    next = std::max(next, int64_t(first) + length);
  }
  zero_rows(t.dk, next, t.dk.rows);
  zero_rows(t.dv, next, t.dv.rows);
}

struct Block {
  AttentionHead head;
  int64_t first;  // query row
  int64_t cost;   // about the keys it sees
};

// Keys that the row sees at most; rows need not be in order of position, but where they are, later blocks cost more.
int64_t block_cost(const AttentionTensors& t, int32_t sequence, int64_t first) {
  const int64_t group = t.shape.heads / t.shape.kv_heads;
  const int64_t last = std::min(first + kQueryBlock, query_rows(t, sequence)) - 1;
  const int64_t keys = t.batch->q_positions[t.batch->q_offsets[sequence] + last / group];
  // A window hides all but its own length and the tokens of the block.
  return (t.shape.window > 0 ? std::min(keys, t.shape.window + kQueryBlock / group) : keys) + kKeyBlock;
}

// Blocks of every sequence and key head, the dearest first.
std::vector<Block> forward_blocks(const AttentionTensors& t) {
  std::vector<Block> blocks;
  for (int32_t b = 0; b < t.batch->sequences; ++b)
    for (int64_t first = 0, rows = query_rows(t, b); first < rows; first += kQueryBlock)
      for (int32_t g = 0; g < t.shape.kv_heads; ++g) blocks.push_back({{b, g}, first, block_cost(t, b, first)});
  std::stable_sort(blocks.begin(), blocks.end(), [](const Block& a, const Block& b) { return a.cost > b.cost; });
  return blocks;
}

// One key head of one sequence, backward.
struct HeadWork {
  AttentionHead head;
  int64_t cost;
};

std::vector<HeadWork> backward_heads(const AttentionTensors& t) {
  std::vector<HeadWork> heads;
  for (int32_t b = 0; b < t.batch->sequences; ++b) {
    int64_t cost = 0;
    for (int64_t first = 0, rows = query_rows(t, b); first < rows; first += kQueryBlock)
      cost += block_cost(t, b, first);
    for (int32_t g = 0; g < t.shape.kv_heads; ++g) heads.push_back({{b, g}, cost});
  }
  std::stable_sort(heads.begin(), heads.end(), [](const HeadWork& a, const HeadWork& b) { return a.cost > b.cost; });
  return heads;
}

// Into how many parts to cut every head so that the threads finish together, at least to nine tenths: every part costs
// sums of dk and dv of its own, so as few as will do. Each item goes to the thread that is free first.
int64_t choose_parts(const std::vector<HeadWork>& heads, int threads) {
  constexpr int64_t kMostParts = 16;
  if (int64_t(heads.size()) >= 8 * threads) return 1;
  int64_t best = 1;
  double best_balance = 0;
  for (int64_t parts = 1; parts <= kMostParts; ++parts) {
    std::vector<double> busy(static_cast<size_t>(threads));
    double total = 0;
    for (const HeadWork& work : heads)
      for (int64_t part = 0; part < parts; ++part) {
        const double share = double(work.cost) / double(parts);
        *std::min_element(busy.begin(), busy.end()) += share;
        total += share;
      }
    const double balance = total / (*std::max_element(busy.begin(), busy.end()) * threads);
    if (balance > best_balance + 0.01) best = parts, best_balance = balance;
    if (balance >= 0.9) break;
  }
  return best;
}

// Block `index` of a head belongs to this part: to and fro, so that cheap and dear blocks spread evenly.
int64_t part_of(int64_t index, int64_t parts) {
  const int64_t at = index % (2 * parts);
  return at < parts ? at : 2 * parts - 1 - at;
}

// Where the sums of dk and dv lie behind the threads' workspaces. With one part per head a thread writes its sums out
// before its next head; else all are kept.
struct BackwardRoom {
  int64_t parts;
  std::vector<int64_t> starts;  // of each head's sums; with one part the single entry is what a thread's take
  int64_t floats;               // in all
};

BackwardRoom backward_room(const AttentionTensors& t, const std::vector<HeadWork>& heads, int64_t parts, int threads) {
  const int64_t workspaces = threads * backward_workspace(t.shape.head_dim), width = 2 * padded_head(t.shape.head_dim);
  int64_t longest = 0;
  for (int32_t b = 0; b < t.batch->sequences; ++b) longest = std::max(longest, int64_t(t.batch->k_lengths[b]));
  BackwardRoom room{parts, {}, workspaces};
  if (parts == 1) {
    room.starts = {longest * width};
    room.floats += threads * longest * width;
    return room;
  }
  for (const HeadWork& work : heads) {
    room.starts.push_back(room.floats - workspaces);
    room.floats += parts * t.batch->k_lengths[work.head.sequence] * width;
  }
  return room;
}

}  // namespace

// What one sequence of the longest kind takes: more sequences make more heads, which need fewer parts each.
size_t CpuBackend::attention_scratch_bytes(const AttentionShape& shape, DType, int64_t longest, bool training) const {
  if (!training) return size_t(threads_ * forward_workspace(shape.head_dim)) * sizeof(float);
  const int64_t parts = choose_parts(std::vector<HeadWork>(size_t(shape.kv_heads), {{0, 0}, 1}), threads_);
  const int64_t kept = parts == 1 ? threads_ : parts * shape.kv_heads;
  return size_t(threads_ * backward_workspace(shape.head_dim) + kept * 2 * longest * padded_head(shape.head_dim)) *
         sizeof(float);
}

void CpuBackend::attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionBatch& batch,
                                   const AttentionShape& shape) {
  const AttentionTensors tensors{q, k, v, out, lse, {}, {}, {}, {}, &batch, shape};
  const bool pairs = use_pairs(q.dtype);
  const int64_t room = forward_workspace(shape.head_dim);
  matmuls_->forget_held_weights();
  float* workspace = reinterpret_cast<float*>(scratch_.reserve(size_t(threads_ * room) * sizeof(float)).data);
  const std::vector<Block> blocks = forward_blocks(tensors);
  int64_t work = 0;
  for (const Block& block : blocks) work += block.cost * shape.head_dim;
  parallel_items(work < kSerialElements ? 1 : threads_, int64_t(blocks.size()), [&](int thread, int64_t item) {
    const Block& block = blocks[size_t(item)];
    HWY_DYNAMIC_DISPATCH(attention_forward_block)
    (tensors, block.head, block.first, pairs, workspace + thread * room);
  });
  zero_rows(out, batch.q_offsets[batch.sequences], out.rows);
  zero_rows(lse, batch.q_offsets[batch.sequences], lse.rows);
}

void CpuBackend::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
                                    Tensor k, Tensor v, const AttentionBatch& batch, const AttentionShape& shape) {
  const AttentionTensors tensors{q, k, v, out, lse, dq, dk, dv, dout, &batch, shape};
  const bool pairs = use_pairs(q.dtype);
  const std::vector<HeadWork> heads = backward_heads(tensors);
  // As many parts as balance asks for and the planned scratch has room for.
  BackwardRoom room = backward_room(tensors, heads, choose_parts(heads, threads_), threads_);
  while (room.parts > 1 && scratch_.planned() > 0 && size_t(room.floats) * sizeof(float) > scratch_.planned())
    room = backward_room(tensors, heads, room.parts - 1, threads_);
  const int64_t parts = room.parts;
  matmuls_->forget_held_weights();
  float* workspace = reinterpret_cast<float*>(scratch_.reserve(size_t(room.floats) * sizeof(float)).data);
  float* all_sums = workspace + threads_ * backward_workspace(shape.head_dim);

  const auto length_of = [&](const HeadWork& work) {
    return batch.k_lengths[work.head.sequence] * padded_head(shape.head_dim);  // floats of dk or dv of one part
  };
  const auto write_keys = [&](const HeadWork& work, const float* from) {
    const int64_t first = batch.k_offsets[work.head.sequence], count = batch.k_lengths[work.head.sequence];
    const auto write = HWY_DYNAMIC_DISPATCH(attention_write_keys);
    const int64_t sums = length_of(work);
    write(dk, work.head, shape, first, from, parts, 2 * sums, count);
    write(dv, work.head, shape, first, from + sums, parts, 2 * sums, count);
  };
  parallel_items(threads_, parts * int64_t(heads.size()), [&](int thread, int64_t item) {
    const size_t index_of_head = size_t(item / parts);
    const HeadWork& work = heads[index_of_head];
    const int64_t part = item % parts, rows = query_rows(tensors, work.head.sequence), sums = length_of(work);
    float* dk_sum = all_sums + (parts == 1 ? thread * room.starts[0] : room.starts[index_of_head] + part * 2 * sums);
    float* dv_sum = dk_sum + sums;
    std::fill_n(dk_sum, 2 * sums, 0.0f);
    for (int64_t first = 0, index = 0; first < rows; first += kQueryBlock, ++index)
      if (part_of(index, parts) == part) HWY_DYNAMIC_DISPATCH(attention_backward_block)
    (tensors, work.head, first, pairs, dk_sum, dv_sum, workspace + thread * backward_workspace(shape.head_dim));
    if (parts == 1) write_keys(work, dk_sum);
  });
  if (parts > 1)
    parallel_items(threads_, int64_t(heads.size()),
                   [&](int, int64_t head) { write_keys(heads[size_t(head)], all_sums + room.starts[size_t(head)]); });
  zero_rows(dq, batch.q_offsets[batch.sequences], dq.rows);
  zero_unowned_rows(tensors);
}

}  // namespace tunesmith::cpu
#endif
