#include "backend/profiled.h"

#include <algorithm>
#include <chrono>

namespace tunesmith {

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

template <class Op>
auto ProfiledBackend::timed(const char* name, Op op) {
  struct Count {
    OpTime& time;
    Backend& backend;
    double began = now();
    ~Count() {
      backend.synchronize();
      time.seconds += now() - began;
      time.calls++;
    }
  } count{times_.try_emplace(name, OpTime{name, 0, 0}).first->second, *inner_};
  return op();
}

template <class Op>
void ProfiledBackend::timed(const char* name, int64_t n, int64_t k, Op op) {
  timed((std::string(name) + " " + std::to_string(n) + "x" + std::to_string(k)).c_str(), op);
}

std::vector<OpTime> ProfiledBackend::take() {
  std::vector<OpTime> result;
  for (auto& [name, time] : times_) result.push_back(time);
  times_.clear();
  std::sort(result.begin(), result.end(), [](const OpTime& a, const OpTime& b) { return a.seconds > b.seconds; });
  return result;
}

void ProfiledBackend::zero(void* device, size_t bytes) {
  timed("zero", [&] { inner_->zero(device, bytes); });
}

void ProfiledBackend::linear_prepare(const LinearWeight& weight, LinearUse use) {
  timed("linear_prepare", [&] { inner_->linear_prepare(weight, use); });
}

void ProfiledBackend::linear_forward(Tensor y, Tensor x, const LinearWeight& weight, Tensor bias) {
  timed("linear_forward", weight.master.rows, weight.master.cols, [&] { inner_->linear_forward(y, x, weight, bias); });
}

void ProfiledBackend::linear_backward_input(Tensor dx, Tensor dy, const LinearWeight& weight, bool accumulate) {
  timed("linear_backward_input", weight.master.rows, weight.master.cols,
        [&] { inner_->linear_backward_input(dx, dy, weight, accumulate); });
}

void ProfiledBackend::linear_backward_weight(Tensor dw, Tensor dy, Tensor x, bool accumulate) {
  timed("linear_backward_weight", dw.rows, dw.cols, [&] { inner_->linear_backward_weight(dw, dy, x, accumulate); });
}

void ProfiledBackend::bias_backward(Tensor dbias, Tensor dy) {
  timed("bias_backward", [&] { inner_->bias_backward(dbias, dy); });
}

void ProfiledBackend::embedding_forward(Tensor out, Tensor table, const int32_t* tokens, double scale,
                                        bool accumulate) {
  timed("embedding_forward", [&] { inner_->embedding_forward(out, table, tokens, scale, accumulate); });
}

void ProfiledBackend::embedding_backward(Tensor dtable, Tensor dout, const int32_t* tokens, double scale) {
  timed("embedding_backward", [&] { inner_->embedding_backward(dtable, dout, tokens, scale); });
}

void ProfiledBackend::rmsnorm_forward(Tensor out, Tensor y, Tensor rstd, Tensor residual, Tensor delta, Tensor weight,
                                      double offset, double epsilon) {
  timed("rmsnorm_forward", [&] { inner_->rmsnorm_forward(out, y, rstd, residual, delta, weight, offset, epsilon); });
}

void ProfiledBackend::rmsnorm_apply(Tensor y, Tensor x, Tensor rstd, Tensor weight, double offset) {
  timed("rmsnorm_apply", [&] { inner_->rmsnorm_apply(y, x, rstd, weight, offset); });
}

void ProfiledBackend::rmsnorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dy, Tensor x, Tensor rstd,
                                       Tensor weight, double offset) {
  timed("rmsnorm_backward", [&] { inner_->rmsnorm_backward(dx, dx_compute, dweight, dy, x, rstd, weight, offset); });
}

void ProfiledBackend::group_rmsnorm_forward(Tensor y, Tensor x, int32_t groups, Tensor weight, double offset,
                                            double epsilon) {
  timed("group_rmsnorm_forward", [&] { inner_->group_rmsnorm_forward(y, x, groups, weight, offset, epsilon); });
}

void ProfiledBackend::group_rmsnorm_backward(Tensor dx, Tensor dweight, Tensor dy, Tensor x, int32_t groups,
                                             Tensor weight, double offset, double epsilon) {
  timed("group_rmsnorm_backward",
        [&] { inner_->group_rmsnorm_backward(dx, dweight, dy, x, groups, weight, offset, epsilon); });
}

void ProfiledBackend::layernorm_forward(Tensor out, Tensor y, Tensor statistics, Tensor residual, Tensor delta,
                                        Tensor weight, Tensor bias, double epsilon) {
  timed("layernorm_forward",
        [&] { inner_->layernorm_forward(out, y, statistics, residual, delta, weight, bias, epsilon); });
}

void ProfiledBackend::layernorm_apply(Tensor y, Tensor x, Tensor statistics, Tensor weight, Tensor bias) {
  timed("layernorm_apply", [&] { inner_->layernorm_apply(y, x, statistics, weight, bias); });
}

void ProfiledBackend::layernorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dbias, Tensor dy,
                                         Tensor x, Tensor statistics, Tensor weight) {
  timed("layernorm_backward",
        [&] { inner_->layernorm_backward(dx, dx_compute, dweight, dbias, dy, x, statistics, weight); });
}

void ProfiledBackend::residual_add(Tensor out, Tensor out_compute, Tensor residual, Tensor delta) {
  timed("residual_add", [&] { inner_->residual_add(out, out_compute, residual, delta); });
}

