// The activations of backend.h and their slopes on float32 lanes, once per instruction set.
#if defined(TUNESMITH_CPU_ACTIVATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TUNESMITH_CPU_ACTIVATION_INL_H_
#undef TUNESMITH_CPU_ACTIVATION_INL_H_
#else
#define TUNESMITH_CPU_ACTIVATION_INL_H_
#endif

#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

template <class V>
struct ValueAndSlope {
  V value, slope;
};

struct Silu {
  template <class D, class V>
  static HWY_INLINE V sigmoid(D d, V x) {
    const auto one = hn::Set(d, 1.0f);
    return hn::Div(one, hn::Add(one, exp(d, hn::Neg(x))));
  }
  template <class D, class V>
  static HWY_INLINE V value(D d, V x) {
    return hn::Mul(x, sigmoid(d, x));
  }
  // d(x · s(x))/dx = s + x · s · (1 - s)
  template <class D, class V>
  static HWY_INLINE ValueAndSlope<V> both(D d, V x) {
    const auto s = sigmoid(d, x), product = hn::Mul(x, s);
    return {product, hn::MulAdd(product, hn::Sub(hn::Set(d, 1.0f), s), s)};
  }
};

struct Gelu {
  // Φ(x) within 2^-24 and, where it is not small, within a few ulp: through the error function near 0, its complement
  // away from it.
  template <class D, class V>
  static HWY_INLINE V normal(D d, V x) {
    const auto half = hn::Set(d, 0.5f);
    const auto z = hn::Mul(x, hn::Set(d, 0.70710678f)), t = hn::Abs(z), s = hn::Mul(z, z);
    // erf on |z| < 0.93: z plus z times a polynomial in z².
    auto near = hn::Set(d, -5.96761703e-4f);
    near = hn::MulAdd(near, s, hn::Set(d, 4.99119423e-3f));
    near = hn::MulAdd(near, s, hn::Set(d, -2.67681349e-2f));
    near = hn::MulAdd(near, s, hn::Set(d, 1.12819925e-1f));
    near = hn::MulAdd(near, s, hn::Set(d, -3.76125336e-1f));
    near = hn::MulAdd(near, s, hn::Set(d, 1.28379166e-1f));
    near = hn::MulAdd(near, z, z);
    // erfc(t) = e^p(t) beyond.
    auto far = hn::MulAdd(hn::Set(d, -1.72853470e-5f), t, hn::Set(d, 3.83197126e-4f));
    const auto odd = hn::MulAdd(hn::Set(d, -3.88396438e-3f), t, hn::Set(d, 2.42546219e-2f));
    far = hn::MulAdd(far, s, odd);
    far = hn::MulAdd(far, t, hn::Set(d, -1.06777877e-1f));
    far = hn::MulAdd(far, t, hn::Set(d, -6.34846687e-1f));
    far = hn::MulAdd(far, t, hn::Set(d, -1.28717512e-1f));
    far = hn::MulAdd(far, t, hn::Neg(t));
    // The polynomial fits up to 4. Beyond, where erfc is under 2e-8, e^-t² times erfc(4) e^16 is right to a few tenths.
    far = hn::IfThenElse(hn::Gt(t, hn::Set(d, 4.0f)), hn::Sub(hn::Set(d, -1.9877783f), s), far);
    const auto tail = hn::Mul(half, exp(d, far));
    const auto outer = hn::IfThenElse(hn::Lt(z, hn::Zero(d)), tail, hn::Sub(hn::Set(d, 1.0f), tail));
    return hn::IfThenElse(hn::Lt(t, hn::Set(d, 0.927734375f)), hn::MulAdd(near, half, half), outer);
  }
  template <class D, class V>
  static HWY_INLINE V value(D d, V x) {
    return hn::Mul(x, normal(d, x));
  }
  // Φ(x) + x · φ(x)
  template <class D, class V>
  static HWY_INLINE ValueAndSlope<V> both(D d, V x) {
    const auto n = normal(d, x);
    const auto density = hn::Mul(hn::Set(d, 0.39894228f), exp(d, hn::Mul(hn::Mul(x, x), hn::Set(d, -0.5f))));
    return {hn::Mul(x, n), hn::MulAdd(x, density, n)};
  }
};

// x/2 · (1 + tanh(u)) = x · sigmoid(2u), u = √(2/π) (x + 0.044715 x³)
struct GeluTanh {
  static constexpr float kLinear = 2 * 0.79788456f, kCubic = kLinear * 0.044715f;

  template <class D, class V>
  static HWY_INLINE V share(D d, V x) {
    const auto inner = hn::MulAdd(hn::Mul(x, x), hn::Set(d, kCubic), hn::Set(d, kLinear));
    return Silu::sigmoid(d, hn::Mul(x, inner));
  }
  template <class D, class V>
  static HWY_INLINE V value(D d, V x) {
    return hn::Mul(x, share(d, x));
  }
  // s + x · s · (1 - s) · d(2u)/dx
  template <class D, class V>
  static HWY_INLINE ValueAndSlope<V> both(D d, V x) {
    const auto s = share(d, x), product = hn::Mul(x, s);
    const auto inner = hn::MulAdd(hn::Mul(x, x), hn::Set(d, 3 * kCubic), hn::Set(d, kLinear));
    return {product, hn::MulAdd(hn::Mul(product, hn::Sub(hn::Set(d, 1.0f), s)), inner, s)};
  }
};

struct Relu {
  template <class D, class V>
  static HWY_INLINE V value(D d, V x) {
    return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x);  // NaN stays NaN
  }
  template <class D, class V>
  static HWY_INLINE ValueAndSlope<V> both(D d, V x) {
    return {value(d, x), hn::IfThenElseZero(hn::Gt(x, hn::Zero(d)), hn::Set(d, 1.0f))};
  }
};

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
