// ctest's one program. Says which backends are under test, and fails before any test where one of them is missing.
#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdio>

#include "core/error.h"
#include "test/harness.h"

int main(int argc, char** argv) {
  try {
    for (const auto& [name, backend] : tunesmith::test::backends()) {
      const auto info = backend->info();
      std::printf("%s: %s, %d threads, %s; bfloat16 %s\n", name.c_str(), info.isa.c_str(), info.threads,
                  info.library.c_str(), backend->supports(tunesmith::DType::kBFloat16) ? "tested" : "not supported");
    }
  } catch (const tunesmith::CodedError& error) {
    std::fprintf(stderr,
                 "%s: %s\nTUNESMITH_BACKEND_DIR is the folder of the backend libraries, TUNESMITH_TEST_BACKENDS the "
                 "backends to test\n",
                 error.code().c_str(), error.what());
    return 1;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
