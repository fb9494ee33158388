/*
 * packed.c - weight matrices in panels, and the product that splits them over the pool.
 *
 * A panel is `panel` outputs wide and n_in deep, so a kernel reads it front to back once. Lanes
 * past n_out are zeros: kernels compute and drop them.
 */
#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "tensor/bf16.h"
#include "tensor/tensor.h"

#define PACKED_ALIGN   64
#define OPERAND_ALIGN  64
#define OPERAND_INPUTS 16 /* kernels write whole vectors */
#define INT8_TOP       ((float)TENSOR_INT8_TOP)

static uint32_t packed_panels(const struct packed_matrix *m)
{
    return (uint32_t)(((uint64_t)m->n_out + m->panel - 1) / m->panel);
}

const char *tensor_dtype_name(enum tensor_dtype dtype)
{
    static const char *const names[TENSOR_DTYPES] = {"f32", "bf16", "int8"};
    return names[dtype];
}

bool tensor_dtype_find(const char *name, enum tensor_dtype *out)
{
    for (int d = 0; d < TENSOR_DTYPES; d++) {
        if (strcmp(name, tensor_dtype_name((enum tensor_dtype)d)) == 0) {
            *out = (enum tensor_dtype)d;
            return true;
        }
    }
    return false;
}

size_t tensor_operand_bytes(const struct tensor_ops *ops, enum tensor_dtype dtype, uint32_t K)
{
    if (ops->product[dtype].pack_row == NULL) {
        return 0;
    }
    size_t inputs = ((size_t)K + OPERAND_INPUTS - 1) / OPERAND_INPUTS * OPERAND_INPUTS;
    size_t steps = inputs / tensor_step_inputs(dtype);
    size_t heads = (size_t)TENSOR_INT8_HEAD * tensor_groups(dtype, K);
    size_t bytes = (steps + heads) * sizeof(float);
    return (bytes + OPERAND_ALIGN - 1) / OPERAND_ALIGN * OPERAND_ALIGN;
}

enum tensor_dtype tensor_dtype_for(enum tensor_dtype wanted, uint32_t n_in)
{
    return n_in % tensor_step_inputs(wanted) == 0 ? wanted : TENSOR_F32;
}

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + PACKED_ALIGN - 1) / PACKED_ALIGN * PACKED_ALIGN;
}

uint64_t packed_memory(const struct tensor_ops *ops, enum tensor_dtype dtype, uint64_t n_out,
                       uint32_t n_in)
{
    uint64_t padded = (n_out + ops->panel - 1) / ops->panel * ops->panel;
    return aligned(padded * packed_steps(dtype, n_in) * sizeof(float)) +
           aligned(padded * sizeof(float));
}

enum status packed_begin(struct packed_matrix *m, const struct tensor_ops *ops,
                         enum tensor_dtype dtype, uint32_t n_out, uint32_t n_in, bool with_bias,
                         void *memory, struct error *err)
{
    assert(n_out > 0 && n_in > 0 && tensor_dtype_for(dtype, n_in) == dtype);
    struct packed_matrix made = {.dtype = dtype,
                                 .n_out = n_out,
                                 .n_in = n_in,
                                 .panel = ops->panel,
                                 .is_placed = memory != NULL};
    uint64_t padded = (uint64_t)packed_panels(&made) * made.panel;
    uint64_t bytes;
    if (__builtin_mul_overflow(padded, packed_steps(dtype, n_in) * sizeof(float), &bytes) ||
        bytes > SIZE_MAX - PACKED_ALIGN) {
        return error_set(err, STATUS_NO_MEMORY, -1, "a matrix of %u x %u does not fit into memory",
                         n_out, n_in);
    }
    made.bytes = (size_t)bytes;
    if (memory != NULL) {
        assert((uintptr_t)memory % PACKED_ALIGN == 0);
        made.data = memory;
        made.bias = with_bias ? (void *)((char *)memory + aligned(bytes)) : NULL;
        *m = made;
        return STATUS_OK;
    }
    made.data = mem_alloc_table(made.bytes);
    bool ok = made.data != NULL;
    if (with_bias) {
        made.bias = mem_alloc_aligned(PACKED_ALIGN, (size_t)padded * sizeof *made.bias);
        ok = ok && made.bias != NULL;
    }
    if (!ok) {
        packed_deinit(&made);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a matrix of %u x %u (%zu bytes)",
                         n_out, n_in, (size_t)bytes);
    }
    *m = made;
    return STATUS_OK;
}

/* The functions below place n rows of K inputs that lie in one panel, from its lane `row % panel`
 * on: steps outside, lanes inside, so that a panel is written front to back. */

