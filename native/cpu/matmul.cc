#include "cpu/matmul.h"

#include <omp.h>

#include <cstring>
#include <unordered_map>

#include "cpu/pack.h"
#include "cpu/parallel.h"

namespace tunesmith::cpu {

namespace {

using dnnl::memory;

memory::data_type type_of(DType type) {
  return type == DType::kBFloat16 ? memory::data_type::bf16 : memory::data_type::f32;
}

void copy_rows(const Tensor& to, const Tensor& from, int threads) {
  parallel_ranges(threads, from.rows, from.cols, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      std::memcpy(to.slice_rows(r, 1).data, from.slice_rows(r, 1).data, size_t(from.cols) * size_of(from.dtype));
  });
}

// Any number of rows gives the same layout of the weights; this one stands for all.
constexpr int64_t kTypicalRows = 256;

}  // namespace

Matmuls::Matmuls(int threads, Scratch& scratch)
    : threads_(threads), scratch_(scratch), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
  MatmulProblem probe{64, 64, 64, DType::kBFloat16, {64, 1}, false, {64, 1}, DType::kFloat32, 64, false, false};
  try {
    describe(probe);
    supports_bfloat16_ = true;
  } catch (const dnnl::error& error) {
    if (error.status != dnnl_unimplemented) throw;
    supports_bfloat16_ = false;
  }
}

