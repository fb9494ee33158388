/*
 * bench_engine.c - decode speed of the model executor, without a scheduler.
 *
 *     bench_engine MODEL [threads [repeats [isa [dtype]]]]
 *
 * MODEL: a .gguf file or a folder. For 1, 8 and 32 streams: a prompt of 16 tokens each in one step,
 * then 19 steps of one token per stream (20 new tokens, the first from the prompt's step), at the
 * suite's sampling. Prints the fastest of the repeats per instruction set, and where its decode
 * time went. Other load on the machine shows as a difference between fastest and median; tokens per
 * CPU second (of all threads, spinning included) suffer less from it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "base/rng.h"
#include "infer/exec_model.h"
#include "model/config.h"
#include "model/weights.h"

#define PROMPT      16
#define NEW_TOKENS  20
#define MAX_STREAMS 32
#define BLOCKS      3
#define MAX_REPEATS 100

struct stream {
    struct request request;
    int32_t tokens[PROMPT + NEW_TOKENS];
    uint32_t blocks[BLOCKS];
    uint32_t known;
    uint32_t computed;
};

struct sample {
    double prefill_s;
    double decode_s;
    double decode_cpu_s;
    struct exec_model_timing decode;
};

static void die(const struct error *err)
{
    fprintf(stderr, "bench_engine: %s\n", err->message);
    exit(1);
}

static double step(struct executor *e, struct stream *streams, uint32_t n)
{
    static struct exec_result result;
    struct exec_item items[MAX_STREAMS];
    struct error err = ERROR_INIT;
    for (uint32_t i = 0; i < n; i++) {
        struct stream *s = &streams[i];
        items[i] = (struct exec_item){.seq = {.request = &s->request,
                                              .tokens = s->tokens,
                                              .known_tokens = s->known,
                                              .computed_tokens = s->computed,
                                              .blocks = s->blocks,
                                              .n_blocks = BLOCKS},
                                      .n_tokens = s->known - s->computed};
    }
    if (e->submit(e->self, &(struct exec_step){.items = items, .n_items = n}, &err) != STATUS_OK ||
        e->poll(e->self, &result, &err) != STATUS_OK) {
        die(&err);
    }
    for (uint32_t i = 0; i < n; i++) {
        streams[i].computed = streams[i].known;
        streams[i].tokens[streams[i].known++] = result.items[i].out[0];
    }
    return monotime_seconds(result.duration_ns);
}

static double cpu_seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static struct sample measure(struct exec_model *m, uint32_t n_streams, uint32_t n_vocab)
{
    static struct stream streams[MAX_STREAMS];
    struct executor *e = exec_model_executor(m);
    struct rng rng = rng_stream(7, n_streams);
    for (uint32_t i = 0; i < n_streams; i++) {
        struct stream *s = &streams[i];
        *s = (struct stream){.known = PROMPT};
        for (uint32_t t = 0; t < PROMPT; t++) {
            s->tokens[t] = (int32_t)rng_below(&rng, n_vocab);
        }
        for (uint32_t b = 0; b < BLOCKS; b++) {
            s->blocks[b] = b * MAX_STREAMS + i;
        }
        s->request =
            (struct request){.id = i,
                             .prompt = s->tokens,
                             .prompt_tokens = PROMPT,
                             .max_new_tokens = NEW_TOKENS,
                             .sample_key = i,
                             .sampling = {.temperature = 0.7f, .top_k = 50, .top_p = 0.95f},
                             .ignore_eos = true};
    }
    struct sample out = {0};
    out.prefill_s = step(e, streams, n_streams);
    exec_model_timing_reset(m);
    double cpu = cpu_seconds();
    for (uint32_t i = 1; i < NEW_TOKENS; i++) {
        out.decode_s += step(e, streams, n_streams);
    }
    out.decode_cpu_s = cpu_seconds() - cpu;
    exec_model_timing_get(m, &out.decode);
    return out;
}

static int by_decode(const void *a, const void *b)
{
    const struct sample *x = a;
    const struct sample *y = b;
    return x->decode_s < y->decode_s ? -1 : x->decode_s > y->decode_s;
}

static void bench_streams(struct exec_model *m, uint32_t n, uint32_t n_vocab, uint32_t repeats)
{
    static struct sample samples[MAX_REPEATS];
    for (uint32_t r = 0; r < repeats; r++) {
        samples[r] = measure(m, n, n_vocab);
    }
    qsort(samples, repeats, sizeof samples[0], by_decode);
    const struct sample *s = &samples[0];
    const struct exec_model_timing *t = &s->decode;
    double percent = 100.0 / (double)t->total_ns;
    double tokens = (double)n * (NEW_TOKENS - 1);
    printf("%-9s %7u %9.1f %9.1f %9.1f %11.1f   %5.1f %5.1f %5.1f %5.1f %5.1f\n", exec_model_isa(m),
           n, tokens / s->decode_s, tokens / samples[repeats / 2].decode_s,
           tokens / s->decode_cpu_s, (double)n * PROMPT / s->prefill_s,
           percent * (double)t->matmul_ns, percent * (double)t->attention_ns,
           percent * (double)t->norm_ns, percent * (double)t->head_ns,
           percent * (double)t->sample_ns);
    fflush(stdout);
}

static void bench_isa(const struct model_config *config, const struct weights *weights,
                      const struct tensor_ops *ops, enum tensor_dtype dtype, uint32_t threads,
                      uint32_t repeats)
{
    static const uint32_t streams[] = {1, 8, 32};
    struct exec_model *m;
    struct error err = ERROR_INIT;
    const struct exec_model_options o = {.config = config,
                                         .weights = weights,
                                         .ops = ops,
                                         .dtype = dtype,
                                         .n_threads = threads,
                                         .kv_blocks = BLOCKS * MAX_STREAMS,
                                         .max_model_len = 64,
                                         .max_rows = 512};
    uint64_t begin = monotime_now_ns();
    if (exec_model_create(&o, &m, &err) != STATUS_OK) {
        die(&err);
    }
    fprintf(stderr, "%s %s: %u threads, loaded in %.2f s\n", exec_model_isa(m),
            tensor_dtype_name(dtype), exec_model_threads(m),
            monotime_seconds(monotime_now_ns() - begin));
    for (uint32_t i = 0; i < 3; i++) {
        bench_streams(m, streams[i], config->n_vocab, repeats);
    }
    exec_model_destroy(m);
}

int main(int argc, char **argv)
{
    struct error err = ERROR_INIT;
    static struct model_config config;
    struct weights *weights;
    const struct tensor_ops *isas[16];
    if (argc < 2) {
        fprintf(stderr, "usage: bench_engine MODEL [threads [repeats [isa [dtype]]]]\n");
        return 2;
    }
    uint32_t threads = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
    uint32_t repeats = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 5;
    repeats = repeats < 1 ? 1 : repeats > MAX_REPEATS ? MAX_REPEATS : repeats;
    if (config_open(argv[1], &config, &err) != STATUS_OK ||
        weights_open(argv[1], &config, &weights, &err) != STATUS_OK) {
        die(&err);
    }
    uint32_t n = tensor_available(isas, 16);
    printf("isa       streams  decode/s    median     cpu-s   prefill/s   matmul  attn  norm  head "
           "sample "
           "(%%)\n");
    for (uint32_t i = 0; i < n; i++) {
        for (int d = 0; d < TENSOR_DTYPES; d++) {
            enum tensor_dtype dtype = (enum tensor_dtype)d;
            if ((argc <= 4 || strcmp(argv[4], isas[i]->isa) == 0) &&
                (argc <= 5 || strcmp(argv[5], tensor_dtype_name(dtype)) == 0)) {
                bench_isa(&config, weights, isas[i], dtype, threads, repeats);
            }
        }
    }
    weights_close(weights);
    return 0;
}
