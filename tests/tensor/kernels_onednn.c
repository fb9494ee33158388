/*
 * kernels_onednn.c - oneDNN 2.x's inner products of the same shapes, for comparison; nothing but
 * bench_kernels is ever linked to it.
 *
 * Weights are packed once, as oneDNN wants them for the number of rows. int8: unsigned inputs,
 * signed weights with one scale per row, and no scale per group of 64 as ours have: less work, and
 * less precise. Its weights are of 7 bits: without VNNI it sums pairs of products in 16 bits, which
 * saturate with 8. What it computes is checked as ours is, but against double precision.
 */
#include "tensor/kernels_int.h"

#ifdef LLMSCHED_ONEDNN

#include <dnnl.h>
#include <dnnl_debug.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

/* A shape's values, the same in all its matrices. */
struct values {
    float *x;              /* [MAX_ROWS, n_in] as the product sees them */
    void *inputs;          /* the same in oneDNN's type */
    float *w;              /* [WEIGHT_ROWS, n_in] without the scale */
    float *scales;         /* [n_out] */
    dnnl_primitive_t run;  /* for the rows prepared for */
    dnnl_memory_desc_t md; /* weights as packed; all zero before */
    dnnl_memory_t src, dst;
    const char *kernel; /* borrowed from `desc` */
    dnnl_primitive_desc_t desc;
};

struct peer_model {
    enum tensor_dtype dtype;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    uint32_t n_rows;
    float *y;
    struct values of[N_SHAPES];
    void *data[N_MATRICES]; /* packed weights */
    dnnl_memory_t weights[N_MATRICES];
};

static const dnnl_data_type_t input_types[TENSOR_DTYPES] = {dnnl_f32, dnnl_bf16, dnnl_u8};
static const dnnl_data_type_t weight_types[TENSOR_DTYPES] = {dnnl_f32, dnnl_bf16, dnnl_s8};

static void must(dnnl_status_t status, const char *what)
{
    if (status != dnnl_success) {
        fprintf(stderr, "bench_kernels: oneDNN: %s: %s\n", what, dnnl_status2str(status));
        exit(1);
    }
}

static dnnl_memory_desc_t matrix_desc(size_t rows, size_t columns, dnnl_data_type_t type,
                                      dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t md;
    const dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    must(dnnl_memory_desc_init_by_tag(&md, 2, dims, type, tag), "memory descriptor");
    return md;
}

/* UNIMPLEMENTED where this machine cannot. */
static dnnl_status_t product_desc(const struct peer_model *m, uint32_t shape, uint32_t n_rows,
                                  dnnl_primitive_desc_t *out)
{
    const struct shape *s = &shapes[shape];
    dnnl_memory_desc_t x = matrix_desc(n_rows, s->n_in, input_types[m->dtype], dnnl_ab);
    dnnl_memory_desc_t w =
        matrix_desc(s->n_out, s->n_in, weight_types[m->dtype], dnnl_format_tag_any);
    dnnl_memory_desc_t y = matrix_desc(n_rows, s->n_out, dnnl_f32, dnnl_ab);
    dnnl_inner_product_desc_t op;
    dnnl_primitive_attr_t attr;
    must(dnnl_primitive_attr_create(&attr), "attributes");
    if (m->dtype == TENSOR_INT8) {
        must(dnnl_primitive_attr_set_output_scales(attr, s->n_out, 1 << 1, m->of[shape].scales),
             "scales");
    }
    must(dnnl_inner_product_forward_desc_init(&op, dnnl_forward_inference, &x, &w, NULL, &y),
         "inner product");
    dnnl_status_t status = dnnl_primitive_desc_create(out, &op, attr, m->engine, NULL);
    must(dnnl_primitive_attr_destroy(attr), "attributes");
    return status;
}

static void execute(const struct peer_model *m, dnnl_primitive_t p, int n,
                    const dnnl_exec_arg_t *args)
{
    must(dnnl_primitive_execute(p, m->stream, n, args), "execute");
    must(dnnl_stream_wait(m->stream), "wait");
}

/* n values as integers in [zero - most, zero + most]; returns the scale. */
static float to_int8(float *x, uint32_t n, float zero, float most)
{
    float top = 0.0f;
    for (uint32_t k = 0; k < n; k++) {
        top = fmaxf(top, fabsf(x[k]));
    }
    for (uint32_t k = 0; k < n; k++) {
        x[k] = zero + rintf(x[k] * (most / top));
    }
    return top / most;
}

/* A row of values in place as a dtype has them. */
static float round_row(enum tensor_dtype dtype, float *x, uint32_t n, float zero, float most)
{
    for (uint32_t k = 0; k < n && dtype == TENSOR_BF16; k++) {
        x[k] = to_bf16(x[k]);
    }
    return dtype == TENSOR_INT8 ? to_int8(x, n, zero, most) : 1.0f;
}