dnnl::matmul::primitive_desc Matmuls::describe(const MatmulProblem& p) {
  omp_set_num_threads(threads_);  // what oneDNN divides the work by; each calling thread has its own setting
  const memory::desc src({p.m, p.k}, type_of(p.operands), {p.src_strides[0], p.src_strides[1]});
  const memory::desc weights =
      p.packed_weights ? packed_weights(p.k, p.n).desc
                       : memory::desc({p.k, p.n}, type_of(p.operands), {p.weights_strides[0], p.weights_strides[1]});
  const memory::desc dst({p.m, p.n}, type_of(p.dst), {p.dst_stride, 1});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (p.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  if (!p.bias) return {{src, weights, dst}, attributes, engine_};
  const memory::desc bias({1, p.n}, memory::data_type::f32, memory::format_tag::ab);
  return {{src, weights, bias, dst}, attributes, engine_};
}

Matmuls::Entry& Matmuls::entry(const MatmulProblem& p) {
  const Key key{p.m,
                p.n,
                p.k,
                int64_t(p.operands),
                p.src_strides[0],
                p.src_strides[1],
                p.packed_weights,
                p.packed_weights ? 0 : p.weights_strides[0],
                p.packed_weights ? 0 : p.weights_strides[1],
                int64_t(p.dst),
                p.dst_stride,
                p.accumulate,
                p.bias};
  const auto found = index_.find(key);
  if (found != index_.end()) {
    entries_.splice(entries_.begin(), entries_, found->second);
    return entries_.front();
  }
  const auto described = describe(p);
  const auto bind = [&](const memory::desc& desc) { return memory(desc, engine_, nullptr); };
  entries_.push_front({key, dnnl::matmul(described), round_to_scratch(described.scratchpad_desc().get_size()),
                       bind(described.src_desc()), bind(described.weights_desc()), bind(described.dst_desc()),
                       p.bias ? bind(described.bias_desc()) : memory(), bind(described.scratchpad_desc())});
  index_[key] = entries_.begin();
  if (entries_.size() > kMaxPrimitives) {
    index_.erase(entries_.back().key);
    entries_.pop_back();
  }
  return entries_.front();
}

const PackedWeights& Matmuls::packed_weights(int64_t k, int64_t n) {
  const std::array<int64_t, 2> key{k, n};
  const auto found = layouts_.find(key);
  if (found != layouts_.end()) return found->second;
  omp_set_num_threads(threads_);
  const memory::desc src({kTypicalRows, k}, memory::data_type::bf16, memory::format_tag::ab);
  const memory::desc weights({k, n}, memory::data_type::bf16, memory::format_tag::any);
  const memory::desc dst({kTypicalRows, n}, memory::data_type::bf16, memory::format_tag::ab);
  const dnnl::matmul::primitive_desc described({src, weights, dst}, engine_);
  PackedWeights layout{described.weights_desc(), described.weights_desc().get_size(), false, 0, 0};
  const auto& block = layout.desc.data.format_desc.blocking;
  if (block.inner_nblks == 3 && block.inner_idxs[0] == 0 && block.inner_idxs[1] == 1 && block.inner_idxs[2] == 0 &&
      block.inner_blks[0] <= kMaxPackedPairs && block.inner_blks[1] <= kMaxPackedColumns && block.inner_blks[2] == 2) {
    layout.k_block = block.inner_blks[0];
    layout.n_block = block.inner_blks[1];
    const int64_t tile = 2 * layout.k_block * layout.n_block;
    const int64_t tiles_down = (k + 2 * layout.k_block - 1) / (2 * layout.k_block);
    layout.known = block.strides[0] == tile && block.strides[1] == tile * tiles_down;
  }
  return layouts_.emplace(key, layout).first->second;
}

void Matmuls::pack(void* to, const float* master, int64_t k, int64_t n, int64_t k_stride, int64_t n_stride) {
  const PackedWeights& layout = packed_weights(k, n);
  if (layout.known) {
    pack_weights(to, layout, master, k, n, k_stride, n_stride, threads_);
    return;
  }
  omp_set_num_threads(threads_);
  memory from({{k, n}, memory::data_type::f32, {k_stride, n_stride}}, engine_, const_cast<float*>(master));
  memory into(layout.desc, engine_, to);
  dnnl::reorder(from, into).execute(stream_, from, into);
  stream_.wait();
}

size_t Matmuls::scratch_bytes(const MatmulProblem& problem) {
  return round_to_scratch(describe(densify(problem).problem).scratchpad_desc().get_size());
}

size_t Matmuls::held_bytes() const {
  return held_.source ? round_to_scratch(layouts_.at({held_.k, held_.n}).bytes) : 0;
}

Scratch::Block Matmuls::reserve(size_t bytes) {
  const Scratch::Block block = scratch_.reserve(bytes);
  if (scratch_.generation() != held_.generation) forget_held_weights();
  return block;
}

const void* Matmuls::hold_weights(const MatmulProblem& p, const void* source, const std::function<void(void*)>& pack) {
  // Scratch holds the weights at its front; everything else lies at its back.
  const Dense dense = densify(p);
  const Scratch::Block block = reserve(round_to_scratch(packed_weights(p.k, p.n).bytes) + dense.src_bytes +
                                       dense.dst_bytes + entry(dense.problem).scratch_bytes);
  const int64_t k_stride = p.weights_strides[0];
  const bool known = held_.source == source && held_.k == p.k && held_.n == p.n && held_.k_stride == k_stride;
  if (known && held_.at == block.data) return held_.at;
  pack(block.data);
  held_ = {source, p.k, p.n, k_stride, block.data, scratch_.generation()};
  return held_.at;
}

Matmuls::Dense Matmuls::densify(const MatmulProblem& p) {
  Dense dense{p, 0, 0};
  if (p.operands == DType::kBFloat16 && p.src_strides[1] == 1 && p.src_strides[0] != p.k) {
    dense.problem.src_strides[0] = p.k;
    if (p.m > 1) dense.src_bytes = round_to_scratch(size_t(p.m * p.k) * size_of(p.operands));
  }
  if (p.operands == DType::kBFloat16 && p.dst_stride != p.n) {
    dense.problem.dst_stride = p.n;
    if (p.m > 1) dense.dst_bytes = round_to_scratch(size_t(p.m * p.n) * size_of(p.dst));
  }
  return dense;
}

char* Matmuls::room(const MatmulProblem& problem, size_t bytes) {
  const Dense dense = densify(problem);
  const size_t used = bytes + dense.src_bytes + dense.dst_bytes + entry(dense.problem).scratch_bytes;
  // Rather packs the held weights again than takes more memory than was planned.
  if (used <= scratch_.planned() && used + held_bytes() > scratch_.planned()) forget_held_weights();
  const Scratch::Block block = reserve(used + held_bytes());
  return block.data + block.size - used;
}

void Matmuls::run(const MatmulProblem& problem, void* dst, const void* src, const void* weights, const float* bias) {
  const auto [dense, src_bytes, dst_bytes] = densify(problem);
  Entry& e = entry(dense);
  // Asks for no more than the operands' owner did, so that operands in scratch stay where they are.
  char* scratch = room(problem, 0);
  const Tensor given{dst, problem.dst, problem.m, problem.n, problem.dst_stride};
  const Tensor made =
      matrix(dst_bytes ? scratch + e.scratch_bytes + src_bytes : dst, problem.dst, problem.m, problem.n);
  if (src_bytes) {
    const Tensor from{const_cast<void*>(src), problem.operands, problem.m, problem.k, problem.src_strides[0]};
    const Tensor to = matrix(scratch + e.scratch_bytes, problem.operands, problem.m, problem.k);
    copy_rows(to, from, threads_);
    src = to.data;
  }
  if (dst_bytes && problem.accumulate) copy_rows(made, given, threads_);
  omp_set_num_threads(threads_);
  e.src.set_data_handle(const_cast<void*>(src));
  e.weights.set_data_handle(const_cast<void*>(weights));
  e.dst.set_data_handle(made.data);
  e.scratch.set_data_handle(scratch);
  std::unordered_map<int, memory> arguments{
      {DNNL_ARG_SRC, e.src}, {DNNL_ARG_WEIGHTS, e.weights}, {DNNL_ARG_DST, e.dst}, {DNNL_ARG_SCRATCHPAD, e.scratch}};
  if (problem.bias) {
    e.bias.set_data_handle(const_cast<float*>(bias));
    arguments.emplace(DNNL_ARG_BIAS, e.bias);
  }
  e.primitive.execute(stream_, arguments);
  stream_.wait();
  if (dst_bytes) copy_rows(given, made, threads_);
}

}  // namespace tunesmith::cpu
