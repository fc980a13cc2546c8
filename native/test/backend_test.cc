#include <cstdlib>
#include <cstring>

#include "backend/loader.h"
#include "core/error.h"
#include "core/float16.h"
#include "test/harness.h"

namespace tunesmith::test {

namespace {

// The code of what `run` throws.
std::string code_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const CodedError& error) {
    return error.code();
  }
  return "nothing thrown";
}

}  // namespace

TEST_CASE("backends: memory") {
  for (const auto& [name, backend] : backends()) {
    INFO(name);
    CHECK(backend->supports(DType::kFloat32));
    CHECK(backend->row_bucket() >= 1);
    CHECK(backend->info().threads >= 1);
    for (const size_t bytes : {0, 1, 63, 64, 100001}) {
      void* memory = backend->allocate(bytes);
      CHECK(memory != nullptr);
      CHECK(reinterpret_cast<uintptr_t>(memory) % 64 == 0);
      std::vector<unsigned char> in(bytes), out(bytes, 1);
      for (size_t i = 0; i < bytes; ++i) in[i] = static_cast<unsigned char>(i * 7 + 3);
      backend->upload(memory, in.data(), bytes);
      backend->download(out.data(), memory, bytes);
      CHECK(in == out);
      // The first and last byte are not zeroed.
      if (bytes > 2) {
        backend->zero(static_cast<char*>(memory) + 1, bytes - 2);
        std::fill(in.begin() + 1, in.end() - 1, static_cast<unsigned char>(0));
        backend->download(out.data(), memory, bytes);
        CHECK(in == out);
      }
      backend->release(memory);
    }
    backend->release(nullptr);
    CHECK(code_of([&] { backend->allocate(size_t(1) << 62); }) == "ERR_OUT_OF_MEMORY");
    CHECK(code_of([&] { backend->allocate(~size_t(0)); }) == "ERR_OUT_OF_MEMORY");
  }
}

TEST_CASE("backends: one that is not installed says so") {
  CHECK(code_of([] { create_backend("no-such-device", 1); }) == "ERR_BACKEND_UNAVAILABLE");
}

TEST_CASE("backends: the reference refuses types it does not compute in") {
  CHECK(!reference().supports(DType::kBFloat16));
  CHECK(!reference().supports(DType::kFloat16));
  uint16_t storage[8] = {};
  const Tensor tensor = matrix(storage, DType::kBFloat16, 1, 4);
  CHECK(code_of([&] { reference().bias_backward(tensor, tensor); }) == "ERR_UNSUPPORTED_DTYPE");
  CHECK(code_of([&] { reference().cast(matrix(storage, DType::kInt32, 1, 4), tensor); }) == "ERR_UNSUPPORTED_DTYPE");
}

// Every bit pattern: a value survives the way to float32 and back.
TEST_CASE("float16 and bfloat16 to float32 and back") {
  int different = 0;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    Float16 half;
    BFloat16 brain;
    half.bits = brain.bits = uint16_t(bits);
    if (!std::isnan(float(half))) different += Float16(float(half)).bits != bits;
    if (!std::isnan(float(brain))) different += BFloat16(float(brain)).bits != bits;
    different += std::isnan(float(half)) != ((bits & 0x7fff) > 0x7c00);
    different += std::isnan(float(half)) != std::isnan(float(Float16(float(half))));
    different += std::isnan(float(brain)) != std::isnan(float(BFloat16(float(brain))));
  }
  CHECK(different == 0);
}

}  // namespace tunesmith::test
