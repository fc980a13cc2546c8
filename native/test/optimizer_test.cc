#include <cmath>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

// Gradients of a few sizes: ordinary ones, zeros, and some so small that epsilon decides.
Matrix gradients(Random& random, int64_t size) {
  Matrix values = random.matrix(1, size, 0.1);
  for (int64_t i = 0; i < size; ++i) {
    if (i % 7 == 3) values(0, i) = 0;
    if (i % 7 == 5) values(0, i) *= 1e-7;
  }
  return values.rounded(DType::kFloat32);
}

// Every backend with float32 tensors, and the reference with float64 ones.
void on_wide_types(const std::function<void(const std::string&, const Device&)>& check) {
  for (const auto& [name, backend] : backends())
    for_orders(name, [&, &name = name, &backend = backend] {
      check(name + " in float32", {*backend, DType::kFloat32, DType::kFloat32});
    });
  check("reference in float64", oracle());
}

constexpr int64_t kSizes[] = {1, 7, 64, 1003, 70001};

}  // namespace

TEST_CASE("sum_squares") {
  on_wide_types([](const std::string& name, const Device& device) {
    for (const int64_t size : kSizes) {
      Random random(1);
      const Matrix x = random.matrix(1, size).rounded(DType::kFloat32);
      const Buffer buffer = device.input(Kind::kWide, x);
      const double sum = device->sum_squares(buffer), expected = dot(x, x);
      INFO(name, " size ", size, ": ", sum, " instead of ", expected);
      // Squares of float32 are exact in double.
      CHECK(std::abs(sum - expected) <= 1e-12 * expected);
      CHECK(sum == device->sum_squares(buffer));
    }
    const Buffer two_rows = device.input(Kind::kWide, Matrix(2, 3, 2));
    CHECK(device->sum_squares(two_rows) == 24);
  });
}

TEST_CASE("adamw: five steps against the definition in double") {
  const double learning_rate = 1e-2, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, decay = 0.1, grad_scale = 0.5;
  on_wide_types([&](const std::string& name, const Device& device) {
    for (const int64_t size : kSizes) {
      Random random(2);
      Matrix w = random.matrix(1, size).rounded(DType::kFloat32), m(1, size), v(1, size);
      const Buffer weight = device.inout(Kind::kWide, w), first = device.inout(Kind::kWide, m);
      const Buffer second = device.inout(Kind::kWide, v);
      for (int step = 1; step <= 5; ++step) {
        const Matrix g = gradients(random, size);
        const double correction1 = 1 - std::pow(beta1, step), correction2 = 1 - std::pow(beta2, step);
        device->adamw(weight, first, second, device.input(Kind::kWide, g),
                      {learning_rate, beta1, beta2, epsilon, decay, correction1, correction2, grad_scale});
        for (int64_t i = 0; i < size; ++i) {
          const double gradient = g(0, i) * grad_scale;
          m(0, i) = beta1 * m(0, i) + (1 - beta1) * gradient;
          v(0, i) = beta2 * v(0, i) + (1 - beta2) * gradient * gradient;
          const double direction = (m(0, i) / correction1) / (std::sqrt(v(0, i) / correction2) + epsilon);
          w(0, i) -= learning_rate * decay * w(0, i) + learning_rate * direction;
        }
      }
      // Five updates of a few operations each.
      const std::string what = name + ": adamw of " + std::to_string(size) + ", ";
      check_close(what + "weights", weight.get(), w, device.tolerance(0, 10));
      check_close(what + "first moment", first.get(), m, device.tolerance(0, 20));
      check_close(what + "second moment", second.get(), v, device.tolerance(0, 20));
    }
  });
}

