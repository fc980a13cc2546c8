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
    check(name + " in float32", {*backend, DType::kFloat32, DType::kFloat32});
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
        device->sgd(weight, device.input(Kind::kWide, g), 0.3, 0.1, 0.25);
        return weight.get();
      };
      check_close(name + ": sgd of " + std::to_string(size), run(), expected, device.tolerance(0, 4));
      check_same(name + ": sgd, run again", run(), run());
    }
  });
}

}  // namespace tunesmith::test
