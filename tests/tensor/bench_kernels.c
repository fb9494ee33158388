/*
 * bench_kernels.c - speed and correctness of the kernels: matrix products beside the limits of this
 * machine measured just before and just after, and beside oneDNN's where that is installed; then
 * the other operations.
 *
 *   bench_kernels [isa[:dtype|:rows] ...]   (default: all)
 *
 * LLMSCHED_BENCH_THREADS: threads; LLMSCHED_BENCH_ROWS: the most rows of a product. Wants a quiet
 * machine: OpenMP's threads wait for each other, so other load hits oneDNN harder than ours.
 *
 * Passes over all weights of SmolLM2-135M's shape (random values), in the order of the model, so
 * that weights come from where they would come from; each product's best of several passes, ours
 * and oneDNN's in turn. Limit: the larger of bytes / read rate and operations / peak of the dtype.
 * Exit status 1: a result is further from the reference's than rounding can explain.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "tensor/kernels_int.h"
#include "tensor/limits.h"

#define MAX_ISAS 8
#define PASSES   15
#define LIMITS_S 1.0
/* Threads of OpenMP spin for some milliseconds after their last work; ours sleep after 40 us. */
#define REST_NS 20000000
/* Limits that differ by more before and after tell of other load. */
#define NOT_QUIET 0.1

static const uint32_t row_counts[] = {1, 2, 4, 8, 16, 32, 64, 512};
#define N_ROW_COUNTS (sizeof row_counts / sizeof row_counts[0])

struct model {
    const struct tensor_ops *ops;
    enum tensor_dtype dtype;
    struct pool *pool;
    struct packed_matrix matrices[N_MATRICES];
    float *y;
    char *packed[N_SHAPES]; /* operand rows of a shape */
    size_t stride[N_SHAPES];
    struct peer_model *peer; /* NULL: none */
};

/* Of one shape, or of all. */
struct figure {
    double ns;
    double peer_ns;
    double bytes;
    double multiply_adds; /* of one row */
    double error;         /* as a share of the rounding bound */
    double peer_error;
};

static void pack_matrix(const struct model *m, struct packed_matrix *w, const struct shape *s)
{
    if (packed_begin(w, m->ops, m->dtype, s->n_out, s->n_in, false, NULL, NULL) != STATUS_OK) {
        fail("no memory");
    }
    for (uint32_t row = 0; row < s->n_out; row++) {
        packed_put_rows(w, row, 1, weight_row(row));
    }
}

static void pack_inputs(struct model *m, uint32_t shape)
{
    uint32_t n_in = shapes[shape].n_in;
    size_t bytes = tensor_operand_bytes(m->ops, m->dtype, n_in);
    float row[WIDEST_IN];
    m->stride[shape] = bytes > 0 ? bytes : n_in * sizeof(float);
    m->packed[shape] = must_alloc(MAX_ROWS * m->stride[shape]);
    for (uint32_t t = 0; t < MAX_ROWS; t++) {
        char *to = m->packed[shape] + t * m->stride[shape];
        fill_inputs(row, n_in, t);
        if (bytes > 0) {
            m->ops->product[m->dtype].pack_row(to, row, n_in);
        } else {
            memcpy(to, row, m->stride[shape]);
        }
    }
}

static void model_init(struct model *m, const struct tensor_ops *ops, enum tensor_dtype dtype,
                       struct pool *pool)
{
    *m = (struct model){.ops = ops, .dtype = dtype, .pool = pool};
    m->y = must_alloc((size_t)MAX_ROWS * WIDEST_OUT * sizeof(float));
    for (uint32_t i = 0; i < N_MATRICES; i++) {
        pack_matrix(m, &m->matrices[i], &shapes[shape_of(i)]);
    }
    for (uint32_t s = 0; s < N_SHAPES; s++) {
        pack_inputs(m, s);
    }
    if (peer_onednn != NULL && strcmp(ops->isa, "reference") != 0) {
        m->peer = peer_onednn->create(dtype);
    }
}

