/*
 * packed.c - weight matrices in panels, and the product that splits them over the pool.
 *
 * A panel is `panel` outputs wide and n_in deep, so a kernel reads it front to back once. Lanes
 * past n_out are zeros: kernels compute and drop them.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "tensor/tensor.h"

#define PACKED_ALIGN  64
#define OPERAND_ALIGN 64 /* kernels write whole vectors */
#define INT8_TOP      127.0f
/* 255 * 127 times as many still fit a sum of 32 bits. */
#define INT8_MAX_INPUTS 65536U

static uint32_t packed_panels(const struct packed_matrix *m)
{
    return (uint32_t)(((uint64_t)m->n_out + m->panel - 1) / m->panel);
}

const char *tensor_dtype_name(enum tensor_dtype dtype)
{
    static const char *const names[TENSOR_DTYPES] = {"f32", "bf16", "int8"};
    return names[dtype];
}

size_t tensor_operand_bytes(const struct tensor_ops *ops, enum tensor_dtype dtype, uint32_t K)
{
    const struct tensor_product *p = &ops->product[dtype];
    if (p->pack_row == NULL) {
        return 0;
    }
    size_t steps = (K + tensor_step_inputs(dtype) - 1) / tensor_step_inputs(dtype);
    size_t bytes = steps * p->parts * sizeof(float);
    return (bytes + OPERAND_ALIGN - 1) / OPERAND_ALIGN * OPERAND_ALIGN;
}

enum tensor_dtype tensor_dtype_for(enum tensor_dtype wanted, uint32_t n_in)
{
    bool fits = n_in % tensor_step_inputs(wanted) == 0;
    bool is_exact = wanted != TENSOR_INT8 || n_in <= INT8_MAX_INPUTS;
    return fits && is_exact ? wanted : TENSOR_F32;
}

enum status packed_begin(struct packed_matrix *m, const struct tensor_ops *ops,
                         enum tensor_dtype dtype, uint32_t n_out, uint32_t n_in, bool with_bias,
                         struct error *err)
{
    assert(n_out > 0 && n_in > 0 && tensor_dtype_for(dtype, n_in) == dtype);
    struct packed_matrix made = {.dtype = dtype, .n_out = n_out, .n_in = n_in, .panel = ops->panel};
    uint64_t padded = (uint64_t)packed_panels(&made) * made.panel;
    uint64_t bytes;
    if (__builtin_mul_overflow(padded * (n_in / tensor_step_inputs(dtype)), (uint64_t)4, &bytes) ||
        bytes > SIZE_MAX - PACKED_ALIGN) {
        return error_set(err, STATUS_NO_MEMORY, -1, "a matrix of %u x %u does not fit into memory",
                         n_out, n_in);
    }
    made.bytes = (size_t)bytes;
    made.data = mem_alloc_table(made.bytes);
    bool ok = made.data != NULL;
    if (with_bias) {
        made.bias = mem_alloc_aligned(PACKED_ALIGN, (size_t)padded * sizeof *made.bias);
        ok = ok && made.bias != NULL;
    }
    if (dtype == TENSOR_INT8) {
        made.scale = mem_alloc_aligned(PACKED_ALIGN, (size_t)padded * sizeof *made.scale);
        made.offset = mem_alloc_aligned(PACKED_ALIGN, (size_t)padded * sizeof *made.offset);
        ok = ok && made.scale != NULL && made.offset != NULL;
    }
    if (!ok) {
        packed_deinit(&made);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a matrix of %u x %u (%zu bytes)",
                         n_out, n_in, (size_t)bytes);
    }
    *m = made;
    return STATUS_OK;
}

/* To nearest, ties to even; a NaN stays one. */
static uint16_t bf16_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) {
        return (uint16_t)(bits >> 16 | 0x40U);
    }
    return (uint16_t)((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16);
}

static float f32_of(uint16_t bf16)
{
    uint32_t bits = (uint32_t)bf16 << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Row `row` of an int8 matrix: its scale, its offset, its weights. */
static void put_int8(const struct packed_matrix *m, uint32_t row, const float *x)
{
    float top = 0.0f;
    for (uint32_t k = 0; k < m->n_in; k++) {
        float size = fabsf(x[k]);
        top = size > top || isnan(size) ? size : top;
    }
    float inverse = top > 0.0f ? INT8_TOP / top : 0.0f;
    int32_t sum = 0;
    for (uint32_t k = 0; k < m->n_in; k++) {
        float q = rintf(x[k] * inverse);
        int8_t value = (int8_t)(fabsf(q) <= INT8_TOP ? q : 0.0f); /* else the scale is NaN or inf */
        ((int8_t *)m->data)[packed_index(m, row, k)] = value;
        sum += value;
    }
    m->scale[row] = top / INT8_TOP;
    m->offset[row] = -128 * sum;
}

void packed_put_rows(struct packed_matrix *m, uint32_t row, uint32_t n, const float *rows)
{
    assert(row <= m->n_out && n <= m->n_out - row);
    size_t K = m->n_in;
    for (uint32_t end = row + n; row < end; row++, rows += K) {
        switch (m->dtype) {
        case TENSOR_F32:
            for (size_t k = 0; k < K; k++) {
                ((float *)m->data)[packed_index(m, row, k)] = rows[k];
            }
            break;
        case TENSOR_BF16:
            for (size_t k = 0; k < K; k++) {
                ((uint16_t *)m->data)[packed_index(m, row, k)] = bf16_of(rows[k]);
            }
            break;
        case TENSOR_INT8:
            put_int8(m, row, rows);
            break;
        }
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
            out[k] = f32_of(((const uint16_t *)m->data)[at]);
            break;
        case TENSOR_INT8:
            out[k] = m->scale[row] * ((const int8_t *)m->data)[at];
            break;
        }
    }
}

void packed_deinit(struct packed_matrix *m)
{
    mem_free(m->data);
    mem_free(m->bias);
    mem_free(m->scale);
    mem_free(m->offset);
    *m = (struct packed_matrix){.dtype = TENSOR_F32};
}

/* Most rows of one work item: their inputs should stay in a core's L2 cache while the panels pass
 * by. More rows are cut into equal blocks. */
#define MATMUL_ROW_BLOCK 128
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
    struct matmul_job job = {.ops = ops,
                             .y = y,
                             .ldy = ldy,
                             .x = x,
                             .n_rows = n_rows,
                             .n_blocks = (n_rows - 1) / MATMUL_ROW_BLOCK + 1,
                             .n_panels = packed_panels(w),
                             .w = w};
    uint64_t items = (uint64_t)job.n_blocks * job.n_panels;
    uint64_t item_work = (uint64_t)(n_rows / job.n_blocks) * w->n_in * w->panel;
    uint64_t grain = (MATMUL_MIN_PART + item_work - 1) / item_work;
    assert(items <= UINT32_MAX);
    pool_run(pool, (uint32_t)items, (uint32_t)grain, matmul_part, &job);
}