static void put_f32(const struct packed_matrix *m, uint32_t row, uint32_t n, const float *rows)
{
    float *to = (float *)m->data + packed_index(m, row, 0);
    for (size_t k = 0; k < m->n_in; k++, to += m->panel) {
        for (size_t r = 0; r < n; r++) {
            to[r] = rows[r * m->n_in + k];
        }
    }
}

static void put_bf16(const struct packed_matrix *m, uint32_t row, uint32_t n, const float *rows)
{
    uint16_t *to = (uint16_t *)m->data + packed_index(m, row, 0);
    for (size_t k = 0; k < m->n_in; k += 2, to += (size_t)m->panel * 2) {
        for (size_t r = 0; r < n; r++) {
            to[2 * r] = bf16_from_f32(rows[r * m->n_in + k]);
            to[2 * r + 1] = bf16_from_f32(rows[r * m->n_in + k + 1]);
        }
    }
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The largest size; NaN if there is one: floats >= 0 are in the order of their bits. */
static float largest(const float *x, size_t n)
{
    uint32_t top = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = bits_of(x[i]) & 0x7FFFFFFF;
        top = bits > top ? bits : top;
    }
    float size;
    memcpy(&size, &top, sizeof size);
    return size;
}

/* A quarter of the largest sum of the positive or of the negative values of four that are summed
 * together (TENSOR_INT8_FOUR): half of the sum of their sizes and the size of their sum. A quarter,
 * because a sum may be infinite. n: a multiple of 4. */
static float largest_quarter_of_four(const float *x, size_t n)
{
    float sum[TENSOR_INT8_GROUP / 2 + 2]; /* of pairs; 0 behind the last */
    float size[TENSOR_INT8_GROUP / 2 + 2];
    float top = 0.0f;
    sum[n / 2] = sum[n / 2 + 1] = 0.0f;
    size[n / 2] = size[n / 2 + 1] = 0.0f;
    for (size_t i = 0; i < n / 2; i++) {
        float a = 0.125f * x[2 * i];
        float b = 0.125f * x[2 * i + 1];
        sum[i] = a + b;
        size[i] = fabsf(a) + fabsf(b);
    }
    for (size_t i = 0; i < n / 2; i += i % 2 == 0 ? 1 : 3) {
        float larger = size[i] + size[i + 2] + fabsf(sum[i] + sum[i + 2]);
        top = larger > top ? larger : top;
    }
    return top;
}

/* To nearest, ties to even, as rintf for |x| < 2^22, but without a call. */
static float nearest(float x)
{
    const float unit = 0x1.8p23f;
    return (x + unit) - unit;
}

/* The least bf16 that is not below x >= 0; NaN if x is not finite. */
static uint32_t bf16_above(float x)
{
    return x <= FLT_MAX ? (bits_of(x) + 0xFFFF) & 0xFFFF0000U : bits_of(NAN);
}

/* n values of a group, round(x / scale); returns the word that stands before it. */
static uint32_t quantise(int8_t *out, const float *x, size_t n)
{
    float top = largest(x, n);
    float of_fours = largest_quarter_of_four(x, n) / (0.25f * TENSOR_INT8_FOUR);
    float least = top / INT8_TOP;
    uint32_t head = bf16_above(of_fours > least ? of_fours : least);
    float inverse = top >= TENSOR_INT8_LEAST ? 1.0f / packed_head_scale(head) : 0.0f;
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        float q = nearest(x[i] * inverse);
        q = fabsf(q) <= INT8_TOP ? q : 0.0f; /* else the scale is NaN */
        out[i] = (int8_t)q;
        sum += (int32_t)q;
    }
    return head | (uint16_t)sum;
}

static void put_int8(const struct packed_matrix *m, uint32_t row, uint32_t n, const float *rows)
{
    int8_t group[TENSOR_INT8_GROUP];
    for (size_t k = 0; k < m->n_in; k += TENSOR_INT8_GROUP) {
        size_t inputs = m->n_in - k < TENSOR_INT8_GROUP ? m->n_in - k : TENSOR_INT8_GROUP;
        uint32_t *head = (uint32_t *)m->data + packed_head_index(m, row, k);
        int8_t *to = (int8_t *)m->data + packed_index(m, row, k);
        for (size_t r = 0; r < n; r++) {
            head[r] = quantise(group, rows + r * m->n_in + k, inputs);
            for (size_t i = 0; i < inputs; i += 4) {
                memcpy(to + (i / 4 * m->panel + r) * 4, group + i, 4);
            }
        }
    }
}