/* from: [rows, columns] of f32 to any type and layout. */
static void reorder(const struct peer_model *m, const float *from, size_t rows, size_t columns,
                    const dnnl_memory_desc_t *to_md, void *to)
{
    dnnl_memory_desc_t from_md = matrix_desc(rows, columns, dnnl_f32, dnnl_ab);
    dnnl_memory_t from_memory;
    dnnl_memory_t to_memory;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t p;
    must(dnnl_memory_create(&from_memory, &from_md, m->engine, (void *)from), "memory");
    must(dnnl_memory_create(&to_memory, to_md, m->engine, to), "memory");
    must(dnnl_reorder_primitive_desc_create(&desc, &from_md, m->engine, to_md, m->engine, NULL),
         "reorder");
    must(dnnl_primitive_create(&p, desc), "reorder");
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from_memory}, {DNNL_ARG_TO, to_memory}};
    execute(m, p, 2, args);
    must(dnnl_primitive_destroy(p), "reorder");
    must(dnnl_primitive_desc_destroy(desc), "reorder");
    must(dnnl_memory_destroy(from_memory), "memory");
    must(dnnl_memory_destroy(to_memory), "memory");
}

static void values_init(const struct peer_model *m, struct values *v, const struct shape *s)
{
    float scales[WEIGHT_ROWS];
    v->x = must_alloc((size_t)MAX_ROWS * s->n_in * sizeof(float));
    v->w = must_alloc((size_t)WEIGHT_ROWS * s->n_in * sizeof(float));
    v->inputs = must_alloc((size_t)MAX_ROWS * s->n_in * sizeof(float));
    v->scales = must_alloc(s->n_out * sizeof(float));
    for (uint32_t t = 0; t < MAX_ROWS; t++) {
        fill_inputs(v->x + (size_t)t * s->n_in, s->n_in, t);
        (void)round_row(m->dtype, v->x + (size_t)t * s->n_in, s->n_in, 128.0f, 127.0f);
    }
    for (uint32_t r = 0; r < WEIGHT_ROWS; r++) {
        float *row = v->w + (size_t)r * s->n_in;
        memcpy(row, weight_row(r), s->n_in * sizeof *row);
        scales[r] = round_row(m->dtype, row, s->n_in, 0.0f, 63.0f);
    }
    for (uint32_t n = 0; n < s->n_out; n++) {
        v->scales[n] = scales[n % WEIGHT_ROWS];
    }
}

static void onednn_destroy(struct peer_model *m);

static struct peer_model *onednn_create(enum tensor_dtype dtype)
{
    struct peer_model *m = must_alloc(sizeof *m);
    memset(m, 0, sizeof *m);
    m->dtype = dtype;
    must(dnnl_engine_create(&m->engine, dnnl_cpu, 0), "engine");
    must(dnnl_stream_create(&m->stream, m->engine, dnnl_stream_default_flags), "stream");
    for (uint32_t s = 0; s < N_SHAPES; s++) {
        dnnl_primitive_desc_t desc;
        values_init(m, &m->of[s], &shapes[s]);
        if (product_desc(m, s, 1, &desc) != dnnl_success) {
            onednn_destroy(m);
            return NULL;
        }
        must(dnnl_primitive_desc_destroy(desc), "inner product");
        dnnl_memory_desc_t md = matrix_desc(MAX_ROWS, shapes[s].n_in, input_types[dtype], dnnl_ab);
        reorder(m, m->of[s].x, MAX_ROWS, shapes[s].n_in, &md, m->of[s].inputs);
    }
    return m;
}

/* What prepare makes of one shape, but not the weights. */
static void forget(struct values *v)
{
    if (v->run != NULL) {
        must(dnnl_primitive_destroy(v->run), "inner product");
        must(dnnl_primitive_desc_destroy(v->desc), "inner product");
        must(dnnl_memory_destroy(v->src), "memory");
        must(dnnl_memory_destroy(v->dst), "memory");
        v->run = NULL;
    }
}

static void forget_weights(struct peer_model *m, uint32_t matrix)
{
    if (m->data[matrix] != NULL) {
        must(dnnl_memory_destroy(m->weights[matrix]), "memory");
        mem_free(m->data[matrix]);
        m->data[matrix] = NULL;
    }
}

static void onednn_destroy(struct peer_model *m)
{
    for (uint32_t i = 0; i < N_MATRICES; i++) {
        forget_weights(m, i);
    }
    for (uint32_t s = 0; s < N_SHAPES; s++) {
        struct values *v = &m->of[s];
        forget(v);
        mem_free(v->x);
        mem_free(v->w);
        mem_free(v->inputs);
        mem_free(v->scales);
    }
    must(dnnl_stream_destroy(m->stream), "stream");
    must(dnnl_engine_destroy(m->engine), "engine");
    mem_free(m);
}