// Weights at zero show the update itself, which beside weights of size 1 could be off by a thousandth unnoticed.
TEST_CASE("adamw: one update from zero") {
  on_wide_types([](const std::string& name, const Device& device) {
    for (const double scale : {1.0, 1e-4, 1e-8, 1e-12}) {
      Random random(3);
      const Matrix g = random.matrix(1, 203, scale).rounded(DType::kFloat32);
      const Buffer weight = device.inout(Kind::kWide, Matrix(1, 203)), m = device.inout(Kind::kWide, Matrix(1, 203));
      const Buffer v = device.inout(Kind::kWide, Matrix(1, 203));
      device->adamw(weight, m, v, device.input(Kind::kWide, g), {1e-3, 0.9, 0.999, 1e-8, 0.1, 0.1, 0.001, 1});
      Matrix expected(1, 203);
      for (int64_t i = 0; i < 203; ++i) expected(0, i) = -1e-3 * g(0, i) / (std::abs(g(0, i)) + 1e-8);
      check_close(name + ": adamw update of gradients near " + std::to_string(scale), weight.get(), expected,
                  device.tolerance(0, 20));
    }
  });
}

TEST_CASE("adamw: the same bits twice") {
  on_wide_types([](const std::string& name, const Device& device) {
    const auto run = [&] {
      Random random(4);
      const Buffer weight = device.inout(Kind::kWide, random.matrix(1, 5003));
      const Buffer m = device.inout(Kind::kWide, random.matrix(1, 5003));
      const Buffer v = device.inout(Kind::kWide, Matrix(1, 5003, 0.3));
      const Buffer grad = device.input(Kind::kWide, random.matrix(1, 5003));
      device->adamw(weight, m, v, grad, {1e-2, 0.9, 0.999, 1e-8, 0.1, 0.2, 0.3, 0.7});
      return weight.get();
    };
    check_same(name + ": adamw, run again", run(), run());
  });
}

TEST_CASE("sgd") {
  on_wide_types([](const std::string& name, const Device& device) {
    for (const int64_t size : kSizes) {
      Random random(5);
      const Matrix w = random.matrix(1, size).rounded(DType::kFloat32);
      const Matrix g = random.matrix(1, size).rounded(DType::kFloat32);
      Matrix expected(1, size);
      for (int64_t i = 0; i < size; ++i) expected(0, i) = w(0, i) - 0.3 * (g(0, i) * 0.25 + 0.1 * w(0, i));
      const auto run = [&] {
        const Buffer weight = device.inout(Kind::kWide, w);
        device->sgd(weight, {}, device.input(Kind::kWide, g), {0.3, 0, 0.1, 0.25});
        return weight.get();
      };
      check_close(name + ": sgd of " + std::to_string(size), run(), expected, device.tolerance(0, 4));
      check_same(name + ": sgd, run again", run(), run());
    }
  });
}

