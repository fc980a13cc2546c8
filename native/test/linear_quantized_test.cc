// Matmuls with NF4 weights against the same matmuls with the dequantised weights in float64.
#include <cmath>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

// A weight of several quantised parts, as [q; k; v] are.
class Quantized {
 public:
  Quantized(const Device& device, const Matrix& w, const std::vector<int64_t>& part_rows, bool doubled)
      : device_(device),
        dequantized_(w.rows, w.cols),
        master_(matrix(nullptr, device.type(Kind::kWide), w.rows, w.cols)) {
    int64_t start = 0;
    for (const int64_t rows : part_rows) {
      add(w, start, rows, doubled);
      start += rows;
    }
    REQUIRE(start == w.rows);
  }

  operator LinearWeight() const { return {master_, device_.type(), nullptr, parts_}; }
  // What the codes mean, in float64.
  const Matrix& dequantized() const { return dequantized_; }

 private:
  void add(const Matrix& w, int64_t start, int64_t rows, bool doubled) {
    std::vector<float> values;
    for (int64_t i = 0; i < rows * w.cols; i++) values.push_back(float(w.values[size_t(start * w.cols + i)]));
    Nf4Matrix host{rows, w.cols};
    std::vector<uint8_t> codes(size_t(host.size() + 1) / 2), scale_codes(static_cast<size_t>(host.blocks()));
    std::vector<float> absmax, groups(static_cast<size_t>(host.groups()));
    for (int64_t first = 0; first < host.size(); first += kNf4Block)
      absmax.push_back(nf4_quantize_block(codes.data() + first / 2, values.data() + first,
                                          std::min(kNf4Block, host.size() - first)));
    float offset = nf4_quantize_scales(scale_codes.data(), groups.data(), absmax);
    host.codes = codes.data();
    host.absmax = doubled ? groups.data() : absmax.data();
    if (doubled) host.scale_codes = scale_codes.data(), host.offset = &offset;
    for (int64_t i = 0; i < host.size(); i++) dequantized_.values[size_t(start * w.cols + i)] = host.value(i);

    Nf4Matrix part{rows, w.cols};
    part.codes = upload(codes);
    part.absmax = upload(doubled ? groups : absmax);
    if (doubled) part.scale_codes = upload(scale_codes), part.offset = upload(std::vector<float>{offset});
    parts_.push_back(part);
  }

  template <class T>
  T* upload(const std::vector<T>& values) {
    buffers_.push_back(std::make_unique<Buffer>(*device_, values.size() * sizeof(T)));
    device_->upload(buffers_.back()->data(), values.data(), values.size() * sizeof(T));
    return static_cast<T*>(buffers_.back()->data());
  }

  Device device_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
  std::vector<Nf4Matrix> parts_;
  Matrix dequantized_;
  Tensor master_;
};

struct Case {
  int64_t m, k;
  std::vector<int64_t> parts;
  bool doubled = true, bias = false, accumulate = false;
  Kind y = Kind::kCompute, dx = Kind::kCompute;
  Margin margin = {};
  LinearUse use = LinearUse::kFrozen;

  int64_t n() const {
    int64_t rows = 0;
    for (const int64_t part : parts) rows += part;
    return rows;
  }
  std::string text() const {
    return "quantized linear" + describe("m", m, "n", n(), "k", k, "parts", parts.size(), "doubled", doubled, "bias",
                                         bias, "accumulate", accumulate, "wide y", y == Kind::kWide, "slices",
                                         margin.left > 0);
  }
};

Output sum(const Device& device, const std::string& name, const Matrix& value, Kind out, int64_t terms) {
  const double root = std::sqrt(double(terms));
  return {name, value, device.tolerance(out == Kind::kCompute, 4 + 2 * root), device.tolerance(0, root)};
}

Outputs run(const Device& device, const Case& c) {
  Random random(6);
  const int64_t n = c.n();
  const Matrix w = random.matrix(n, c.k), bias = random.matrix(1, n), x = random.matrix(c.m, c.k);
  const Matrix dy = random.matrix(c.m, n), dx = random.matrix(c.m, c.k);
  const size_t bytes = device->linear_scratch_bytes(c.m + 5, {n, c.k, device.type(), c.use, true});
  const size_t unplanned = device->unplanned_bytes();
  const Buffer scratch(*device, bytes);
  device->set_scratch(scratch.data(), bytes);
  const Quantized quantized(device, w, c.parts, c.doubled);
  // The oracle rounds the dequantised weights to the type of the backend it judges, which does that itself.
  const Buffer master = device.input(Kind::kWide, quantized.dequantized().rounded(device.rounding()));
  LinearWeight weight = quantized;
  if (device.type() == DType::kFloat64) weight = {master, device.type(), nullptr};
  device->linear_prepare(weight, c.use);

  const Buffer bias_in = device.input(Kind::kWide, bias), x_in = device.input(Kind::kCompute, x, c.margin);
  const Buffer dy_in = device.input(Kind::kCompute, dy, c.margin);
  const Buffer y_out = device.output(c.y, c.m, n, c.margin);
  const Buffer dx_out = c.accumulate ? device.inout(c.dx, dx, c.margin) : device.output(c.dx, c.m, c.k, c.margin);
  device->linear_forward(y_out, x_in, weight, c.bias ? bias_in.tensor() : Tensor());
  Outputs outputs = {sum(device, "y", y_out.get(), c.y, c.k)};
  if (c.use == LinearUse::kFrozen) {
    device->linear_backward_input(dx_out, dy_in, weight, c.accumulate);
    outputs.push_back(sum(device, "dx", dx_out.get(), c.dx, n));
  }
  device->set_scratch(nullptr, 0);
  if (c.margin.left == 0) CHECK_MESSAGE(device->unplanned_bytes() == unplanned, c.text());
  return outputs;
}

}  // namespace

