// The backend object: creation, what it runs on, memory.
#include "cpu/cpu.h"

#include <sched.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "cpu/matmul.h"
#include "cpu/parallel.h"
#include "dnnl.hpp"
#include "hwy/highway.h"

namespace tunesmith::cpu {

namespace {

int usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
  return omp_get_num_procs();  // more cores than a fixed cpu_set_t holds
}

bool has_amx(dnnl::cpu_isa isa) { return isa == dnnl::cpu_isa::avx512_core_amx; }

// In words, from what oneDNN chose for the matmuls; Highway's choice for the rest is added where it is another one.
std::string isa_in_words() {
  std::string matmul;
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::avx512_core_amx:
      matmul = "AMX with bfloat16";
      break;
    case dnnl::cpu_isa::avx512_core_bf16:
      matmul = "AVX-512 with bfloat16";
      break;
    case dnnl::cpu_isa::avx512_core:
    case dnnl::cpu_isa::avx512_core_vnni:
      matmul = "AVX-512";
      break;
    case dnnl::cpu_isa::avx2:
    case dnnl::cpu_isa::avx2_vnni:
      matmul = "AVX2";
      break;
    default:
      matmul = "SSE4.1";
  }
  const int64_t targets = hwy::SupportedTargets();
  const char* vector = targets & HWY_AVX3   ? "AVX-512"
                       : targets & HWY_AVX2 ? "AVX2"
                       : targets & HWY_SSE4 ? "SSE4.1"
                                            : "scalar";
  return matmul.find(vector) == 0 ? matmul : matmul + ", vector code " + vector;
}

// $TUNESMITH_CPU_ISA ("avx2", "sse4" or "scalar") keeps the vector code from using more, so that every build of it can
// be tested on one machine; DNNL_MAX_CPU_ISA does the same for the matmuls.
void limit_vector_code() {
  const char* limit = std::getenv("TUNESMITH_CPU_ISA");
  if (!limit || !*limit) return;
  const std::string name = limit;
  int64_t disabled = HWY_AVX3;
  if (name == "sse4" || name == "scalar") disabled |= HWY_AVX2;
  if (name == "scalar") disabled |= HWY_SSE4;
  if (name != "avx2" && name != "sse4" && name != "scalar")
    throw CodedError("ERR_INVALID_OPTION", "TUNESMITH_CPU_ISA is " + name + ": use avx2, sse4 or scalar");
  hwy::DisableTargets(disabled);
}

}  // namespace

CpuBackend::CpuBackend(int threads)
    : threads_(threads > 0 ? threads : usable_cores()), matmuls_(std::make_unique<Matmuls>(threads_, scratch_)) {}

CpuBackend::~CpuBackend() = default;

BackendInfo CpuBackend::info() const {
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  const dnnl_version_t& version = *dnnl_version();
  BackendInfo info;
  info.name = "cpu";
  info.isa = isa_in_words();
  info.library = "oneDNN " + std::to_string(version.major) + "." + std::to_string(version.minor) + "." +
                 std::to_string(version.patch);
  info.threads = threads_;
  info.fast_bfloat16 = has_amx(isa) || isa == dnnl::cpu_isa::avx512_core_bf16;
  return info;
}

bool CpuBackend::supports(DType compute) const {
  return compute == DType::kFloat32 || (compute == DType::kBFloat16 && matmuls_->supports_bfloat16());
}

void* CpuBackend::allocate(size_t bytes) {
  // Nothing is written here: pages of an arena that no step reaches are never mapped.
  constexpr size_t kHugePage = size_t(2) << 20;
  const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
  const size_t rounded = (std::max(bytes, size_t(1)) + alignment - 1) / alignment * alignment;
  void* memory = rounded >= bytes ? std::aligned_alloc(alignment, rounded) : nullptr;
  if (!memory)
    throw CodedError("ERR_OUT_OF_MEMORY", "cannot allocate " + std::to_string(bytes) +
                                              " bytes of memory: lower microBatchTokens, or free memory");
  if (alignment == kHugePage) madvise(memory, rounded, MADV_HUGEPAGE);  // a hint; refusing it is no error
  return memory;
}

void CpuBackend::release(void* memory) noexcept { std::free(memory); }

void CpuBackend::upload(void* device, const void* host, size_t bytes) {
  if (bytes > 0) std::memcpy(device, host, bytes);
}

void CpuBackend::download(void* host, const void* device, size_t bytes) {
  if (bytes > 0) std::memcpy(host, device, bytes);
}

void CpuBackend::zero(void* device, size_t bytes) {
  parallel_ranges(threads_, int64_t(bytes / 64 + 1), 16, [&](int64_t first, int64_t last) {
    const size_t begin = size_t(first) * 64, end = std::min(bytes, size_t(last) * 64);
    if (begin < end) std::memset(static_cast<char*>(device) + begin, 0, end - begin);
  });
}

}  // namespace tunesmith::cpu

extern "C" __attribute__((visibility("default"))) tunesmith::Backend* tunesmith_create_backend(int interface_version,
                                                                                               int threads) {
  if (interface_version != tunesmith::kBackendInterfaceVersion)
    throw tunesmith::CodedError("ERR_BACKEND_UNAVAILABLE", "the cpu backend was built for interface version " +
                                                               std::to_string(tunesmith::kBackendInterfaceVersion) +
                                                               ", but version " + std::to_string(interface_version) +
                                                               " was asked for: rebuild both together");
  if (threads < 0)
    throw tunesmith::CodedError("ERR_INVALID_OPTION",
                                "threads must be 0 (every core) or more, got " + std::to_string(threads));
  static const bool limited = (tunesmith::cpu::limit_vector_code(), true);
  (void)limited;
  return new tunesmith::cpu::CpuBackend(threads);
}