// Two steps of each rule that has no closed form here, on large and odd sizes, against the reference in float64.
TEST_CASE("lion, adafactor, muon and momentum: backends against the reference") {
  using Update = std::function<Outputs(const Device&, int64_t, int64_t)>;
  const auto state = [](const Device& device, int64_t rows, int64_t cols, double fill = 0) {
    return device.inout(Kind::kWide, Matrix(rows, cols, fill));
  };
  const std::pair<const char*, Update> rules[] = {
      {"lion",
       [&](const Device& device, int64_t rows, int64_t cols) -> Outputs {
         Random random(6);
         const Buffer weight = device.inout(Kind::kWide, random.matrix(rows, cols)), m = state(device, rows, cols);
         for (int step = 0; step < 2; ++step)
           device->lion(weight, m, device.input(Kind::kWide, random.matrix(rows, cols)), {0.01, 0.9, 0.5, 0.1, 0.25});
         return {{"weight", weight.get(), device.tolerance(0, 8)}, {"m", m.get(), device.tolerance(0, 8)}};
       }},
      {"momentum",
       [&](const Device& device, int64_t rows, int64_t cols) -> Outputs {
         Random random(7);
         const Buffer weight = device.inout(Kind::kWide, random.matrix(rows, cols)), m = state(device, rows, cols);
         for (int step = 0; step < 2; ++step)
           device->sgd(weight, m, device.input(Kind::kWide, random.matrix(rows, cols)), {0.5, 0.9, 0.1, 0.25});
         return {{"weight", weight.get(), device.tolerance(0, 8)}, {"m", m.get(), device.tolerance(0, 8)}};
       }},
      {"adafactor",
       [&](const Device& device, int64_t rows, int64_t cols) -> Outputs {
         Random random(8);
         const Buffer weight = device.inout(Kind::kWide, random.matrix(rows, cols, 0.1));
         const Buffer row = state(device, 1, rows), col = state(device, 1, cols);
         for (int step = 1; step <= 2; ++step)
           device->adafactor(weight, row, col, device.input(Kind::kWide, random.matrix(rows, cols, step)),
                             {0.1, 1 - std::pow(step, -0.8), 0.1, 0.25});
         return {{"weight", weight.get(), device.tolerance(0, 60)},
                 {"row", row.get(), device.tolerance(0, 60)},
                 {"col", col.get(), device.tolerance(0, 60)}};
       }},
      {"muon",
       [&](const Device& device, int64_t rows, int64_t cols) -> Outputs {
         Random random(9);
         const Buffer weight = device.inout(Kind::kWide, random.matrix(rows, cols, 0.1));
         const Buffer m = state(device, rows, cols), scratch = state(device, 1, muon_scratch_size(rows, cols));
         for (int step = 0; step < 2; ++step)
           device->muon(weight, m, device.input(Kind::kWide, random.matrix(rows, cols)), scratch,
                        {0.02, 0.9, 0.1, 0.25});
         return {{"weight", weight.get(), device.tolerance(0, 2000)}, {"m", m.get(), device.tolerance(0, 8)}};
       }},
  };
  for (const auto& [rule, run] : rules)
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {1, 2500}, {67, 131}, {131, 67}, {64, 64}}) {
      const std::string what = rule + describe("rows", rows, "cols", cols);
      const Outputs expected = run(oracle(), rows, cols);
      for (const auto& [name, backend] : backends()) {
        const Device device{*backend, DType::kFloat32, DType::kFloat32};
        const Outputs found = run(device, rows, cols);
        for (size_t i = 0; i < found.size(); ++i)
          check_close(name + ": " + what + ", " + found[i].name, found[i].value, expected[i].value, found[i].tolerance);
        for_orders(name, [&, &name = name, rows = rows, cols = cols] {
          const Outputs again = run(device, rows, cols);
          for (size_t i = 0; i < found.size(); ++i)
            check_same(name + ": " + what + ", " + found[i].name + ", run again", again[i].value, found[i].value);
        });
      }
    }
}

// Blocks are handed out to threads and the last is short: every backend has the codes of the reference in float32.
TEST_CASE("adamw_8bit: every backend has the bits of the reference") {
  for (const int64_t size : {1, 255, 256, 257, 70001}) {
    const int64_t blocks = (size + 255) / 256;
    std::vector<std::vector<uint8_t>> codes;
    std::vector<Matrix> weights;
    const auto check = [&](const std::string& name, Backend& backend) {
      const Device device{backend, DType::kFloat32, DType::kFloat32};
      Random random(10);
      const Buffer weight = device.inout(Kind::kWide, random.matrix(1, size));
      const Buffer memory(backend, size_t(2 * size + 8 * blocks + 8));
      backend.zero(memory.data(), size_t(2 * size + 8 * blocks + 8));
      auto* absmax = static_cast<float*>(memory.data());
      auto* first = reinterpret_cast<uint8_t*>(absmax + 2 * blocks);
      for (int step = 1; step <= 3; ++step)
        device->adamw_8bit(weight, {first, absmax, first + size, absmax + blocks},
                           device.input(Kind::kWide, gradients(random, size)),
                           {1e-2, 0.9, 0.999, 1e-8, 0.1, 1 - std::pow(0.9, step), 1 - std::pow(0.999, step), 0.5});
      codes.emplace_back(size_t(2 * size));
      backend.download(codes.back().data(), first, codes.back().size());
      weights.push_back(weight.get());
      INFO(name, " size ", size);
      CHECK(codes.back() == codes.front());
      check_same(name + ": adamw_8bit of " + std::to_string(size), weights.back(), weights.front());
    };
    for (const auto& [name, backend] : backends())
      for_orders(name, [&, &name = name, &backend = backend] { check(name, *backend); });
  }
}

}  // namespace tunesmith::test
