/*
 * bench_kernels.c - speed of the kernels, beside the limits of this machine measured in the same
 * run.
 *
 *   bench_kernels [isa ...]      (default: all this machine has; LLMSCHED_BENCH_THREADS: threads)
 *
 * Matrix products: passes over all weights of SmolLM2-135M's shape (random values), in the order of
 * the model, so that weights come from where they would come from; each product's best of several
 * passes. Peak: FMA on registers by all threads; read: a sum over 512 MiB by all threads.
 *
 * With one thread all times are CPU times, so that other load on the machine takes the core away
 * without spoiling the figures (it still shares caches and memory). With more they are wall times.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "base/rng.h"
#include "tensor/tensor.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MAX_ISAS 8
#define MAX_ROWS 512
#define LAYERS   30
#define PASSES   15

static const struct shape {
    const char *name;
    uint32_t n_out, n_in, per_layer;
} shapes[] = {
    {"q, o     576 x  576", 576, 576, 2},   {"k, v     192 x  576", 192, 576, 2},
    {"gate,up 1536 x  576", 1536, 576, 2},  {"down     576 x 1536", 576, 1536, 1},
    {"head   49152 x  576", 49152, 576, 0}, /* once */
};
#define N_SHAPES     (sizeof shapes / sizeof shapes[0])
#define MAX_MATRICES (LAYERS * 7 + 1)

static const uint32_t row_counts[] = {1, 2, 4, 8, 16, 32, 64, 512};
#define N_ROW_COUNTS (sizeof row_counts / sizeof row_counts[0])

static void fail(const char *what)
{
    fprintf(stderr, "bench_kernels: %s\n", what);
    exit(1);
}

static bool one_thread;

static uint64_t bench_now_ns(void)
{
    if (!one_thread) {
        return monotime_now_ns();
    }
    struct timespec t;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) != 0) {
        fail("no CPU clock");
    }
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ---- limits ---- */

static float fma_spin(const char *isa, uint64_t rounds);

#if defined(__x86_64__)
#define FMA_CHAINS 12

__attribute__((target("avx2,fma"))) static float fma_spin_avx2(uint64_t rounds)
{
    __m256 a[FMA_CHAINS];
    __m256 x = _mm256_set1_ps(0.999f);
    for (int i = 0; i < FMA_CHAINS; i++) {
        a[i] = _mm256_set1_ps((float)i);
    }
    for (uint64_t r = 0; r < rounds; r++) {
        for (int i = 0; i < FMA_CHAINS; i++) {
            a[i] = _mm256_fmadd_ps(a[i], x, x);
        }
    }
    float out[8];
    for (int i = 1; i < FMA_CHAINS; i++) {
        a[0] = _mm256_add_ps(a[0], a[i]);
    }
    _mm256_storeu_ps(out, a[0]);
    return out[0];
}

__attribute__((target("avx512f"))) static float fma_spin_avx512(uint64_t rounds)
{
    __m512 a[FMA_CHAINS];
    __m512 x = _mm512_set1_ps(0.999f);
    for (int i = 0; i < FMA_CHAINS; i++) {
        a[i] = _mm512_set1_ps((float)i);
    }
    for (uint64_t r = 0; r < rounds; r++) {
        for (int i = 0; i < FMA_CHAINS; i++) {
            a[i] = _mm512_fmadd_ps(a[i], x, x);
        }
    }
    float out[16];
    for (int i = 1; i < FMA_CHAINS; i++) {
        a[0] = _mm512_add_ps(a[0], a[i]);
    }
    _mm512_storeu_ps(out, a[0]);
    return out[0];
}
#endif

/* Floating-point operations of one round. */
static double fma_round_flop(const char *isa)
{
    return strcmp(isa, "avx512") == 0 ? 12 * 16 * 2.0 : strcmp(isa, "avx2") == 0 ? 12 * 8 * 2.0 : 0;
}

static float fma_spin(const char *isa, uint64_t rounds)
{
#if defined(__x86_64__)
    if (strcmp(isa, "avx2") == 0) {
        return fma_spin_avx2(rounds);
    }
    if (strcmp(isa, "avx512") == 0) {
        return fma_spin_avx512(rounds);
    }
#endif
    (void)isa;
    (void)rounds;
    return 0.0f;
}