static void model_deinit(struct model *m)
{
    for (uint32_t i = 0; i < N_MATRICES; i++) {
        packed_deinit(&m->matrices[i]);
    }
    for (uint32_t s = 0; s < N_SHAPES; s++) {
        mem_free(m->packed[s]);
    }
    mem_free(m->y);
    if (m->peer != NULL) {
        peer_onednn->destroy(m->peer);
    }
}

static void multiply(const struct model *m, uint32_t matrix, uint32_t rows)
{
    const struct packed_matrix *w = &m->matrices[matrix];
    uint32_t s = shape_of(matrix);
    const struct operand x = {.data = m->packed[s], .stride = m->stride[s]};
    tensor_matmul(m->ops, m->pool, m->y, w->n_out, &x, rows, w);
}

/* One pass of ours (peer: of the other library's); keeps each product's best. */
static void time_pass(const struct model *m, uint32_t rows, bool peer, double best[N_MATRICES])
{
    for (uint32_t i = 0; i < N_MATRICES; i++) {
        uint64_t begin = monotime_now_ns();
        if (peer) {
            peer_onednn->multiply(m->peer, i);
        } else {
            multiply(m, i, rows);
        }
        best[i] = fmin(best[i], (double)(monotime_now_ns() - begin));
    }
}

static void rest(void)
{
    const struct timespec ts = {.tv_nsec = REST_NS};
    (void)nanosleep(&ts, NULL);
}

/* One product of each shape, from outputs that are not numbers. */
static void check_rows(const struct model *m, uint32_t rows, struct figure out[N_SHAPES + 1])
{
    for (uint32_t s = 0; s < N_SHAPES; s++) {
        uint32_t matrix = s + 1 < N_SHAPES ? s : N_MATRICES - 1;
        size_t bytes = (size_t)rows * shapes[s].n_out * sizeof *m->y;
        memset(m->y, 0xFF, bytes);
        multiply(m, matrix, rows);
        out[s].error = reference_error(m->ops, m->dtype, &shapes[s], rows, m->y);
        if (m->peer != NULL) {
            memset(m->y, 0xFF, bytes);
            peer_onednn->multiply(m->peer, matrix);
            out[s].peer_error = peer_onednn->error(m->peer, s);
        }
        out[N_SHAPES].error = fmax(out[N_SHAPES].error, out[s].error);
        out[N_SHAPES].peer_error = fmax(out[N_SHAPES].peer_error, out[s].peer_error);
    }
}

/* Per shape, and in all (last element): each product's best of PASSES, summed, so that other load
 * on the machine distorts little. */
static void time_rows(const struct model *m, uint32_t rows, struct figure out[N_SHAPES + 1])
{
    static double best[2][N_MATRICES]; /* ours, the peer's */
    int passes = rows > 64 ? PASSES / 4 : PASSES;
    for (uint32_t i = 0; i < N_MATRICES; i++) {
        best[0][i] = best[1][i] = HUGE_VAL;
    }
    if (m->peer != NULL) {
        peer_onednn->prepare(m->peer, rows, m->y);
    }
    for (int pass = 0; pass < passes; pass++) {
        time_pass(m, rows, false, best[0]);
        if (m->peer != NULL) {
            time_pass(m, rows, true, best[1]);
            rest();
        }
    }
    memset(out, 0, (N_SHAPES + 1) * sizeof *out);
    for (uint32_t i = 0; i < N_MATRICES; i++) {
        const struct packed_matrix *w = &m->matrices[i];
        struct figure *const of[] = {&out[shape_of(i)], &out[N_SHAPES]};
        for (size_t k = 0; k < 2; k++) {
            of[k]->ns += best[0][i];
            of[k]->peer_ns += best[1][i];
            of[k]->bytes += (double)w->bytes;
            of[k]->multiply_adds += (double)w->n_out * w->n_in;
        }
    }
    check_rows(m, rows, out);
}

