// The backend object: creation, what it runs on, errors.
#include "cuda/backend.h"

#include "core/error.h"
#include "cuda/staging.h"
#include "cuda/tables.h"

namespace tunesmith::cuda {

namespace {

std::string place_of(std::source_location where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// What a user can do about a device that does not answer.
std::string no_device(cudaError_t status) {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  const std::string needed = version_text(CUDART_VERSION);
  if (driver == 0)
    return "no NVIDIA driver was found: install one for CUDA " + needed + " or newer (nvidia-smi shows its version)";
  if (driver < CUDART_VERSION / 1000 * 1000)
    return "the NVIDIA driver is too old: it is for CUDA " + version_text(driver) + ", and CUDA " +
           std::to_string(CUDART_VERSION / 1000) + ".0 or newer is needed";
  return std::string("no NVIDIA device answers: ") + cudaGetErrorName(status) + ": " + cudaGetErrorString(status);
}

// 8 MiB: partial sums of every op at the usual sizes (see partials_of).
constexpr size_t kPartials = size_t(8) << 20;

}  // namespace

void check(cudaError_t status, std::source_location where) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that is not lasting must not come up again
  throw CodedError(status == cudaErrorMemoryAllocation ? "ERR_OUT_OF_MEMORY" : "ERR_DEVICE",
                   std::string("CUDA: ") + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ", " +
                       place_of(where) + ")");
}

CudaBackend::CudaBackend() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0) {
    cudaGetLastError();
    throw CodedError("ERR_NO_DEVICE", "the cuda backend cannot run: " + no_device(status));
  }
  check(cudaSetDevice(0));
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0));
  if (properties.major < 8)
    throw CodedError("ERR_NO_DEVICE", std::string("the cuda backend cannot run: ") + properties.name +
                                          " has compute capability " + std::to_string(properties.major) + "." +
                                          std::to_string(properties.minor) + ", and 8.0 or newer is needed");
  multiprocessors_ = properties.multiProcessorCount;
  device_name_ = std::string(properties.name) + ", compute capability " + std::to_string(properties.major) + "." +
                 std::to_string(properties.minor);
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  staging_ = std::make_unique<Staging>(stream_);
  matmuls_ = std::make_unique<Matmuls>(stream_);
  partials_ = allocate(kPartials);
  partials_bytes_ = kPartials;
  const Tables tables = make_tables();
  void* const memory = allocate(sizeof tables);
  upload(memory, &tables, sizeof tables);
  tables_ = static_cast<const Tables*>(memory);
}

CudaBackend::~CudaBackend() {
  cudaStreamSynchronize(stream_);
  release(partials_);
  release(const_cast<Tables*>(tables_));
  matmuls_.reset();
  staging_.reset();
  cudaStreamDestroy(stream_);
}

BackendInfo CudaBackend::info() const {
  BackendInfo info;
#ifdef TUNESMITH_CUDA_HOST
  info.name = "cuda-host";
#else
  info.name = "cuda";
#endif
  info.isa = device_name_;
  info.library = Matmuls::library() + ", CUDA " + version_text(CUDART_VERSION);
  info.threads = 1;
  info.fast_bfloat16 = true;
  return info;
}

bool CudaBackend::supports(DType compute) const { return compute == DType::kFloat32 || compute == DType::kBFloat16; }

size_t CudaBackend::unplanned_bytes() const { return partials_bytes_ > kPartials ? partials_bytes_ : 0; }

void* CudaBackend::partials_of(size_t bytes) {
  if (bytes <= partials_bytes_) return partials_;
  synchronize();  // what was computed with the old memory is done with it
  release(partials_);
  partials_ = nullptr, partials_bytes_ = 0;
  partials_ = allocate(bytes);
  partials_bytes_ = bytes;
  return partials_;
}

}  // namespace tunesmith::cuda

extern "C" __attribute__((visibility("default"))) tunesmith::Backend* tunesmith_create_backend(int interface_version,
                                                                                               int threads) {
  if (interface_version != tunesmith::kBackendInterfaceVersion)
    throw tunesmith::CodedError("ERR_BACKEND_UNAVAILABLE", "the cuda backend was built for interface version " +
                                                               std::to_string(tunesmith::kBackendInterfaceVersion) +
                                                               ", but version " + std::to_string(interface_version) +
                                                               " was asked for: rebuild both together");
  if (threads < 0)
    throw tunesmith::CodedError("ERR_INVALID_OPTION",
                                "threads must be 0 (every core) or more, got " + std::to_string(threads));
  return new tunesmith::cuda::CudaBackend();
}
