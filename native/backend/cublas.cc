#include "backend/cublas.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "core/error.h"

namespace tunesmith {

namespace fs = std::filesystem;

namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// Folders inside `parent` whose names begin so, the latest name first.
std::vector<fs::path> folders_in(const fs::path& parent, const std::string& beginning) {
  std::vector<fs::path> found;
  std::error_code ignored;  // a folder that cannot be read has none
  for (const auto& entry : fs::directory_iterator(parent, ignored))
    if (entry.path().filename().string().rfind(beginning, 0) == 0) found.push_back(entry.path());
  std::sort(found.rbegin(), found.rend());
  return found;
}

}  // namespace

std::vector<std::string> cublas_folders(const std::string& backend_folder) {
  std::vector<std::string> folders;
  const auto add = [&](const fs::path& folder) {
    const std::string text = folder.string();
    if (std::find(folders.begin(), folders.end(), text) == folders.end()) folders.push_back(text);
  };
  if (const std::string own = variable("TUNESMITH_CUBLAS_DIR"); !own.empty()) add(own);
  add(fs::path(backend_folder).parent_path() / "cublas/nvidia/cu13/lib");
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"})
    if (const std::string toolkit = variable(name); !toolkit.empty()) add(fs::path(toolkit) / "lib64");
  add("/usr/local/cuda/lib64");
  for (const fs::path& toolkit : folders_in("/usr/local", "cuda-13")) add(toolkit / "lib64");
  std::vector<fs::path> prefixes;
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (const std::string prefix = variable(name); !prefix.empty()) prefixes.push_back(prefix);
  if (const std::string home = variable("HOME"); !home.empty()) prefixes.push_back(fs::path(home) / ".local");
  prefixes.insert(prefixes.end(), {"/usr/local", "/usr"});
  for (const fs::path& prefix : prefixes)
    for (const fs::path& python : folders_in(prefix / "lib", "python3"))
      for (const char* packages : {"site-packages", "dist-packages"})
        if (fs::exists(python / packages)) add(python / packages / "nvidia/cu13/lib");
  return folders;
}

std::string open_cublas(const std::vector<std::string>& folders) {
  std::string searched = "the loader's path: " + std::string(kCublasName) + " is not in it";
  if (dlopen(kCublasName, RTLD_NOW | RTLD_LOCAL)) return kCublasName;
  for (const std::string& folder : folders) {
    const fs::path path = fs::path(folder) / kCublasName;
    searched += "\n" + folder;
    std::error_code ignored;
    if (!fs::exists(path, ignored)) {
      searched += fs::exists(folder, ignored) ? ": not in it" : ": no such folder";
      continue;
    }
    // Never closed: the backend that is opened next is linked with it.
    if (dlopen(fs::absolute(path).c_str(), RTLD_NOW | RTLD_LOCAL)) return path.string();
    searched += ": does not load: " + std::string(dlerror());
  }
  throw CodedError("ERR_BACKEND_UNAVAILABLE",
                   "the cuda backend needs cuBLAS of CUDA 13 (" + std::string(kCublasName) +
                       "), which was not found. Install it with `pip install nvidia-cublas==13.1.1.3` in an active "
                       "virtual environment, or set TUNESMITH_CUBLAS_DIR to its folder. Searched:\n" +
                       searched);
}

void require_nvidia_driver() {
  if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) return;
  throw CodedError(
      "ERR_NO_DEVICE",
      "the cuda backend cannot run: no NVIDIA driver (libcuda.so.1) is installed. Where there is an NVIDIA "
      "GPU, install its driver, for CUDA 13 or newer: version 580 or later (`nvidia-smi` shows it)");
}

}  // namespace tunesmith
