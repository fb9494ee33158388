/* limits.c - see limits.h. */
#include "tensor/limits.h"

#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"

#define ROUND_NS     (20 * NS_PER_MS)
#define FIRST_AMOUNT 1000000ULL /* multiply-adds of a thread in the round that sets the length */

struct job {
    const struct tensor_ops *ops;
    enum tensor_dtype dtype;
    uint64_t amount;    /* multiply-adds of a thread */
    uint64_t *done;     /* [threads] of them; or, so that reads are not left out, of parts read */
    const float *array; /* NULL: multiply */
    size_t floats_of_part; /* of one of `threads` parts */
};

static void run_parts(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct job *job = ctx;
    for (uint32_t i = begin; i < end; i++) {
        if (job->array == NULL) {
            job->done[thread] += job->ops->multiply_add(job->dtype, job->amount);
        } else {
            const float *part = job->array + i * job->floats_of_part;
            job->done[thread] += job->ops->read(part, job->floats_of_part) > 0.0f;
        }
    }
}

/* Multiply-adds of all threads, and the time they took. */
static double run_round(struct job *job, struct pool *pool, uint64_t *took_ns)
{
    uint32_t threads = pool_threads(pool);
    memset(job->done, 0, threads * sizeof *job->done);
    uint64_t begin = monotime_now_ns();
    pool_run(pool, threads, 1, run_parts, job);
    *took_ns = monotime_now_ns() - begin;
    double done = 0.0;
    for (uint32_t i = 0; i < threads; i++) {
        done += (double)job->done[i];
    }
    return done;
}

static double best_multiply_adds(struct job *job, struct pool *pool, double seconds)
{
    uint64_t took_ns;
    job->array = NULL;
    job->amount = FIRST_AMOUNT;
    (void)run_round(job, pool, &took_ns);
    job->amount = FIRST_AMOUNT * ROUND_NS / (took_ns > 0 ? took_ns : 1) + 1;
    uint64_t until = monotime_now_ns() + monotime_from_seconds(seconds);
    double best = 0.0;
    do {
        double done = run_round(job, pool, &took_ns);
        double rate = done / monotime_seconds(took_ns);
        best = rate > best ? rate : best;
    } while (monotime_now_ns() < until);
    return best;
}

static double best_read(struct job *job, struct pool *pool, const float *array, double seconds)
{
    size_t part = TENSOR_LIMITS_READ_BYTES / sizeof *array / pool_threads(pool) / 64 * 64;
    job->array = array;
    job->floats_of_part = part;
    uint64_t until = monotime_now_ns() + monotime_from_seconds(seconds);
    double best = 0.0;
    do {
        uint64_t took_ns;
        (void)run_round(job, pool, &took_ns);
        double bytes = (double)part * sizeof *array * pool_threads(pool);
        double rate = bytes / monotime_seconds(took_ns);
        best = rate > best ? rate : best;
    } while (monotime_now_ns() < until);
    return best;
}

enum status tensor_limits_measure(const struct tensor_ops *ops, struct pool *pool, double seconds,
                                  struct tensor_limits *out, struct error *err)
{
    struct job job = {.ops = ops};
    job.done = mem_alloc(pool_threads(pool), sizeof *job.done);
    float *array = mem_alloc_table(TENSOR_LIMITS_READ_BYTES);
    if (job.done == NULL || array == NULL) {
        mem_free(job.done);
        mem_free(array);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for %zu bytes to read",
                         TENSOR_LIMITS_READ_BYTES);
    }
    memset(array, 1, TENSOR_LIMITS_READ_BYTES); /* pages of its own, not the one page of zeros */
    double share = seconds / (TENSOR_DTYPES + 1);
    for (int d = 0; d < TENSOR_DTYPES; d++) {
        job.dtype = (enum tensor_dtype)d;
        out->multiply_adds[d] = best_multiply_adds(&job, pool, share);
    }
    out->read_bytes = best_read(&job, pool, array, share);
    mem_free(array);
    mem_free(job.done);
    return STATUS_OK;
}

struct tensor_limits tensor_limits_best(const struct tensor_limits *a,
                                        const struct tensor_limits *b)
{
    struct tensor_limits best = *a;
    for (int d = 0; d < TENSOR_DTYPES; d++) {
        if (b->multiply_adds[d] > best.multiply_adds[d]) {
            best.multiply_adds[d] = b->multiply_adds[d];
        }
    }
    best.read_bytes = b->read_bytes > best.read_bytes ? b->read_bytes : best.read_bytes;
    return best;
}