void ProfiledBackend::rope(Tensor x, int32_t heads, int32_t head_dim, Tensor table, const int32_t* positions,
                           bool inverse) {
  timed("rope", [&] { inner_->rope(x, heads, head_dim, table, positions, inverse); });
}

void ProfiledBackend::attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                                        const AttentionBatch& batch, const AttentionShape& shape) {
  timed("attention_forward", [&] { inner_->attention_forward(out, lse, q, k, v, batch, shape); });
}

void ProfiledBackend::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
                                         Tensor k, Tensor v, const AttentionBatch& batch, const AttentionShape& shape) {
  timed("attention_backward", [&] { inner_->attention_backward(dq, dk, dv, dout, out, lse, q, k, v, batch, shape); });
}

void ProfiledBackend::activation_forward(Tensor out, Tensor in, Activation activation) {
  timed("activation_forward", [&] { inner_->activation_forward(out, in, activation); });
}

void ProfiledBackend::activation_backward(Tensor din, Tensor dout, Tensor in, Activation activation) {
  timed("activation_backward", [&] { inner_->activation_backward(din, dout, in, activation); });
}

void ProfiledBackend::gather_rows(Tensor out, Tensor x, const int32_t* rows) {
  timed("gather_rows", [&] { inner_->gather_rows(out, x, rows); });
}

void ProfiledBackend::scatter_add_rows(Tensor x, Tensor in, const int32_t* rows, int64_t count) {
  timed("scatter_add_rows", [&] { inner_->scatter_add_rows(x, in, rows, count); });
}

void ProfiledBackend::cast(Tensor out, Tensor in) {
  timed("cast", [&] { inner_->cast(out, in); });
}

void ProfiledBackend::add_scaled(Tensor y, Tensor x, Tensor gain, double scale, double shift) {
  timed("add_scaled", [&] { inner_->add_scaled(y, x, gain, scale, shift); });
}

void ProfiledBackend::scale_columns(Tensor y, Tensor x, Tensor gain, double scale, double shift, Tensor bias) {
  timed("scale_columns", [&] { inner_->scale_columns(y, x, gain, scale, shift, bias); });
}

void ProfiledBackend::column_dots(Tensor out, Tensor a, Tensor b, Tensor divisor) {
  timed("column_dots", [&] { inner_->column_dots(out, a, b, divisor); });
}

void ProfiledBackend::lora_norm(Tensor norm, Tensor gain, Tensor magnitude, const LinearWeight& w, int64_t first,
                                Tensor a, Tensor b, double scale) {
  timed("lora_norm", [&] { inner_->lora_norm(norm, gain, magnitude, w, first, a, b, scale); });
}

void ProfiledBackend::lora_merge(Tensor weight, Tensor a, Tensor b, double scale, Tensor gain) {
  timed("lora_merge", [&] { inner_->lora_merge(weight, a, b, scale, gain); });
}

void ProfiledBackend::embedding_noise(Tensor x, const EmbeddingNoise& noise) {
  timed("embedding_noise", [&] { inner_->embedding_noise(x, noise); });
}

void ProfiledBackend::dropout(Tensor y, Tensor x, const DropoutMask& mask, bool accumulate) {
  timed("dropout", [&] { inner_->dropout(y, x, mask, accumulate); });
}

void ProfiledBackend::softcap_forward(Tensor x, double cap) {
  timed("softcap_forward", [&] { inner_->softcap_forward(x, cap); });
}

void ProfiledBackend::softcap_backward(Tensor dx, Tensor y, double cap) {
  timed("softcap_backward", [&] { inner_->softcap_backward(dx, y, cap); });
}

void ProfiledBackend::cross_entropy(Tensor logits, Tensor dlogits, Tensor loss, int32_t* correct,
                                    const int32_t* targets, Tensor weights, double scale, const Objective& objective) {
  timed("cross_entropy",
        [&] { inner_->cross_entropy(logits, dlogits, loss, correct, targets, weights, scale, objective); });
}

double ProfiledBackend::sum_squares(Tensor x) {
  return timed("sum_squares", [&] { return inner_->sum_squares(x); });
}

void ProfiledBackend::adamw(Tensor weight, Tensor m, Tensor v, Tensor grad, const AdamWStep& step) {
  timed("adamw", [&] { inner_->adamw(weight, m, v, grad, step); });
}

void ProfiledBackend::adamw_8bit(Tensor weight, const Moments8& moments, Tensor grad, const AdamWStep& step) {
  timed("adamw_8bit", [&] { inner_->adamw_8bit(weight, moments, grad, step); });
}

void ProfiledBackend::lion(Tensor weight, Tensor m, Tensor grad, const LionStep& step) {
  timed("lion", [&] { inner_->lion(weight, m, grad, step); });
}

void ProfiledBackend::adafactor(Tensor weight, Tensor row, Tensor col, Tensor grad, const AdafactorStep& step) {
  timed("adafactor", [&] { inner_->adafactor(weight, row, col, grad, step); });
}

void ProfiledBackend::muon(Tensor weight, Tensor m, Tensor grad, Tensor scratch, const MuonStep& step) {
  timed("muon", weight.rows, weight.cols, [&] { inner_->muon(weight, m, grad, scratch, step); });
}

void ProfiledBackend::sgd(Tensor weight, Tensor m, Tensor grad, const SgdStep& step) {
  timed("sgd", [&] { inner_->sgd(weight, m, grad, step); });
}

}  // namespace tunesmith
