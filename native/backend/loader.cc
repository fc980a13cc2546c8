#include "backend/loader.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

#include "backend/cublas.h"
#include "backend/reference/reference.h"
#include "core/error.h"

namespace tunesmith {

namespace {

std::filesystem::path backend_folder() {
  if (const char* folder = std::getenv("TUNESMITH_BACKEND_DIR")) return folder;
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&backend_folder), &self) && self.dli_fname)
    return std::filesystem::absolute(self.dli_fname).parent_path();
  return ".";
}

}  // namespace

std::unique_ptr<Backend> create_backend(const std::string& name, int threads) {
  if (name == "reference") return create_reference_backend();
  const auto path = backend_folder() / ("libtunesmith_" + name + ".so");
  if (!std::filesystem::exists(path))
    throw CodedError("ERR_BACKEND_UNAVAILABLE", "the " + name + " backend is not installed: no " + path.string());
  // Cheapest first: a machine without a driver is told so without half a gigabyte being mapped.
  if (name == "cuda") {
    require_nvidia_driver();
    open_cublas(cublas_folders(backend_folder().string()));
  }
  // Threads of OpenMP spin for milliseconds before they sleep. Where anything else wants the cores, each then waits for
  // one that holds no core while it holds one itself: training took twice the processor time beside one busy process. A
  // thousand turns bridge the gaps between ops as well. libgomp reads this once, when it is loaded.
  if (!std::getenv("OMP_WAIT_POLICY")) setenv("GOMP_SPINCOUNT", "1000", 0);
  // Never closed: its threads and static state outlive any one engine, and dlopen counts references.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library)
    throw CodedError("ERR_BACKEND_UNAVAILABLE", std::string("the ") + name + " backend does not load: " + dlerror());
  auto* factory = reinterpret_cast<BackendFactory>(dlsym(library, kBackendFactoryName));
  if (!factory)
    throw CodedError("ERR_BACKEND_UNAVAILABLE",
                     path.string() + " exports no " + kBackendFactoryName + ": it is of another version");
  return std::unique_ptr<Backend>(factory(kBackendInterfaceVersion, threads));
}

}  // namespace tunesmith