TEST_CASE("quantized linear: backends against the dequantised weights in float64") {
  const std::vector<Case> shapes = {
      {0, 3, {5}},
      {1, 1, {1}},
      {1, 5, {7}},
      {3, 16, {64}},
      {17, 33, {511}},
      {2, 64, {1, 2, 3}},
      {64, 128, {32, 16, 48}},
      {65, 24, {1003}},
      {9, 31, {7, 5, 9}},
      {33, 200, {10, 70}},
      {257, 576, {192, 64, 64}},
  };
  for (const Case& shape : shapes)
    for (const bool doubled : {false, true})
      for (const Margin margin : {Margin{}, kSlice})
        for (const bool wide : {false, true}) {
          Case c = shape;
          c.doubled = doubled, c.margin = margin, c.bias = c.accumulate = wide;
          c.y = c.dx = wide ? Kind::kWide : Kind::kCompute;
          check_backends(c.text(), [&](const Device& device) { return run(device, c); });
        }
  // More than one panel of the CPU backend in both directions, and more than one group of scales.
  Case large{3, 1030, {1000, 77}};
  check_backends(large.text(), [&](const Device& device) { return run(device, large); });
  large.m = 5, large.use = LinearUse::kInference;
  check_backends(large.text() + " inference", [&](const Device& device) { return run(device, large); });
}

TEST_CASE("quantized linear: the reference's quantised form is its dequantised one") {
  const Device device = oracle();
  Random random(7);
  const Matrix w = random.matrix(9, 37), x = random.matrix(4, 37), dy = random.matrix(4, 9);
  const Quantized quantized(device, w, {2, 7}, true);
  const Buffer master = device.input(Kind::kWide, quantized.dequantized());
  const Buffer x_in = device.input(Kind::kCompute, x), dy_in = device.input(Kind::kCompute, dy);
  std::vector<Matrix> results;
  for (const LinearWeight& weight : {LinearWeight(quantized), LinearWeight{master, device.type(), nullptr}}) {
    const Buffer y = device.output(Kind::kCompute, 4, 9), dx = device.output(Kind::kCompute, 4, 37);
    device->linear_forward(y, x_in, weight, {});
    device->linear_backward_input(dx, dy_in, weight, false);
    results.push_back(y.get());
    results.push_back(dx.get());
  }
  check_same("y", results[0], results[2]);
  check_same("dx", results[1], results[3]);
}

TEST_CASE("lora_norm: of quantised weights") {
  for (const int64_t first : {0, 3, 11}) {
    const std::string text = "lora_norm, quantised" + describe("first", first);
    check_backends(text, [&](const Device& device) -> Outputs {
      Random random(9);
      const Matrix w = random.matrix(17, 75), a = random.matrix(2, 75), b = random.matrix(6, 2);
      const Quantized quantized(device, w, {5, 12}, true);
      const Buffer master = device.input(Kind::kWide, quantized.dequantized());
      LinearWeight weight = quantized;
      if (device.type() == DType::kFloat64) weight = {master, device.type(), nullptr};
      const Buffer norm = device.output(Kind::kWide, 1, 6),
                   a_in = device.input(Kind::kWide, a.rounded(DType::kFloat32));
      const Buffer b_in = device.input(Kind::kWide, b.rounded(DType::kFloat32));
      device->lora_norm(norm, {}, {}, weight, first, a_in, b_in, 0.5);
      return {{"norm", norm.get(), device.tolerance(0, 16), device.tolerance(0, 16)}};
    });
  }
}

TEST_CASE("quantized linear: gradient of the input against finite differences") {
  const Device device = oracle();
  Random random(8);
  Matrix x = random.matrix(3, 35);
  const Matrix dy = random.matrix(3, 6);
  const Quantized weight(device, random.matrix(6, 35), {6}, true);
  const auto loss = [&] {
    const Buffer y = device.output(Kind::kCompute, 3, 6);
    device->linear_forward(y, device.input(Kind::kCompute, x), weight, {});
    return dot(y.get(), dy);
  };
  const Buffer dx = device.output(Kind::kCompute, 3, 35);
  device->linear_backward_input(dx, device.input(Kind::kCompute, dy), weight, false);
  check_gradient("quantized linear dx", dx.get(), x, loss);
}

}  // namespace tunesmith::test
