/* dequant.c - see dequant.h. */
#include "model/dequant.h"

#include <assert.h>
#include <string.h>

#define QK   32  /* elements of a Q8_0, Q4_0, Q4_1 block */
#define QK_K 256 /* elements of a Q6_K super-block */

static const struct dequant_layout layouts[] = {
    [DTYPE_F32] = {"F32", 1, 4},
    [DTYPE_F16] = {"F16", 1, 2},
    [DTYPE_BF16] = {"BF16", 1, 2},
    [DTYPE_Q8_0] = {"Q8_0", QK, 2 + QK},
    [DTYPE_Q4_0] = {"Q4_0", QK, 2 + QK / 2},
    [DTYPE_Q4_1] = {"Q4_1", QK, 4 + QK / 2},
    [DTYPE_Q6_K] = {"Q6_K", QK_K, QK_K / 2 + QK_K / 4 + QK_K / 16 + 2},
};

const struct dequant_layout *dequant_layout(enum weight_dtype dtype)
{
    return &layouts[dtype];
}

bool dequant_from_ggml(uint32_t ggml_type, enum weight_dtype *out)
{
    static const struct {
        uint32_t id;
        enum weight_dtype dtype;
    } map[] = {{0, DTYPE_F32},  {1, DTYPE_F16},   {2, DTYPE_Q4_0}, {3, DTYPE_Q4_1},
               {8, DTYPE_Q8_0}, {14, DTYPE_Q6_K}, {30, DTYPE_BF16}};
    for (size_t i = 0; i < sizeof map / sizeof map[0]; i++) {
        if (map[i].id == ggml_type) {
            *out = map[i].dtype;
            return true;
        }
    }
    return false;
}

static float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

float dequant_bf16(uint16_t bits)
{
    return float_of_bits((uint32_t)bits << 16);
}

float dequant_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t exponent = bits >> 10 & 0x1F;
    uint32_t mantissa = bits & 0x3FF;
    if (exponent == 0x1F) { /* infinity, NaN */
        return float_of_bits(sign | 0x7F800000 | mantissa << 13);
    }
    if (exponent != 0) {
        return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    }
    float magnitude = (float)mantissa * 0x1.0p-24F; /* zero and subnormals, exact */
    return sign != 0 ? -magnitude : magnitude;
}

static float f16_at(const uint8_t *p)
{
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return dequant_f16(bits);
}

/* d: f16, q: i8[32]; x = d q */
static void block_q8_0(const uint8_t *p, float *out)
{
    float d = f16_at(p);
    for (int i = 0; i < QK; i++) {
        out[i] = d * (float)(int8_t)p[2 + i];
    }
}

/* d: f16, q: u4[32], low nibbles first 16; x = d (q - 8) */
static void block_q4_0(const uint8_t *p, float *out)
{
    float d = f16_at(p);
    for (int i = 0; i < QK / 2; i++) {
        out[i] = d * (float)((p[2 + i] & 0x0F) - 8);
        out[i + QK / 2] = d * (float)((p[2 + i] >> 4) - 8);
    }
}

/* d, m: f16, q: u4[32]; x = d q + m */
static void block_q4_1(const uint8_t *p, float *out)
{
    float d = f16_at(p);
    float m = f16_at(p + 2);
    for (int i = 0; i < QK / 2; i++) {
        out[i] = d * (float)(p[4 + i] & 0x0F) + m;
        out[i + QK / 2] = d * (float)(p[4 + i] >> 4) + m;
    }
}

/*
 * ql: low 4 bits [128], qh: high 2 bits [64], scales: i8[16], d: f16; x = d scale (q - 32).
 * Each half of 128 elements: byte l of ql holds elements l (low) and l + 64 (high), byte l + 32
 * elements l + 32 and l + 96; byte l of qh the four pairs of high bits in that order.
 */
static void block_q6_k(const uint8_t *p, float *out)
{
    const uint8_t *ql = p;
    const uint8_t *qh = p + QK_K / 2;
    const uint8_t *scales = qh + QK_K / 4;
    float d = f16_at(scales + QK_K / 16);
    for (int half = 0; half < 2; half++, ql += 64, qh += 32, scales += 8, out += 128) {
        for (int l = 0; l < 32; l++) {
            int q[4] = {
                (ql[l] & 0x0F) | (qh[l] & 3) << 4,
                (ql[l + 32] & 0x0F) | (qh[l] >> 2 & 3) << 4,
                ql[l] >> 4 | (qh[l] >> 4 & 3) << 4,
                ql[l + 32] >> 4 | (qh[l] >> 6 & 3) << 4,
            };
            for (int j = 0; j < 4; j++) {
                float scale = d * (float)(int8_t)scales[2 * j + l / 16];
                out[l + 32 * j] = scale * (float)(q[j] - 32);
            }
        }
    }
}

static void plain_row(enum weight_dtype dtype, const uint8_t *p, size_t n, float *out)
{
    if (dtype == DTYPE_F32) {
        memcpy(out, p, n * sizeof *out);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, p + 2 * i, sizeof bits);
        out[i] = dtype == DTYPE_F16 ? dequant_f16(bits) : dequant_bf16(bits);
    }
}

void dequant_row(enum weight_dtype dtype, const void *packed, size_t n, float *out)
{
    const struct dequant_layout *layout = dequant_layout(dtype);
    const uint8_t *p = packed;
    assert(n % layout->block == 0);
    if (layout->block == 1) {
        plain_row(dtype, p, n, out);
        return;
    }
    for (size_t i = 0; i < n; i += layout->block, p += layout->bytes) {
        switch (dtype) {
        case DTYPE_Q8_0:
            block_q8_0(p, out + i);
            break;
        case DTYPE_Q4_0:
            block_q4_0(p, out + i);
            break;
        case DTYPE_Q4_1:
            block_q4_1(p, out + i);
            break;
        default:
            block_q6_k(p, out + i);
            break;
        }
    }
}
