#include "model/quantized.h"

#include <algorithm>

namespace tunesmith {

Nf4Filling::Nf4Filling(const Nf4Matrix& matrix)
    : matrix_(matrix), absmax_(size_t(matrix.blocks())), written_(size_t(matrix.blocks())), missing_(matrix.blocks()) {}

bool Nf4Filling::write(Backend& backend, int64_t offset, const float* values, int64_t count) {
  const int64_t end = offset + count;
  while (offset < end) {
    const int64_t block = offset / kNf4Block, inside = offset % kNf4Block;
    // Whole blocks from here on, the last of the matrix among them even where it is short.
    const int64_t whole = end == matrix_.size() ? matrix_.blocks() - block : (end - block * kNf4Block) / kNf4Block;
    int64_t step = 0;
    if (inside == 0 && whole > 0) {
      step = std::min(end, (block + whole) * kNf4Block) - offset;
      write_blocks(backend, block, values, whole);
    } else {
      step = std::min(end, block * kNf4Block + block_size(block)) - offset;
      write_partial(backend, offset, values, step);
    }
    offset += step;
    values += step;
  }
  if (missing_ > 0) return false;
  write_scales(backend);
  return true;
}

// Inside one block.
void Nf4Filling::write_partial(Backend& backend, int64_t offset, const float* values, int64_t count) {
  const int64_t block = offset / kNf4Block;
  Partial& partial = partial_[block];
  for (int64_t i = 0; i < count; i++) {
    const int64_t at = offset % kNf4Block + i;
    partial.values[size_t(at)] = values[i];
    partial.filled |= uint64_t(1) << at;
  }
  const int64_t size = block_size(block);
  if (partial.filled != ~uint64_t(0) >> (kNf4Block - size)) return;
  const Partial complete = partial;
  write_blocks(backend, block, complete.values.data(), 1);
}

void Nf4Filling::write_blocks(Backend& backend, int64_t first, const float* values, int64_t count) {
  std::vector<uint8_t> codes(size_t(count * kNf4Block / 2));
  size_t bytes = 0;
  for (int64_t i = 0; i < count; i++) {
    const int64_t size = block_size(first + i);
    absmax_[size_t(first + i)] = nf4_quantize_block(codes.data() + bytes, values + i * kNf4Block, size);
    bytes += size_t(size + 1) / 2;
    missing_ -= !written_[size_t(first + i)];
    written_[size_t(first + i)] = true;
    partial_.erase(first + i);
  }
  backend.upload(matrix_.codes + first * kNf4Block / 2, codes.data(), bytes);
}

void Nf4Filling::write_scales(Backend& backend) {
  if (!matrix_.doubled()) {
    backend.upload(matrix_.absmax, absmax_.data(), absmax_.size() * sizeof(float));
    return;
  }
  std::vector<uint8_t> codes(absmax_.size());
  std::vector<float> groups(static_cast<size_t>(matrix_.groups()));
  const float offset = nf4_quantize_scales(codes.data(), groups.data(), absmax_);
  backend.upload(matrix_.scale_codes, codes.data(), codes.size());
  backend.upload(matrix_.absmax, groups.data(), groups.size() * sizeof(float));
  backend.upload(matrix_.offset, &offset, sizeof(offset));
}

Nf4Memory::Nf4Memory(Backend& backend, int64_t rows, int64_t cols, bool doubled)
    : backend_(backend), matrix_{rows, cols} {
  Arena arena;
  reserve_nf4(arena, matrix_, doubled);
  memory_ = backend.allocate(arena.total());
  arena.bind(memory_);
}

void reserve_nf4(Arena& arena, Nf4Matrix& matrix, bool doubled) {
  arena.reserve_array(MemoryKind::kQuantized, matrix.codes, (matrix.size() + 1) / 2);
  arena.reserve_array(MemoryKind::kQuantized, matrix.absmax, doubled ? matrix.groups() : matrix.blocks());
  if (!doubled) return;
  arena.reserve_array(MemoryKind::kQuantized, matrix.scale_codes, matrix.blocks());
  arena.reserve_array(MemoryKind::kQuantized, matrix.offset, 1);
}

void read_nf4(Backend& backend, const Nf4Matrix& matrix, int64_t offset, float* values, int64_t count) {
  if (count == 0) return;
  // A matrix of its own on the host, from the first group that is touched to the last block.
  const int64_t first_block = offset / kNf4Block / kNf4Group * kNf4Group;
  const int64_t blocks = (offset + count - 1) / kNf4Block + 1 - first_block;
  const int64_t first = first_block * kNf4Block, size = std::min(matrix.size() - first, blocks * kNf4Block);
  std::vector<uint8_t> codes(size_t(size + 1) / 2), scale_codes;
  std::vector<float> absmax;
  float scale_offset = 0;
  Nf4Matrix host{1, size, codes.data(), nullptr, nullptr, nullptr};
  backend.download(codes.data(), matrix.codes + first / 2, codes.size());
  if (matrix.doubled()) {
    scale_codes.resize(size_t(blocks));
    backend.download(scale_codes.data(), matrix.scale_codes + first_block, scale_codes.size());
    backend.download(&scale_offset, matrix.offset, sizeof(scale_offset));
    host.scale_codes = scale_codes.data();
    host.offset = &scale_offset;
    absmax.resize(size_t(host.groups()));
    backend.download(absmax.data(), matrix.absmax + first_block / kNf4Group, absmax.size() * sizeof(float));
  } else {
    absmax.resize(size_t(blocks));
    backend.download(absmax.data(), matrix.absmax + first_block, absmax.size() * sizeof(float));
  }
  host.absmax = absmax.data();
  for (int64_t i = 0; i < count; i++) values[i] = host.value(offset - first + i);
}

}  // namespace tunesmith
