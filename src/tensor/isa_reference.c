/*
 * isa_reference.c - every operation as plainly as it can be written, for any CPU.
 *
 * Not fast, and not bit-equal to the vector kernels: it is what they are tested against, and what
 * runs where they cannot. It has its own fixed order of operations (sums run upwards from the
 * bias), so it is batch-invariant too.
 */
#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "tensor/bf16.h"
#include "tensor/isa_int.h"

#define PANEL 16

static float weight(const struct packed_matrix *w, size_t row, size_t k)
{
    size_t at = packed_index(w, row, k);
    if (w->dtype == TENSOR_F32) {
        return ((const float *)w->data)[at];
    }
    return bf16_to_f32(((const uint16_t *)w->data)[at]);
}

static void matmul(float *y, size_t ldy, const struct operand *x, uint32_t row, uint32_t n_rows,
                   const struct packed_matrix *w, uint32_t panel_begin, uint32_t panel_end)
{
    for (size_t column = (size_t)panel_begin * PANEL; column < (size_t)panel_end * PANEL;
         column++) {
        for (size_t t = row; t < (size_t)row + n_rows && column < w->n_out; t++) {
            const float *in = (const float *)x->data + t * (x->stride / sizeof *in);
            float sum = w->bias != NULL ? w->bias[column] : 0.0f;
            for (size_t k = 0; k < w->n_in; k++) {
                sum += in[k] * weight(w, column, k);
            }
            y[t * ldy + column] = sum;
        }
    }
}

/* An operand row of int8: groups of a scale, an offset and bytes. */
#define GROUP_HEAD  (TENSOR_INT8_HEAD * sizeof(float))
#define GROUP_BYTES (GROUP_HEAD + TENSOR_INT8_GROUP)

static float dot_int8(const char *x, const struct packed_matrix *w, size_t column, float sum)
{
    for (size_t k = 0; k < w->n_in; k += TENSOR_INT8_GROUP, x += GROUP_BYTES) {
        float scale;
        memcpy(&scale, x, sizeof scale);
        uint32_t head = ((const uint32_t *)w->data)[packed_head_index(w, column, k)];
        int16_t offset;
        memcpy(&offset, x + sizeof scale, sizeof offset);
        int32_t whole = offset * packed_head_sum(head);
        const uint8_t *in = (const uint8_t *)x + GROUP_HEAD;
        for (size_t i = 0; i < TENSOR_INT8_GROUP && k + i < w->n_in; i++) {
            whole += in[i] * (int32_t)((const int8_t *)w->data)[packed_index(w, column, k + i)];
        }
        sum = fmaf((float)whole, scale * packed_head_scale(head), sum);
    }
    return sum;
}

static void matmul_int8(float *y, size_t ldy, const struct operand *x, uint32_t row,
                        uint32_t n_rows, const struct packed_matrix *w, uint32_t panel_begin,
                        uint32_t panel_end)
{
    for (size_t column = (size_t)panel_begin * PANEL; column < (size_t)panel_end * PANEL;
         column++) {
        for (size_t t = row; t < (size_t)row + n_rows && column < w->n_out; t++) {
            float bias = w->bias != NULL ? w->bias[column] : 0.0f;
            y[t * ldy + column] = dot_int8((const char *)x->data + t * x->stride, w, column, bias);
        }
    }
}

static void pack_group(char *out, const float *x, uint32_t n)
{
    float above = 0.0f;
    float below = 0.0f;
    bool is_finite = true;
    for (uint32_t i = 0; i < n; i++) {
        above = x[i] > above ? x[i] : above;
        below = -x[i] > below ? -x[i] : below;
        is_finite = is_finite && isfinite(x[i]);
    }
    const float levels = TENSOR_INT8_LEVELS;
    float scale = is_finite ? above / levels + below / levels : NAN;
    float inverse = is_finite && fmaxf(above, below) >= TENSOR_INT8_LEAST ? 1.0f / scale : 0.0f;
    float zero = is_finite ? rintf(below * inverse) : 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        float u = is_finite ? rintf(x[i] * inverse) + zero : 0.0f;
        ((uint8_t *)out)[GROUP_HEAD + i] = (uint8_t)u;
    }
    const int16_t offset[2] = {(int16_t)-zero, 0};
    memcpy(out, &scale, sizeof scale);
    memcpy(out + sizeof scale, offset, sizeof offset);
}

static void pack_int8(void *out, const float *x, uint32_t n)
{
    char *to = out;
    for (uint32_t k = 0; k < n; k += TENSOR_INT8_GROUP, to += GROUP_BYTES) {
        pack_group(to, x + k, n - k < TENSOR_INT8_GROUP ? n - k : TENSOR_INT8_GROUP);
    }
}

static void rms_norm(float *y, const float *x, const float *weight, uint32_t n, float eps)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        sum += x[i] * x[i];
    }
    float inv = 1.0f / sqrtf(sum / (float)n + eps);
    for (uint32_t i = 0; i < n; i++) {
        y[i] = x[i] * inv * weight[i];
    }
}