struct limit_job {
    const char *isa;
    uint64_t rounds;
    const uint64_t *data;
    size_t n;
    volatile uint64_t sink[POOL_MAX_THREADS];
};

static void fma_part(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct limit_job *job = ctx;
    (void)begin;
    (void)end;
    job->sink[thread] = (uint64_t)fma_spin(job->isa, job->rounds);
}

/* GFLOP/s of all threads; NAN when there is no such loop for the ISA. */
static double measure_peak(struct pool *pool, const char *isa)
{
    static struct limit_job job;
    job = (struct limit_job){.isa = isa, .rounds = 400000};
    double best = (double)NAN;
    for (int i = 0; i < 50 && fma_round_flop(isa) > 0; i++) {
        uint64_t begin = bench_now_ns();
        pool_run(pool, pool_threads(pool), 1, fma_part, &job);
        double ns = (double)(bench_now_ns() - begin);
        double rate = fma_round_flop(isa) * (double)job.rounds * pool_threads(pool) / ns;
        best = fmax(best, rate);
    }
    return best;
}

#define READ_CHUNK    8192 /* uint64_t */
#define SEGMENTS      64
#define SEGMENT_BYTES ((size_t)8 << 20)

static void read_part(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct limit_job *job = ctx;
    uint64_t sum[8] = {0};
    for (size_t i = (size_t)begin * READ_CHUNK; i < (size_t)end * READ_CHUNK; i += 8) {
        for (size_t j = 0; j < 8; j++) {
            sum[j] += job->data[i + j];
        }
    }
    for (size_t j = 1; j < 8; j++) {
        sum[0] += sum[j];
    }
    job->sink[thread] = sum[0];
}

/* GB/s of all threads: a table far larger than a core's caches, segment by segment, best of each.
 */
static double measure_read(struct pool *pool)
{
    static struct limit_job job;
    uint64_t *data = mem_alloc_table(SEGMENTS * SEGMENT_BYTES);
    if (data == NULL) {
        fail("no memory");
    }
    double best[SEGMENTS];
    for (int pass = 0; pass < PASSES; pass++) {
        for (size_t s = 0; s < SEGMENTS; s++) {
            job = (struct limit_job){.data = data + s * (SEGMENT_BYTES / sizeof *data)};
            uint64_t begin = bench_now_ns();
            pool_run(pool, SEGMENT_BYTES / sizeof *data / READ_CHUNK, 1, read_part, &job);
            double took = (double)(bench_now_ns() - begin);
            best[s] = pass == 0 ? took : fmin(best[s], took);
        }
    }
    mem_free(data);
    double ns = 0;
    for (size_t s = 0; s < SEGMENTS; s++) {
        ns += best[s];
    }
    return (double)(SEGMENTS * SEGMENT_BYTES) / ns;
}

/* ---- matrix products ---- */

struct model {
    struct packed_matrix matrices[MAX_MATRICES];
    uint32_t shape_of[MAX_MATRICES];
    uint32_t n;
    float *x, *y;
};

static void model_add(struct model *m, const struct tensor_ops *ops, uint32_t shape)
{
    struct packed_matrix *w = &m->matrices[m->n];
    const struct shape *s = &shapes[shape];
    if (packed_begin(w, ops, TENSOR_F32, s->n_out, s->n_in, false, NULL) != STATUS_OK) {
        fail("no memory");
    }
    for (size_t i = 0; i < w->bytes / sizeof(float); i++) {
        ((float *)w->data)[i] = (float)(i * 2654435761u % 2001) * 1e-5f - 0.01f;
    }
    m->shape_of[m->n++] = shape;
}

static void model_init(struct model *m, const struct tensor_ops *ops)
{
    memset(m, 0, sizeof *m);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        for (uint32_t s = 0; s < N_SHAPES; s++) {
            for (uint32_t i = 0; i < shapes[s].per_layer; i++) {
                model_add(m, ops, s);
            }
        }
    }
    model_add(m, ops, N_SHAPES - 1);
    m->x = mem_alloc_aligned(64, (size_t)MAX_ROWS * 1536 * sizeof(float));
    m->y = mem_alloc_aligned(64, (size_t)MAX_ROWS * 49152 * sizeof(float));
    if (m->x == NULL || m->y == NULL) {
        fail("no memory");
    }
    struct rng r = rng_stream(1, 1);
    for (size_t i = 0; i < (size_t)MAX_ROWS * 1536; i++) {
        m->x[i] = (float)rng_normal(&r);
    }
}

