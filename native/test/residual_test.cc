#include "test/harness.h"

namespace tunesmith::test {

TEST_CASE("residual_add: backends against the reference") {
  for (const int64_t rows : {1, 3, 67})
    for (const int64_t width : {1, 7, 64, 1003})
      for (const bool in_place : {false, true})
        for (const bool copy : {false, true})
          for (const Margin margin : {Margin{}, kSlice})
            check_backends(
                "residual_add" + describe("rows", rows, "width", width, "in place", in_place, "compute copy", copy),
                [&](const Device& device) -> Outputs {
                  Random random(1);
                  const Matrix x = random.matrix(rows, width);
                  const Buffer residual = device.input(Kind::kWide, x);
                  const Buffer delta = device.input(Kind::kCompute, random.matrix(rows, width), margin);
                  const Buffer out = in_place ? device.inout(Kind::kWide, x) : device.output(Kind::kWide, rows, width);
                  const Buffer rounded = device.output(Kind::kCompute, rows, width, margin);
                  device->residual_add(out, copy ? rounded.tensor() : Tensor(), in_place ? out : residual, delta);
                  Outputs outputs = {{"out", out.get(), device.tolerance(0, 1)}};
                  if (copy) outputs.push_back({"out_compute", rounded.get(), device.tolerance(1, 1)});
                  return outputs;
                });
}

}  // namespace tunesmith::test
