#include "backend/cublas.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "backend/loader.h"
#include "core/error.h"
#include "test/harness.h"

namespace tunesmith::test {

namespace {

std::string failure(const std::function<void()>& run, const char* code) {
  try {
    run();
  } catch (const CodedError& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  FAIL("nothing thrown");
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before, had_ = true;
    setenv(name, value.c_str(), 1);
  }
  ~Variable() { had_ ? setenv(name_, before_.c_str(), 1) : unsetenv(name_); }

 private:
  const char* name_;
  std::string before_;
  bool had_ = false;
};

}  // namespace

TEST_CASE("cublas: the places where it is looked for") {
  const auto root = std::filesystem::temp_directory_path() / "tunesmith-cublas-places";
  std::filesystem::create_directories(root / "venv/lib/python3.12/site-packages");
  const Variable own("TUNESMITH_CUBLAS_DIR", "/own"), toolkit("CUDA_HOME", "/toolkit");
  const Variable environment("VIRTUAL_ENV", (root / "venv").string());
  const auto folders = cublas_folders("/package/build/Release");
  const auto place = [&](const std::string& folder) {
    const auto found = std::find(folders.begin(), folders.end(), folder);
    CHECK_MESSAGE(found != folders.end(), folder);
    return found - folders.begin();
  };
  CHECK(place("/own") == 0);
  CHECK(place("/package/build/cublas/nvidia/cu13/lib") < place("/toolkit/lib64"));
  CHECK(place("/toolkit/lib64") < place("/usr/local/cuda/lib64"));
  place((root / "venv/lib/python3.12/site-packages/nvidia/cu13/lib").string());
  std::filesystem::remove_all(root);
}

// Hidden first: once it is loaded it is found everywhere.
TEST_CASE("cublas: hidden it is missed by name, restored it is found") {
  const auto root = std::filesystem::temp_directory_path() / "tunesmith-cublas-hidden";
  std::filesystem::create_directories(root / "empty");
  std::filesystem::create_directories(root / "broken");
  std::ofstream(root / "broken" / kCublasName) << "not a library";
  const auto folder = [&](const char* name) { return (root / name).string(); };
  const std::string text = failure(
      [&] {
        open_cublas({folder("none"), folder("empty"), folder("broken")});
      },
      "ERR_BACKEND_UNAVAILABLE");
  CHECK(contains(text, "pip install nvidia-cublas"));
  CHECK(contains(text, "the loader's path"));
  CHECK(contains(text, folder("none") + ": no such folder"));
  CHECK(contains(text, folder("empty") + ": not in it"));
  CHECK(contains(text, folder("broken") + ": does not load"));
  std::filesystem::remove_all(root);
#ifdef TUNESMITH_CUBLAS_LIBRARY
  const std::string library = std::filesystem::canonical(TUNESMITH_CUBLAS_LIBRARY).string();
  const std::string found = open_cublas({folder("none"), std::filesystem::path(library).parent_path().string()});
  CHECK((found == library || found == kCublasName));
#endif
}

#ifdef TUNESMITH_CUBLAS_LIBRARY
// Where a GPU is, the op tests run on it; elsewhere the backend must say what is missing.
TEST_CASE("backends: cuda is there, or says what is missing") {
  // A build of single targets may lack it; a whole one fails without it.
  const char* const folder = std::getenv("TUNESMITH_BACKEND_DIR");
  if (!folder || !std::filesystem::exists(std::filesystem::path(folder) / "libtunesmith_cuda.so")) return;
  try {
    const std::string name = create_backend("cuda", 0)->info().name;
    CHECK(name == "cuda");
  } catch (const CodedError& error) {
    CHECK(error.code() == "ERR_NO_DEVICE");
    CHECK(contains(error.what(), "NVIDIA"));
  }
}
#endif

}  // namespace tunesmith::test