static void model_deinit(struct model *m)
{
    for (uint32_t i = 0; i < m->n; i++) {
        packed_deinit(&m->matrices[i]);
    }
    mem_free(m->x);
    mem_free(m->y);
}

/* ns per shape, and in all (last element): each product's best of PASSES, summed, so that other
 * load on the machine distorts little. */
static void time_rows(const struct model *m, const struct tensor_ops *ops, struct pool *pool,
                      uint32_t rows, double ns[N_SHAPES + 1])
{
    static double best[MAX_MATRICES];
    int passes = rows > 64 ? PASSES / 4 : PASSES;
    for (int pass = 0; pass < passes; pass++) {
        for (uint32_t i = 0; i < m->n; i++) {
            const struct packed_matrix *w = &m->matrices[i];
            uint64_t begin = bench_now_ns();
            tensor_matmul(ops, pool, m->y, w->n_out, m->x, w->n_in, rows, w);
            double took = (double)(bench_now_ns() - begin);
            best[i] = pass == 0 ? took : fmin(best[i], took);
        }
    }
    memset(ns, 0, (N_SHAPES + 1) * sizeof *ns);
    for (uint32_t i = 0; i < m->n; i++) {
        ns[m->shape_of[i]] += best[i];
        ns[N_SHAPES] += best[i];
    }
}

static void bench_isa(const struct tensor_ops *ops, struct pool *pool, double read_rate)
{
    static struct model m;
    model_init(&m, ops);
    double peak = measure_peak(pool, ops->isa);
    printf("\n%s, %u threads: FMA peak %.1f GFLOP/s, read %.1f GB/s\n", ops->isa,
           pool_threads(pool), peak, read_rate);
    printf("%-20s %5s %9s %7s %8s %7s %10s\n", "shape (out x in)", "rows", "GFLOP/s", "of peak",
           "GB/s", "of read", "tokens/s");
    for (size_t r = 0; r < N_ROW_COUNTS; r++) {
        if (strcmp(ops->isa, "reference") == 0 && row_counts[r] > 8) {
            break;
        }
        double ns[N_SHAPES + 1];
        time_rows(&m, ops, pool, row_counts[r], ns);
        double all = 0;
        for (size_t s = 0; s <= N_SHAPES; s++) {
            double weights = 0;
            if (s < N_SHAPES) {
                uint32_t count = shapes[s].per_layer > 0 ? shapes[s].per_layer * LAYERS : 1;
                weights = (double)shapes[s].n_out * shapes[s].n_in * count;
                all += weights;
            } else {
                weights = all;
            }
            double flops = 2 * weights * row_counts[r] / ns[s];
            double bytes = sizeof(float) * weights / ns[s];
            printf("%-20s %5u %9.1f %6.0f%% %8.2f %6.0f%%", s < N_SHAPES ? shapes[s].name : "all",
                   row_counts[r], flops, 100 * flops / peak, bytes, 100 * bytes / read_rate);
            if (s == N_SHAPES) {
                printf(" %10.0f", row_counts[r] / ns[s] * 1e9);
            }
            printf("\n");
        }
    }
    model_deinit(&m);
}

int main(int argc, char **argv)
{
    const char *threads = getenv("LLMSCHED_BENCH_THREADS");
    uint32_t n_threads = threads != NULL ? (uint32_t)atoi(threads) : pool_default_threads();
    one_thread = n_threads == 1;
    struct pool *pool = NULL;
    struct error err = ERROR_INIT;
    if (pool_create(n_threads, &pool, &err) != STATUS_OK) {
        fail(err.message);
    }
    double read_rate = measure_read(pool);
    const struct tensor_ops *all[MAX_ISAS];
    uint32_t n = tensor_available(all, MAX_ISAS);
    for (uint32_t i = 0; i < n; i++) {
        bool wanted = argc < 2;
        for (int a = 1; a < argc; a++) {
            wanted = wanted || strcmp(argv[a], all[i]->isa) == 0;
        }
        if (wanted) {
            bench_isa(all[i], pool, read_rate);
        }
    }
    pool_destroy(pool);
    return 0;
}