static void print_figure(const char *name, uint32_t rows, const struct figure *f, double peak,
                         double read)
{
    double flop = 2.0 * f->multiply_adds * rows; /* / ns = G/s */
    double bytes = f->bytes / f->ns;
    double limit_ns = fmax(f->bytes / read, flop / peak);
    printf("%-20s %5u %9.1f", name, rows, flop / f->ns);
    if (isfinite(f->peer_ns)) {
        printf(" %7.1f %6.2f", flop / f->peer_ns, f->peer_ns / f->ns);
    } else {
        printf(" %7s %6s", "-", "-");
    }
    printf(" %6.0f%% %7.2f %6.0f%% %7.0f%% %8.4f", 100 * flop / f->ns / peak, bytes,
           100 * bytes / read, 100 * limit_ns / f->ns, f->error);
}

/* What the columns of the other library are, or why they are empty. */
static void print_peer(const struct model *m, uint32_t most_rows)
{
    char name[64];
    if (peer_onednn == NULL) {
        printf("oneDNN not built in (libdnnl-dev)\n");
        return;
    }
    peer_onednn->describe(name, sizeof name);
    if (m->peer == NULL) {
        printf("%s: %s\n", name,
               strcmp(m->ops->isa, "reference") == 0 ? "not beside the reference"
                                                     : "no product of this dtype on this machine");
        return;
    }
    printf("%s, kernel %s at %u rows\n", name, peer_onednn->kernel(m->peer, 0), most_rows);
    if (m->dtype == TENSOR_INT8) {
        printf(
            "int8 there is u8 x s8 (weights of 7 bits) with one scale per row of weights; ours has "
            "scales per 64\n");
    }
}

static double share_apart(double a, double b)
{
    return 1.0 - fmin(a, b) / fmax(a, b);
}

static void print_table(const struct model *m, size_t n,
                        struct figure figures[N_ROW_COUNTS][N_SHAPES + 1],
                        const struct tensor_limits *before, const struct tensor_limits *after)
{
    struct tensor_limits best = tensor_limits_best(before, after);
    double peak = 2e-9 * best.multiply_adds[m->dtype];
    double read = 1e-9 * best.read_bytes;
    printf("\n%s %s, %u threads: peak %.1f G/s (%.1f before, %.1f after), read %.1f GB/s (%.1f, "
           "%.1f)\n",
           m->ops->isa, tensor_dtype_name(m->dtype), pool_threads(m->pool), peak,
           2e-9 * before->multiply_adds[m->dtype], 2e-9 * after->multiply_adds[m->dtype], read,
           1e-9 * before->read_bytes, 1e-9 * after->read_bytes);
    double drift =
        fmax(share_apart(before->read_bytes, after->read_bytes),
             share_apart(before->multiply_adds[m->dtype], after->multiply_adds[m->dtype]));
    if (drift > NOT_QUIET) {
        printf("the machine was not quiet: its limits changed by %.0f%% meanwhile\n", 100 * drift);
    }
    print_peer(m, row_counts[n - 1]);
    printf("%-20s %5s %9s %7s %6s %7s %7s %7s %8s %8s %9s\n", "shape (out x in)", "rows",
           "G(FL)OP/s", "oneDNN", "ratio", "of peak", "GB/s", "of read", "of limit", "error",
           "tokens/s");
    for (size_t r = 0; r < n; r++) {
        for (size_t s = 0; s < N_SHAPES; s++) {
            print_figure(shapes[s].name, row_counts[r], &figures[r][s], peak, read);
            printf("\n");
        }
        print_figure("all", row_counts[r], &figures[r][N_SHAPES], peak, read);
        printf(" %9.0f\n", row_counts[r] / figures[r][N_SHAPES].ns * 1e9);
    }
}

/* False: a product is wrong, which the last lines say. */
static bool errors_are_within_bounds(const struct model *m, size_t n,
                                     struct figure figures[N_ROW_COUNTS][N_SHAPES + 1])
{
    bool ok = true;
    for (size_t i = 0; i < n * N_SHAPES; i++) {
        const struct figure *f = &figures[i / N_SHAPES][i % N_SHAPES];
        double errors[] = {f->error, f->peer_error};
        for (size_t k = 0; k < 2; k++) {
            if (!(errors[k] <= 1.0)) {
                printf("WRONG: %s, %s, %u rows of %s: %.3g times the rounding bound\n",
                       k == 0 ? m->ops->isa : "oneDNN", tensor_dtype_name(m->dtype),
                       row_counts[i / N_SHAPES], shapes[i % N_SHAPES].name, errors[k]);
                ok = false;
            }
        }
    }
    return ok;
}

