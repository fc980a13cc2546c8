// Values of parameters in and out, converted on the way a piece at a time: a chunk of a checkpoint is in memory
// already.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/storage.h"
#include "model/parameters.h"

namespace tunesmith {

namespace {

constexpr int64_t kPiece = 1 << 16;  // elements

void check_range(const Parameter& parameter, int64_t offset, int64_t count) {
  if (offset < 0 || count < 0 || offset > parameter.value.size() - count)
    throw CodedError("ERR_INVALID_ARGUMENT", parameter.name + " has " + std::to_string(parameter.value.size()) +
                                                 " elements; " + std::to_string(count) + " from " +
                                                 std::to_string(offset) + " on are outside it");
}

// Calls use(first, count) for pieces of [0, count).
template <class Use>
void for_pieces(int64_t count, const Use& use) {
  for (int64_t first = 0; first < count; first += kPiece) use(first, std::min(kPiece, count - first));
}

}  // namespace

void Parameters::write(Backend& backend, const std::string& name, int64_t offset, DType type, const void* values,
                       int64_t count) {
  const Parameter& p = find(name);
  check_range(p, offset, count);
  const bool quantized = p.quantized() || (options_.dequantized && quantizes(p));
  const DType kept = quantized ? DType::kFloat32 : p.value.dtype;
  std::vector<char> piece(size_t(std::min(kPiece, count)) * size_of(kept));
  for_pieces(count, [&](int64_t first, int64_t size) {
    convert(piece.data(), kept, static_cast<const char*>(values) + first * int64_t(size_of(type)), type, size);
    if (quantized)
      quantize(backend, p, offset + first, reinterpret_cast<const float*>(piece.data()), size);
    else
      backend.upload(static_cast<char*>(p.value.data) + (offset + first) * int64_t(size_of(kept)), piece.data(),
                     size_t(size) * size_of(kept));
  });
}

void Parameters::quantize(Backend& backend, const Parameter& p, int64_t offset, const float* values, int64_t count) {
  const auto bad = std::find_if_not(values, values + count, [](float value) { return std::isfinite(value); });
  if (bad != values + count)
    throw CodedError("ERR_INVALID_WEIGHTS", p.name + ": element " + std::to_string(offset + (bad - values)) + " is " +
                                                std::to_string(*bad) +
                                                ", and only finite weights can be quantised; look at the checkpoint, "
                                                "or leave quantization out");
  auto found = filling_.find(p.name);
  if (found == filling_.end()) {
    std::unique_ptr<Nf4Memory> memory;
    if (!p.quantized())
      memory = std::make_unique<Nf4Memory>(backend, p.value.rows, p.value.cols,
                                           options_.quantization == Quantization::kNf4Doubled);
    Nf4Filling filling(memory ? memory->matrix() : nf4_[size_t(p.nf4)]);
    found = filling_.emplace(p.name, Filling{std::move(memory), std::move(filling)}).first;
  }
  if (!found->second.filling.write(backend, offset, values, count)) return;
  if (found->second.memory) dequantize(backend, p, found->second.memory->matrix());
  filling_.erase(found);
}

void Parameters::dequantize(Backend& backend, const Parameter& p, const Nf4Matrix& matrix) {
  const DType kept = p.value.dtype;
  std::vector<float> values;
  std::vector<char> converted;
  for_pieces(p.value.size(), [&](int64_t first, int64_t size) {
    values.resize(size_t(size));
    converted.resize(size_t(size) * size_of(kept));
    read_nf4(backend, matrix, first, values.data(), size);
    convert(converted.data(), kept, values.data(), DType::kFloat32, size);
    backend.upload(static_cast<char*>(p.value.data) + first * int64_t(size_of(kept)), converted.data(),
                   converted.size());
  });
}

void Parameters::check_filled() const {
  if (filling_.empty()) return;
  throw CodedError("ERR_INVALID_ARGUMENT",
                   filling_.begin()->first + " is quantised and was written in part only: write all of it");
}

std::vector<uint8_t> Parameters::read(Backend& backend, const std::string& name, bool gradient, int64_t offset,
                                      int64_t count, DType type) const {
  const Parameter& p = find(name);
  check_range(p, offset, count);
  if (gradient && p.trained() && offset > p.grad.size() - count)
    throw CodedError("ERR_INVALID_ARGUMENT", "the gradient of " + name + " has " + std::to_string(p.grad.size()) +
                                                 " elements: only some of its rows train");
  if (gradient && !p.trained())
    throw CodedError("ERR_NOT_TRAINING", "this engine holds no gradient of " + name + ", which does not train");
  const Tensor& tensor = gradient ? p.grad : p.value;
  const DType kept = p.quantized() ? DType::kFloat32 : tensor.dtype;
  std::vector<uint8_t> values(size_t(count) * size_of(type)), piece(size_t(std::min(kPiece, count)) * size_of(kept));
  for_pieces(count, [&](int64_t first, int64_t size) {
    if (p.quantized())
      read_nf4(backend, nf4_[size_t(p.nf4)], offset + first, reinterpret_cast<float*>(piece.data()), size);
    else
      backend.download(piece.data(), static_cast<char*>(tensor.data) + (offset + first) * int64_t(size_of(kept)),
                       size_t(size) * size_of(kept));
    convert(values.data() + first * int64_t(size_of(type)), type, piece.data(), kept, size);
  });
  return values;
}

}  // namespace tunesmith