void packed_put_rows(struct packed_matrix *m, uint32_t row, uint32_t n, const float *rows)
{
    static void (*const put[TENSOR_DTYPES])(const struct packed_matrix *, uint32_t, uint32_t,
                                            const float *) = {put_f32, put_bf16, put_int8};
    assert(row <= m->n_out && n <= m->n_out - row);
    while (n > 0) {
        uint32_t lanes = m->panel - row % m->panel;
        lanes = lanes < n ? lanes : n;
        put[m->dtype](m, row, lanes, rows);
        rows += (size_t)lanes * m->n_in;
        row += lanes;
        n -= lanes;
    }
}

void packed_put_bias(struct packed_matrix *m, uint32_t first, uint32_t n, const float *bias)
{
    assert(m->bias != NULL && first <= m->n_out && n <= m->n_out - first);
    for (uint32_t i = 0; i < n; i++) {
        m->bias[first + i] = bias[i];
    }
}

void packed_get_row(const struct packed_matrix *m, uint32_t row, float *out)
{
    assert(row < m->n_out);
    for (size_t k = 0; k < m->n_in; k++) {
        size_t at = packed_index(m, row, k);
        switch (m->dtype) {
        case TENSOR_F32:
            out[k] = ((const float *)m->data)[at];
            break;
        case TENSOR_BF16:
            out[k] = bf16_to_f32(((const uint16_t *)m->data)[at]);
            break;
        case TENSOR_INT8:
            out[k] = packed_head_scale(((const uint32_t *)m->data)[packed_head_index(m, row, k)]) *
                     (float)((const int8_t *)m->data)[at];
            break;
        }
    }
}

void packed_deinit(struct packed_matrix *m)
{
    if (!m->is_placed) {
        mem_free(m->data);
        mem_free(m->bias);
    }
    *m = (struct packed_matrix){.dtype = TENSOR_F32};
}

/* Bytes that the operand rows of one work item take at most, so that they stay in a core's L2 cache
 * while the panels pass by; never fewer than MATMUL_LEAST_ROWS. More rows are cut into equal
 * blocks.
 */
#define MATMUL_ROW_BYTES  ((size_t)256 << 10)
#define MATMUL_LEAST_ROWS 16
/* Multiply-adds below which handing a part to another thread costs more than it saves. */
#define MATMUL_MIN_PART ((uint64_t)32768)

/* Items are (row block, panel), panel fastest. */
struct matmul_job {
    const struct tensor_ops *ops;
    float *y;
    size_t ldy;
    const struct operand *x;
    uint32_t n_rows;
    uint32_t n_blocks;
    uint32_t n_panels;
    const struct packed_matrix *w;
};

static void matmul_part(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct matmul_job *job = ctx;
    (void)thread;
    while (begin < end) {
        uint64_t block = begin / job->n_panels;
        size_t row = (size_t)(block * job->n_rows / job->n_blocks);
        size_t row_end = (size_t)((block + 1) * job->n_rows / job->n_blocks);
        uint32_t panel = begin % job->n_panels;
        uint32_t panels = job->n_panels - panel < end - begin ? job->n_panels - panel : end - begin;
        job->ops->product[job->w->dtype].matmul(job->y, job->ldy, job->x, (uint32_t)row,
                                                (uint32_t)(row_end - row), job->w, panel,
                                                panel + panels);
        begin += panels;
    }
}

void tensor_matmul(const struct tensor_ops *ops, struct pool *pool, float *y, size_t ldy,
                   const struct operand *x, uint32_t n_rows, const struct packed_matrix *w)
{
    if (n_rows == 0) {
        return;
    }
    assert(w->panel == ops->panel && ldy >= w->n_out);
    size_t packed_bytes = tensor_operand_bytes(ops, w->dtype, w->n_in);
    size_t fit = MATMUL_ROW_BYTES / (packed_bytes > 0 ? packed_bytes : w->n_in * sizeof(float));
    uint32_t block = fit > MATMUL_LEAST_ROWS ? (uint32_t)fit : MATMUL_LEAST_ROWS;
    struct matmul_job job = {.ops = ops,
                             .y = y,
                             .ldy = ldy,
                             .x = x,
                             .n_rows = n_rows,
                             .n_blocks = (n_rows - 1) / block + 1,
                             .n_panels = packed_panels(w),
                             .w = w};
    uint64_t items = (uint64_t)job.n_blocks * job.n_panels;
    uint64_t item_work = (uint64_t)(n_rows / job.n_blocks) * w->n_in * w->panel;
    uint64_t grain = (MATMUL_MIN_PART + item_work - 1) / item_work;
    uint64_t side = n_rows <= 2 ? ops->side_panels[n_rows - 1] : 1;
    grain = (grain + side - 1) / side * side;
    assert(items <= UINT32_MAX);
    pool_run(pool, (uint32_t)items, (uint32_t)grain, matmul_part, &job);
}
