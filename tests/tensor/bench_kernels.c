/*
 * bench_kernels.c - speed of the matrix products, beside the limits of this machine measured just
 * before and just after.
 *
 *   bench_kernels [isa[:dtype] ...]   (default: all; LLMSCHED_BENCH_THREADS: threads)
 *
 * Passes over all weights of SmolLM2-135M's shape (random values), in the order of the model, so
 * that weights come from where they would come from; each product's best of several passes. Limit:
 * the larger of bytes / read rate and operations / peak of the dtype.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "base/rng.h"
#include "tensor/limits.h"

#define MAX_ISAS 8
#define MAX_ROWS 512
#define LAYERS   30
#define PASSES   15
#define LIMITS_S 1.0

static const struct shape {
    const char *name;
    uint32_t n_out, n_in;
} shapes[] = {
    {"qkv      960 x  576", 960, 576},   {"o        576 x  576", 576, 576},
    {"gate,up 3072 x  576", 3072, 576},  {"down     576 x 1536", 576, 1536},
    {"head   49152 x  576", 49152, 576}, /* once */
};
#define N_SHAPES     (sizeof shapes / sizeof shapes[0])
#define MAX_MATRICES (LAYERS * (N_SHAPES - 1) + 1)
#define WIDEST_IN    1536
#define WIDEST_OUT   49152

static const uint32_t row_counts[] = {1, 2, 4, 8, 16, 32, 64, 512};
#define N_ROW_COUNTS (sizeof row_counts / sizeof row_counts[0])

struct model {
    const struct tensor_ops *ops;
    enum tensor_dtype dtype;
    struct packed_matrix matrices[MAX_MATRICES];
    uint32_t shape_of[MAX_MATRICES];
    uint32_t n;
    float *row; /* [WIDEST_IN] */
    float *y;
    char *packed[N_SHAPES]; /* operand rows of a shape */
    size_t stride[N_SHAPES];
    float *scale;
};

struct figure {
    double ns;
    double bytes;
    double multiply_adds; /* of one row */
};

static void fail(const char *what)
{
    fprintf(stderr, "bench_kernels: %s\n", what);
    exit(1);
}

static void *must_alloc(size_t bytes)
{
    void *p = mem_alloc_aligned(64, bytes);
    if (p == NULL) {
        fail("no memory");
    }
    return p;
}

static void fill_row(float *row, uint32_t n, uint64_t seed)
{
    struct rng r = rng_stream(seed, 1);
    for (uint32_t k = 0; k < n; k++) {
        row[k] = (float)rng_normal(&r);
    }
}

static void model_add(struct model *m, uint32_t shape)
{
    struct packed_matrix *w = &m->matrices[m->n];
    const struct shape *s = &shapes[shape];
    if (packed_begin(w, m->ops, m->dtype, s->n_out, s->n_in, false, NULL) != STATUS_OK) {
        fail("no memory");
    }
    for (uint32_t row = 0; row < s->n_out; row++) {
        packed_put_rows(w, row, 1, m->row + row % 7 * 8); /* a few different rows are enough */
    }
    m->shape_of[m->n++] = shape;
}

static void model_init(struct model *m, const struct tensor_ops *ops, enum tensor_dtype dtype)
{
    *m = (struct model){.ops = ops, .dtype = dtype};
    m->row = must_alloc((WIDEST_IN + 64) * sizeof(float));
    m->y = must_alloc((size_t)MAX_ROWS * WIDEST_OUT * sizeof(float));
    m->scale = must_alloc(MAX_ROWS * sizeof(float));
    fill_row(m->row, WIDEST_IN + 64, 1);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        for (uint32_t s = 0; s < N_SHAPES - 1; s++) {
            model_add(m, s);
        }
    }
    model_add(m, N_SHAPES - 1);
    for (uint32_t s = 0; s < N_SHAPES; s++) {
        size_t bytes = tensor_operand_bytes(ops, dtype, shapes[s].n_in);
        m->stride[s] = bytes > 0 ? bytes : shapes[s].n_in * sizeof(float);
        m->packed[s] = must_alloc(MAX_ROWS * m->stride[s]);
        for (uint32_t t = 0; t < MAX_ROWS; t++) {
            char *to = m->packed[s] + t * m->stride[s];
            fill_row(m->row, shapes[s].n_in, t);
            if (bytes > 0) {
                m->scale[t] = ops->product[dtype].pack_row(to, m->row, shapes[s].n_in);
            } else {
                memcpy(to, m->row, m->stride[s]);
            }
        }
    }
}

static void model_deinit(struct model *m)
{
    for (uint32_t i = 0; i < m->n; i++) {
        packed_deinit(&m->matrices[i]);
    }
    for (uint32_t s = 0; s < N_SHAPES; s++) {
        mem_free(m->packed[s]);
    }
    mem_free(m->row);
    mem_free(m->y);
    mem_free(m->scale);
}

/* Per shape, and in all (last element): each product's best of PASSES, summed, so that other load
 * on the machine distorts little. */