static uint32_t env_number(const char *name, uint32_t otherwise, uint32_t most)
{
    const char *text = getenv(name);
    long value = text != NULL ? strtol(text, NULL, 10) : (long)otherwise;
    if (value < 1 || value > (long)most) {
        fprintf(stderr, "bench_kernels: %s is 1 to %u, not \"%s\"\n", name, most,
                text != NULL ? text : "");
        exit(1);
    }
    return (uint32_t)value;
}

/* How many of row_counts are run. */
static size_t row_counts_wanted(const struct tensor_ops *ops)
{
    uint32_t most = env_number("LLMSCHED_BENCH_ROWS", MAX_ROWS, MAX_ROWS);
    size_t n = strcmp(ops->isa, "reference") == 0 ? 4 : N_ROW_COUNTS;
    while (n > 1 && row_counts[n - 1] > most) {
        n--;
    }
    return n;
}

static bool bench_products(const struct tensor_ops *ops, enum tensor_dtype dtype, struct pool *pool)
{
    static struct model m;
    static struct figure figures[N_ROW_COUNTS][N_SHAPES + 1];
    struct tensor_limits before;
    struct tensor_limits after;
    struct error err = ERROR_INIT;
    size_t n = row_counts_wanted(ops);
    model_init(&m, ops, dtype, pool);
    if (tensor_limits_measure(ops, pool, LIMITS_S, &before, &err) != STATUS_OK) {
        fail(err.message);
    }
    for (size_t r = 0; r < n; r++) {
        time_rows(&m, row_counts[r], figures[r]);
    }
    if (tensor_limits_measure(ops, pool, LIMITS_S, &after, &err) != STATUS_OK) {
        fail(err.message);
    }
    print_table(&m, n, figures, &before, &after);
    bool ok = errors_are_within_bounds(&m, n, figures);
    model_deinit(&m);
    return ok;
}

static bool is_wanted(int argc, char **argv, const char *isa, const char *part)
{
    char both[64];
    (void)snprintf(both, sizeof both, "%s:%s", isa, part);
    bool wanted = argc < 2;
    for (int a = 1; a < argc; a++) {
        wanted = wanted || strcmp(argv[a], isa) == 0 || strcmp(argv[a], both) == 0;
    }
    return wanted;
}

int main(int argc, char **argv)
{
    uint32_t n_threads =
        env_number("LLMSCHED_BENCH_THREADS", pool_default_threads(), POOL_MAX_THREADS);
    struct pool *pool = NULL;
    struct error err = ERROR_INIT;
    if (peer_onednn != NULL) {
        peer_onednn->set_threads(n_threads, argv);
    }
    if (pool_create(n_threads, &pool, &err) != STATUS_OK) {
        fail(err.message);
    }
    printf("ratio: ours / oneDNN's speed; error: the largest difference from the reference on %d "
           "outputs of up\nto %d rows, as a share of the rounding bound inputs x 2^-24 x sum |x w| "
           "(1 is the most allowed)\n",
           SAMPLE_OUTS, SAMPLE_ROWS);
    const struct tensor_ops *all[MAX_ISAS];
    uint32_t n = tensor_available(all, MAX_ISAS);
    bool ok = true;
    uint32_t done = 0;
    for (uint32_t i = 0; i < n * (TENSOR_DTYPES + 1); i++) {
        const struct tensor_ops *ops = all[i / (TENSOR_DTYPES + 1)];
        enum tensor_dtype dtype = i % (TENSOR_DTYPES + 1);
        bool is_rows = dtype == TENSOR_DTYPES;
        if (is_wanted(argc, argv, ops->isa, is_rows ? "rows" : tensor_dtype_name(dtype))) {
            ok = (is_rows ? bench_row_ops(ops) : bench_products(ops, dtype, pool)) && ok;
            done++;
        }
    }
    pool_destroy(pool);
    if (done == 0) {
        fail("nothing here by that name; bench_kernels [isa[:dtype|:rows] ...]");
    }
    return ok ? 0 : 1;
}