/* All matrices of a shape, in memory like that of ours. */
static void pack_weights(struct peer_model *m, uint32_t shape)
{
    const struct shape *s = &shapes[shape];
    const struct values *v = &m->of[shape];
    float *plain = must_alloc((size_t)s->n_out * s->n_in * sizeof *plain);
    for (size_t n = 0; n < s->n_out; n++) {
        memcpy(plain + n * s->n_in, v->w + n % WEIGHT_ROWS * s->n_in, s->n_in * sizeof *plain);
    }
    for (uint32_t i = 0; i < N_MATRICES; i++) {
        if (shape_of(i) == shape) {
            forget_weights(m, i);
            m->data[i] = mem_alloc_table(dnnl_memory_desc_get_size(&v->md));
            if (m->data[i] == NULL) {
                fail("no memory");
            }
            reorder(m, plain, s->n_out, s->n_in, &v->md, m->data[i]);
            must(dnnl_memory_create(&m->weights[i], &v->md, m->engine, m->data[i]), "memory");
        }
    }
    mem_free(plain);
}

static void onednn_prepare(struct peer_model *m, uint32_t n_rows, float *y)
{
    m->n_rows = n_rows;
    m->y = y;
    for (uint32_t s = 0; s < N_SHAPES; s++) {
        struct values *v = &m->of[s];
        forget(v);
        must(product_desc(m, s, n_rows, &v->desc), "inner product");
        must(dnnl_primitive_create(&v->run, v->desc), "inner product");
        must(dnnl_primitive_desc_query(v->desc, dnnl_query_impl_info_str, 0, (void *)&v->kernel),
             "name");
        dnnl_memory_desc_t x = matrix_desc(n_rows, shapes[s].n_in, input_types[m->dtype], dnnl_ab);
        dnnl_memory_desc_t out = matrix_desc(n_rows, shapes[s].n_out, dnnl_f32, dnnl_ab);
        must(dnnl_memory_create(&v->src, &x, m->engine, v->inputs), "memory");
        must(dnnl_memory_create(&v->dst, &out, m->engine, y), "memory");
        const dnnl_memory_desc_t *wanted =
            dnnl_primitive_desc_query_md(v->desc, dnnl_query_weights_md, 0);
        if (!dnnl_memory_desc_equal(wanted, &v->md)) {
            v->md = *wanted;
            pack_weights(m, s);
        }
    }
}

static void onednn_multiply(const struct peer_model *m, uint32_t matrix)
{
    const struct values *v = &m->of[shape_of(matrix)];
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, v->src}, {DNNL_ARG_WEIGHTS, m->weights[matrix]}, {DNNL_ARG_DST, v->dst}};
    execute(m, v->run, 3, args);
}

static double onednn_error(const struct peer_model *m, uint32_t shape)
{
    const struct shape *s = &shapes[shape];
    const struct values *v = &m->of[shape];
    struct sample of = sample_of(s, m->n_rows);
    double worst = 0.0;
    for (uint32_t i = 0; i < of.n_rows * SAMPLE_OUTS; i++) {
        size_t t = of.rows[i / SAMPLE_OUTS];
        size_t n = of.outs[i % SAMPLE_OUTS];
        double scale = m->dtype == TENSOR_INT8 ? (double)v->scales[n] : 1.0;
        double sum = 0.0;
        double magnitude = 0.0;
        for (size_t k = 0; k < s->n_in; k++) {
            double term =
                scale * (double)v->x[t * s->n_in + k] * (double)v->w[n % WEIGHT_ROWS * s->n_in + k];
            sum += term;
            magnitude += fabs(term);
        }
        worst =
            fmax(worst, share_of_bound((double)m->y[t * s->n_out + n], sum, magnitude, s->n_in));
    }
    return worst;
}

static const char *onednn_kernel(const struct peer_model *m, uint32_t shape)
{
    return m->of[shape].kernel;
}

static void onednn_describe(char *out, size_t size)
{
    const dnnl_version_t *v = dnnl_version();
    (void)snprintf(out, size, "oneDNN %d.%d.%d (%s)", v->major, v->minor, v->patch,
                   dnnl_cpu_isa2str(dnnl_get_effective_cpu_isa()));
}

/* OpenMP reads its environment before main begins. */
static void onednn_set_threads(uint32_t n_threads, char **argv)
{
    char wanted[16];
    const char *now = getenv("OMP_NUM_THREADS");
    (void)snprintf(wanted, sizeof wanted, "%u", n_threads);
    if (now != NULL && strcmp(now, wanted) == 0) {
        return;
    }
    if (setenv("OMP_NUM_THREADS", wanted, 1) == 0) {
        (void)execv("/proc/self/exe", argv);
    }
    fail("cannot set OMP_NUM_THREADS; set it to the number of threads");
}

static const struct peer onednn = {
    .set_threads = onednn_set_threads,
    .describe = onednn_describe,
    .create = onednn_create,
    .destroy = onednn_destroy,
    .prepare = onednn_prepare,
    .multiply = onednn_multiply,
    .error = onednn_error,
    .kernel = onednn_kernel,
};
const struct peer *const peer_onednn = &onednn;

#else

const struct peer *const peer_onednn = NULL;

#endif