static void time_rows(const struct model *m, struct pool *pool, uint32_t rows,
                      struct figure out[N_SHAPES + 1])
{
    static double best[MAX_MATRICES];
    int passes = rows > 64 ? PASSES / 4 : PASSES;
    for (int pass = 0; pass < passes; pass++) {
        for (uint32_t i = 0; i < m->n; i++) {
            const struct packed_matrix *w = &m->matrices[i];
            uint32_t s = m->shape_of[i];
            const struct operand x = {
                .data = m->packed[s], .stride = m->stride[s], .scale = m->scale};
            uint64_t begin = monotime_now_ns();
            tensor_matmul(m->ops, pool, m->y, w->n_out, &x, rows, w);
            double took = (double)(monotime_now_ns() - begin);
            best[i] = pass == 0 ? took : fmin(best[i], took);
        }
    }
    memset(out, 0, (N_SHAPES + 1) * sizeof *out);
    for (uint32_t i = 0; i < m->n; i++) {
        const struct packed_matrix *w = &m->matrices[i];
        struct figure *const of[] = {&out[m->shape_of[i]], &out[N_SHAPES]};
        for (size_t k = 0; k < 2; k++) {
            of[k]->ns += best[i];
            of[k]->bytes += (double)w->bytes;
            of[k]->multiply_adds += (double)w->n_out * w->n_in;
        }
    }
}

static void print_figure(const char *name, uint32_t rows, const struct figure *f, double peak,
                         double read)
{
    double flop = 2.0 * f->multiply_adds * rows / f->ns; /* G/s */
    double bytes = f->bytes / f->ns;
    double limit_ns = fmax(f->bytes / read, 2.0 * f->multiply_adds * rows / peak);
    printf("%-20s %5u %9.1f %6.0f%% %8.2f %6.0f%% %8.0f%%", name, rows, flop, 100 * flop / peak,
           bytes, 100 * bytes / read, 100 * limit_ns / f->ns);
}

static void bench(const struct tensor_ops *ops, enum tensor_dtype dtype, struct pool *pool)
{
    static struct model m;
    static struct figure figures[N_ROW_COUNTS][N_SHAPES + 1];
    struct tensor_limits before;
    struct tensor_limits after;
    struct error err = ERROR_INIT;
    size_t n = strcmp(ops->isa, "reference") == 0 ? 4 : N_ROW_COUNTS;
    model_init(&m, ops, dtype);
    if (tensor_limits_measure(ops, pool, LIMITS_S, &before, &err) != STATUS_OK) {
        fail(err.message);
    }
    for (size_t r = 0; r < n; r++) {
        time_rows(&m, pool, row_counts[r], figures[r]);
    }
    if (tensor_limits_measure(ops, pool, LIMITS_S, &after, &err) != STATUS_OK) {
        fail(err.message);
    }
    struct tensor_limits best = tensor_limits_best(&before, &after);
    double peak = 2e-9 * best.multiply_adds[dtype];
    double read = 1e-9 * best.read_bytes;
    printf("\n%s %s, %u threads: peak %.1f G/s (%.1f before, %.1f after), read %.1f GB/s (%.1f, "
           "%.1f)\n",
           ops->isa, tensor_dtype_name(dtype), pool_threads(pool), peak,
           2e-9 * before.multiply_adds[dtype], 2e-9 * after.multiply_adds[dtype], read,
           1e-9 * before.read_bytes, 1e-9 * after.read_bytes);
    printf("%-20s %5s %9s %7s %8s %7s %9s %10s\n", "shape (out x in)", "rows", "G(FL)OP/s",
           "of peak", "GB/s", "of read", "of limit", "tokens/s");
    for (size_t r = 0; r < n; r++) {
        for (size_t s = 0; s < N_SHAPES; s++) {
            print_figure(shapes[s].name, row_counts[r], &figures[r][s], peak, read);
            printf("\n");
        }
        print_figure("all", row_counts[r], &figures[r][N_SHAPES], peak, read);
        printf(" %10.0f\n", row_counts[r] / figures[r][N_SHAPES].ns * 1e9);
    }
    model_deinit(&m);
}

static bool is_wanted(int argc, char **argv, const char *isa, const char *dtype)
{
    char both[64];
    (void)snprintf(both, sizeof both, "%s:%s", isa, dtype);
    bool wanted = argc < 2;
    for (int a = 1; a < argc; a++) {
        wanted = wanted || strcmp(argv[a], isa) == 0 || strcmp(argv[a], both) == 0;
    }
    return wanted;
}

int main(int argc, char **argv)
{
    const char *threads = getenv("LLMSCHED_BENCH_THREADS");
    uint32_t n_threads = threads != NULL ? (uint32_t)atoi(threads) : pool_default_threads();
    struct pool *pool = NULL;
    struct error err = ERROR_INIT;
    if (pool_create(n_threads, &pool, &err) != STATUS_OK) {
        fail(err.message);
    }
    const struct tensor_ops *all[MAX_ISAS];
    uint32_t n = tensor_available(all, MAX_ISAS);
    for (uint32_t i = 0; i < n * TENSOR_DTYPES; i++) {
        const struct tensor_ops *ops = all[i / TENSOR_DTYPES];
        enum tensor_dtype dtype = i % TENSOR_DTYPES;
        if (is_wanted(argc, argv, ops->isa, tensor_dtype_name(dtype))) {
            bench(ops, dtype, pool);
        }
    }
    pool_destroy(pool);
    return 0;
}
