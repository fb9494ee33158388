/*
 * packed.c - weight matrices in panels, and the product that splits them over the pool.
 *
 * A panel is `panel` outputs wide and n_in deep, so a kernel reads it front to back once. Lanes
 * past n_out are zeros: kernels compute and drop them.
 */
#include <assert.h>

#include "base/mem.h"
#include "tensor/tensor.h"

#define PACKED_ALIGN 64

static uint32_t packed_panels(const struct packed_matrix *m)
{
    return (uint32_t)(((uint64_t)m->n_out + m->panel - 1) / m->panel);
}

enum status packed_begin(struct packed_matrix *m, const struct tensor_ops *ops,
                         enum tensor_dtype dtype, uint32_t n_out, uint32_t n_in, bool with_bias,
                         struct error *err)
{
    assert(n_out > 0 && n_in > 0);
    if (dtype != TENSOR_F32) {
        return error_set(err, STATUS_UNSUPPORTED, -1, "weights are kept in f32 only");
    }
    struct packed_matrix made = {.dtype = dtype, .n_out = n_out, .n_in = n_in, .panel = ops->panel};
    uint64_t padded = (uint64_t)packed_panels(&made) * made.panel;
    uint64_t bytes;
    if (__builtin_mul_overflow(padded * n_in, (uint64_t)sizeof(float), &bytes) ||
        bytes > SIZE_MAX - PACKED_ALIGN) {
        return error_set(err, STATUS_NO_MEMORY, -1, "a matrix of %u x %u does not fit into memory",
                         n_out, n_in);
    }
    made.bytes = (size_t)bytes;
    made.data = mem_alloc_table(made.bytes);
    if (with_bias) {
        made.bias = mem_alloc_aligned(PACKED_ALIGN, (size_t)padded * sizeof(float));
    }
    if (made.data == NULL || (with_bias && made.bias == NULL)) {
        packed_deinit(&made);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a matrix of %u x %u (%zu bytes)",
                         n_out, n_in, (size_t)bytes);
    }
    *m = made;
    return STATUS_OK;
}

void packed_put_rows(struct packed_matrix *m, uint32_t row, uint32_t n, const float *rows)
{
    assert(row <= m->n_out && n <= m->n_out - row);
    size_t K = m->n_in;
    while (n > 0) {
        uint32_t lane = row % m->panel;
        uint32_t count = m->panel - lane < n ? m->panel - lane : n;
        float *dst = (float *)m->data + (size_t)(row - lane) * K + lane;
        for (size_t k = 0; k < K; k++) {
            for (uint32_t j = 0; j < count; j++) {
                dst[k * m->panel + j] = rows[j * K + k];
            }
        }
        row += count;
        n -= count;
        rows += count * K;
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
    uint32_t lane = row % m->panel;
    const float *src = (const float *)m->data + (size_t)(row - lane) * m->n_in + lane;
    for (size_t k = 0; k < m->n_in; k++) {
        out[k] = src[k * m->panel];
    }
}

void packed_deinit(struct packed_matrix *m)
{
    mem_free(m->data);
    mem_free(m->bias);
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
    const float *x;
    size_t ldx;
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
        job->ops->matmul_f32(job->y + row * job->ldy, job->ldy, job->x + row * job->ldx, job->ldx,
                             (uint32_t)(row_end - row), job->w, panel, panel + panels);
        begin += panels;
    }
}

void tensor_matmul(const struct tensor_ops *ops, struct pool *pool, float *y, size_t ldy,
                   const float *x, size_t ldx, uint32_t n_rows, const struct packed_matrix *w)
{
    if (n_rows == 0) {
        return;
    }
    assert(w->panel == ops->panel && ldx >= w->n_in && ldy >= w->n_out);
    struct matmul_job job = {.ops = ops,
                             .y = y,
                             .ldy = ldy,
                             .x = x,
                             .ldx = ldx,
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