static void layer_norm(float *y, const float *x, const float *weight, const float *bias, uint32_t n,
                       float eps)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        sum += x[i];
    }
    float mean = sum / (float)n;
    float squares = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        squares += (x[i] - mean) * (x[i] - mean);
    }
    float inv = 1.0f / sqrtf(squares / (float)n + eps);
    for (uint32_t i = 0; i < n; i++) {
        y[i] = (x[i] - mean) * inv * weight[i] + (bias != NULL ? bias[i] : 0.0f);
    }
}

static void add(float *x, const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        x[i] += y[i];
    }
}

static void silu(float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        x[i] = x[i] / (1.0f + expf(-x[i]));
    }
}

static void silu_mul(float *gate, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    }
}

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): Hendrycks and Gimpel 2016, section 2. */
static void gelu_tanh(float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        float u = 0.797884561f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
        x[i] = 0.5f * x[i] * (1.0f + tanhf(u));
    }
}

/* x Phi(x), by erfc so that the left tail keeps its digits. */
static void gelu_erf(float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        x[i] = 0.5f * x[i] * erfcf(-0.707106781f * x[i]);
    }
}

static void relu(float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        x[i] = x[i] < 0.0f ? 0.0f : x[i]; /* NaN stays */
    }
}

static void rope(float *x, uint32_t n_heads, uint32_t head_size, const float *cos, const float *sin)
{
    uint32_t half = head_size / 2;
    for (uint32_t h = 0; h < n_heads; h++, x += head_size) {
        for (uint32_t i = 0; i < half; i++) {
            float a = x[i];
            float b = x[i + half];
            x[i] = a * cos[i] - b * sin[i];
            x[i + half] = b * cos[i] + a * sin[i];
        }
    }
}

/* Element `at` of a tile. */
static float kv_element(const void *tile, enum tensor_dtype kv, size_t at)
{
    return kv == TENSOR_BF16 ? bf16_to_f32(((const uint16_t *)tile)[at])
                             : ((const float *)tile)[at];
}

/* One head of one row: scores, softmax and the weighted sum of values, in ascending key order. */
static void attend_head(const struct tensor_attention *a, uint32_t row, uint32_t head)
{
    const float *q = a->q + row * a->ld_q + (size_t)head * a->head_size;
    float *out = a->out + row * a->ld_out + (size_t)head * a->head_size;
    float *p = a->scratch;
    uint32_t last = a->last + row;
    float max = -INFINITY;
    for (uint32_t i = a->first; i <= last; i++) {
        const void *keys = a->k_tiles[i / TENSOR_KV_TILE];
        float score = 0.0f;
        for (size_t d = 0; d < a->head_size; d++) {
            score += q[d] * kv_element(keys, a->kv, d * TENSOR_KV_TILE + i % TENSOR_KV_TILE);
        }
        p[i - a->first] = score * a->scale;
        max = fmaxf(max, p[i - a->first]);
    }
    float sum = 0.0f;
    for (uint32_t i = 0; i <= last - a->first; i++) {
        p[i] = expf(p[i] - max);
        sum += p[i];
    }
    for (size_t d = 0; d < a->head_size; d++) {
        out[d] = 0.0f;
    }
    for (uint32_t i = a->first; i <= last; i++) {
        const void *values = a->v_tiles[i / TENSOR_KV_TILE];
        size_t at = (size_t)(i % TENSOR_KV_TILE) * a->head_size;
        for (size_t d = 0; d < a->head_size; d++) {
            out[d] += p[i - a->first] * kv_element(values, a->kv, at + d);
        }
    }
    for (size_t d = 0; d < a->head_size; d++) {
        out[d] /= sum;
    }
}

static void attend(const struct tensor_attention *a)
{
    assert(a->kv == TENSOR_F32 || a->kv == TENSOR_BF16);
    for (uint32_t row = 0; row < a->n_rows; row++) {
        for (uint32_t h = 0; h < a->group; h++) {
            attend_head(a, row, h);
        }
    }
}

/* One after the other, as the products are. */
static uint64_t multiply_add(enum tensor_dtype dtype, uint64_t n)
{
    volatile float x = 0.5f;
    volatile int32_t q = 1;
    float sum = 0.0f;
    int32_t whole = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (dtype == TENSOR_INT8) {
            whole += q * (int32_t)(i & 1);
        } else {
            sum += x * (float)(i & 1);
        }
    }
    x = sum;
    q = whole;
    return n;
}

static float read_floats(const float *x, size_t n)
{
    float max = 0.0f;
    for (size_t i = 0; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    return max;
}

const struct tensor_ops tensor_ops_reference = {
    .isa = "reference",
    .panel = PANEL,
    .side_panels = {1, 1},
    .product = {{matmul, NULL}, {matmul, NULL}, {matmul_int8, pack_int8}},
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .add = add,
    .silu_mul = silu_mul,
    .gelu_tanh = gelu_tanh,
    .gelu_erf = gelu_erf,
    .relu = relu,
    .silu = silu,
    .rope = rope,
    .attend = attend,
    .multiply_add = multiply_add,
    .read = read_floats,
};
