// Finds cuBLASLt, half a gigabyte that is never shipped with this package, and what the CUDA backend needs beside it.
#pragma once

#include <string>
#include <vector>

namespace tunesmith {

constexpr const char* kCublasName = "libcublasLt.so.13";

// Folders in which the library is looked for after the loader's own path, most wanted first: $TUNESMITH_CUBLAS_DIR, the
// folder that scripts/setup.sh fills beside `backend_folder`, CUDA toolkits, pip's nvidia-cublas in the environments
// that are active, the user's and the system's.
std::vector<std::string> cublas_folders(const std::string& backend_folder);

// Opens the library by its absolute path, so that a backend that is linked with it finds it there. Returns the path.
// Throws CodedError ERR_BACKEND_UNAVAILABLE with every place searched, what was found in it, and what to do.
std::string open_cublas(const std::vector<std::string>& folders);

// Throws CodedError ERR_NO_DEVICE where no NVIDIA driver is installed.
void require_nvidia_driver();

}  // namespace tunesmith
