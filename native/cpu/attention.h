// What the scheduling of attention (attention.cc) and its kernels (attention_forward-inl.h, attention_backward-inl.h)
// agree on.
#pragma once

#include <cstdint>

#include "backend/backend.h"

namespace tunesmith::cpu {

// Query rows and keys of a tile. A query row is one head of one token: the heads that share a key head lie together,
// token by token, so row r of sequence b and key head g is token q_offsets[b] + r / group, head g · group + r % group.
constexpr int64_t kQueryBlock = 64;
constexpr int64_t kKeyBlock = 64;

struct AttentionTensors {
  Tensor q, k, v, out, lse;  // forward
  Tensor dq, dk, dv, dout;   // backward only
  const AttentionBatch* batch;
  AttentionShape shape;
};

// One key head of one sequence.
struct AttentionHead {
  int32_t sequence, kv_head;
};

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Width of a head's rows in tiles: whole vectors of the widest instruction set.
constexpr int64_t padded_head(int64_t head_dim) { return round_up(head_dim, 16); }

// Floats of working memory for one query block.
constexpr int64_t forward_workspace(int64_t head_dim) {
  const int64_t width = padded_head(head_dim);
  return 4 * kQueryBlock * width + 2 * kKeyBlock * kQueryBlock;
}
constexpr int64_t backward_workspace(int64_t head_dim) {
  const int64_t width = padded_head(head_dim);
  return 8 * kQueryBlock * width + 5 * kKeyBlock * kQueryBlock;
}

}  // namespace tunesmith::cpu
