// Matmuls by cuBLASLt. The algorithm for a shape is asked for once and kept.
#include "cuda/matmul.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <array>
#include <map>

#include "core/error.h"

namespace tunesmith::cuda {

namespace {

void check_blas(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw CodedError("ERR_DEVICE", std::string("cuBLASLt: ") + what + ": " + cublasLtGetStatusString(status));
}

cudaDataType type_of(DType type) { return type == DType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF; }

// Largest power of two, up to 16, that an address or a column's distance in bytes is a multiple of.
int alignment_of(const void* pointer, int64_t column_bytes) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(pointer) | uintptr_t(column_bytes) | 16;
  return int(bits & (~bits + 1));
}

class Layout {
 public:
  Layout(DType type, int64_t rows, int64_t columns, int64_t ld) {
    check_blas(cublasLtMatrixLayoutCreate(&layout_, type_of(type), uint64_t(rows), uint64_t(columns), ld), "layout");
  }
  ~Layout() { cublasLtMatrixLayoutDestroy(layout_); }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
  operator cublasLtMatrixLayout_t() const { return layout_; }

 private:
  cublasLtMatrixLayout_t layout_ = nullptr;
};

class Description {
 public:
  Description(const Matmul& mm, const void* bias) {
    // Products of float32 in full: not rounded to TF32.
    check_blas(cublasLtMatmulDescCreate(&description_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description");
    set(CUBLASLT_MATMUL_DESC_TRANSA, mm.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, mm.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (!mm.bias) return;
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  ~Description() { cublasLtMatmulDescDestroy(description_); }
  Description(const Description&) = delete;
  Description& operator=(const Description&) = delete;
  operator cublasLtMatmulDesc_t() const { return description_; }

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check_blas(cublasLtMatmulDescSetAttribute(description_, attribute, &value, sizeof value), "attribute");
  }
  cublasLtMatmulDesc_t description_ = nullptr;
};

}  // namespace

struct Matmuls::State {
  using Key = std::array<int64_t, 15>;
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  std::map<Key, cublasLtMatmulAlgo_t> algorithms;

  template <class T>
  void prefer(cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
    check_blas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value), "preference");
  }
};

// Shapes of T and R are rounded to buckets, so that few distinct ones come; a bound for what cannot be foreseen.
constexpr size_t kMostAlgorithms = 4096;

Matmuls::Matmuls(cudaStream_t stream) : state_(std::make_unique<State>()), stream_(stream) {
  check_blas(cublasLtCreate(&state_->handle), "start");
  check_blas(cublasLtMatmulPreferenceCreate(&state_->preference), "preference");
}

Matmuls::~Matmuls() {
  cublasLtMatmulPreferenceDestroy(state_->preference);
  cublasLtDestroy(state_->handle);
}

std::string Matmuls::library() {
  const size_t version = cublasLtGetVersion();
  Dl_info place;
  const bool known = dladdr(reinterpret_cast<void*>(&cublasLtCreate), &place) && place.dli_fname;
  return "cuBLASLt " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100) + (known ? std::string(" of ") + place.dli_fname : "");
}

// What NVIDIA recommends for Hopper; enough for split-k of every shape here.
size_t Matmuls::workspace_bytes() { return size_t(32) << 20; }

void Matmuls::run(const Matmul& mm, void* d, const void* a, const void* b, const void* bias, void* workspace,
                  size_t workspace_bytes) {
  if (mm.m == 0 || mm.n == 0) return;
  const Description description(mm, bias);
  const Layout a_layout(mm.operands, mm.transpose_a ? mm.k : mm.m, mm.transpose_a ? mm.m : mm.k, mm.lda);
  const Layout b_layout(mm.operands, mm.transpose_b ? mm.n : mm.k, mm.transpose_b ? mm.k : mm.n, mm.ldb);
  const Layout d_layout(mm.result, mm.m, mm.n, mm.ldd);
  const int64_t operand_bytes = int64_t(size_of(mm.operands)), result_bytes = int64_t(size_of(mm.result));
  const int a_aligned = alignment_of(a, mm.lda * operand_bytes), b_aligned = alignment_of(b, mm.ldb * operand_bytes);
  const int d_aligned = alignment_of(d, mm.ldd * result_bytes);
  const State::Key key{mm.m,
                       mm.n,
                       mm.k,
                       mm.transpose_a,
                       mm.transpose_b,
                       mm.lda,
                       mm.ldb,
                       mm.ldd,
                       int64_t(mm.operands),
                       int64_t(mm.result),
                       a_aligned,
                       b_aligned,
                       d_aligned,
                       mm.bias,
                       int64_t(workspace_bytes)};
  auto& algorithms = state_->algorithms;
  auto known = algorithms.find(key);
  if (known == algorithms.end()) {
    state_->prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
    state_->prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, uint32_t(a_aligned));
    state_->prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, uint32_t(b_aligned));
    state_->prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, uint32_t(d_aligned));
    state_->prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, uint32_t(d_aligned));
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    check_blas(cublasLtMatmulAlgoGetHeuristic(state_->handle, description, a_layout, b_layout, d_layout, d_layout,
                                              state_->preference, 1, &result, &found),
               "algorithm");
    if (found == 0)
      throw CodedError("ERR_DEVICE", "cuBLASLt has no algorithm for a " + std::to_string(mm.m) + "x" +
                                         std::to_string(mm.n) + "x" + std::to_string(mm.k) + " matmul of " +
                                         name_of(mm.operands) + " into " + name_of(mm.result));
    if (algorithms.size() >= kMostAlgorithms) algorithms.clear();
    known = algorithms.emplace(key, result.algo).first;
  }
  check_blas(cublasLtMatmul(state_->handle, description, &mm.alpha, a, a_layout, b, b_layout, &mm.beta, d, d_layout, d,
                            d_layout, &known->second, workspace, workspace_bytes, stream_),
             "matmul");
}

}  // namespace tunesmith::cuda
