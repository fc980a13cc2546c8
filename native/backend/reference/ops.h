// The ops of the reference backend. T is the compute type, float or double, and the wide type is the same (dtype.h).
// Shapes and mathematics are those of backend.h; wrong shapes trip an assert here, which makes this the backend to
// develop a model on.
#pragma once

#include "backend/backend.h"

namespace tunesmith::reference {

// Row n of a weight: where it lies, or dequantised into `room`.
template <class T>
const T* weight_row(const LinearWeight& weight, int64_t n, std::vector<T>& room);

template <class T>
void linear_forward(Tensor y, Tensor x, const LinearWeight& weight, Tensor bias);
template <class T>
void linear_backward_input(Tensor dx, Tensor dy, const LinearWeight& weight, bool accumulate);
template <class T>
void linear_backward_weight(Tensor dw, Tensor dy, Tensor x, bool accumulate);
template <class T>
void bias_backward(Tensor dbias, Tensor dy);

template <class T>
void embedding_forward(Tensor out, Tensor table, const int32_t* tokens, double scale, bool accumulate);
template <class T>
void embedding_backward(Tensor dtable, Tensor dout, const int32_t* tokens, double scale);

template <class T>
void rmsnorm_forward(Tensor out, Tensor y, Tensor rstd, Tensor residual, Tensor delta, Tensor weight, double offset,
                     double epsilon);
template <class T>
void rmsnorm_apply(Tensor y, Tensor x, Tensor rstd, Tensor weight, double offset);
template <class T>
void rmsnorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dy, Tensor x, Tensor rstd, Tensor weight,
                      double offset);

template <class T>
void group_rmsnorm_forward(Tensor y, Tensor x, int32_t groups, Tensor weight, double offset, double epsilon);
template <class T>
void group_rmsnorm_backward(Tensor dx, Tensor dweight, Tensor dy, Tensor x, int32_t groups, Tensor weight,
                            double offset, double epsilon);

template <class T>
void layernorm_forward(Tensor out, Tensor y, Tensor statistics, Tensor residual, Tensor delta, Tensor weight,
                       Tensor bias, double epsilon);
template <class T>
void layernorm_apply(Tensor y, Tensor x, Tensor statistics, Tensor weight, Tensor bias);
template <class T>
void layernorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dbias, Tensor dy, Tensor x,
                        Tensor statistics, Tensor weight);

template <class T>
void residual_add(Tensor out, Tensor out_compute, Tensor residual, Tensor delta);

template <class T>
void rope(Tensor x, int32_t heads, int32_t head_dim, Tensor table, const int32_t* positions, bool inverse);

template <class T>
void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionBatch& batch,
                       const AttentionShape& shape);
template <class T>
void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q, Tensor k,
                        Tensor v, const AttentionBatch& batch, const AttentionShape& shape);

template <class T>
void activation_forward(Tensor out, Tensor in, Activation activation);
template <class T>
void activation_backward(Tensor din, Tensor dout, Tensor in, Activation activation);

// Any element type: rows are copied as bytes.
void gather_rows(Tensor out, Tensor x, const int32_t* rows);
template <class T>
void scatter_add_rows(Tensor x, Tensor in, const int32_t* rows, int64_t count);
// Any two float types; throws ERR_UNSUPPORTED_DTYPE for int32.
void cast(Tensor out, Tensor in);

template <class T>
void add_scaled(Tensor y, Tensor x, Tensor gain, double scale, double shift);
template <class T>
void scale_columns(Tensor y, Tensor x, Tensor gain, double scale, double shift, Tensor bias);
template <class T>
void column_dots(Tensor out, Tensor a, Tensor b, Tensor divisor);
template <class T>
void lora_norm(Tensor norm, Tensor gain, Tensor magnitude, const LinearWeight& w, int64_t first, Tensor a, Tensor b,
               double scale);
template <class T>
void lora_merge(Tensor weight, Tensor a, Tensor b, double scale, Tensor gain);
template <class T>
void dropout(Tensor y, Tensor x, const DropoutMask& mask, bool accumulate);
template <class T>
void embedding_noise(Tensor x, const EmbeddingNoise& noise);

template <class T>
void softcap_forward(Tensor x, double cap);
template <class T>
void softcap_backward(Tensor dx, Tensor y, double cap);

template <class T>
void cross_entropy(Tensor logits, Tensor dlogits, Tensor loss, int32_t* correct, const int32_t* targets, Tensor weights,
                   double scale, const Objective& objective);

template <class T>
double sum_squares(Tensor x);
template <class T>
void adamw(Tensor weight, Tensor m, Tensor v, Tensor grad, const AdamWStep& step);
template <class T>
void adamw_8bit(Tensor weight, const Moments8& moments, Tensor grad, const AdamWStep& step);
template <class T>
void lion(Tensor weight, Tensor m, Tensor grad, const LionStep& step);
template <class T>
void adafactor(Tensor weight, Tensor row, Tensor col, Tensor grad, const AdafactorStep& step);
template <class T>
void muon(Tensor weight, Tensor m, Tensor grad, Tensor scratch, const MuonStep& step);
template <class T>
void sgd(Tensor weight, Tensor m, Tensor grad, const SgdStep& step);

}  // namespace tunesmith::reference
