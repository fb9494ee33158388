/*
 * common.h - what every subcommand shares: environment, messages, progress, Ctrl-C.
 */
#ifndef LLMSCHED_CLI_COMMON_H
#define LLMSCHED_CLI_COMMON_H

#include <stdbool.h>
#include <stddef.h>

#include "base/log.h"
#include "base/status.h"
#include "bench/loaded_model.h"
#include "cli/options.h"
#include "model/hub.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

extern const struct command command_bench;
extern const struct command command_bench_engine;
extern const struct command command_plot;
extern const struct command command_pull;
extern const struct command command_info;
extern const struct command command_tokenize;
extern const struct command command_generate;
extern const struct command command_serve;
extern const struct command command_selftest;

/* Prints "llmsched: message" to stderr and gives the exit code of the status. */
int fail(enum status s, const struct error *err);

/* Flushes stdout; an unwritable one (a full disk, a closed pipe) is an error, not silence. */
int finish_stdout(int code);

/* The value of an environment variable, or NULL; an empty one counts as not set. */
const char *variable(const char *name);

/* An API key: the one line of `file`, else (file NULL) the variable called `name`, else NULL. Owner
 * of *out: the caller (mem_free). Errors: USAGE for a key that is not visible ASCII, IO, ... */
enum status api_key_read(const char *file, const char *name, char **out,
                         struct error *err) MUST_USE;

/* The hub's variables; models_dir is "models". */
struct hub_env hub_env_from_environment(void);

/* --model, else LLM_MODEL, else the model that `make model` fetches. */
const char *default_model(void);

/* Options that every command with a model has; targets are the struct's fields. */
struct model_flags {
    const char *model;
    bool random_weights;
    const char *dtype;
    const char *kv_dtype;
    uint64_t threads;
    uint64_t kv_blocks;
};
#define MODEL_FLAGS_INIT                                                                           \
    {                                                                                              \
        .dtype = "auto", .kv_dtype = "auto", .kv_blocks = EXEC_MODEL_KV_BLOCKS                     \
    }
#define MODEL_OPTION(flags)                                                                        \
    {                                                                                              \
        .name = "--model", .letter = 'm', .kind = OPTION_TEXT, .target = &(flags).model,           \
        .value = "M",                                                                              \
        .help = "folder, .gguf file or hub id (default: $LLM_MODEL, else SmolLM2-135M-Instruct)"   \
    }
#define RANDOM_WEIGHTS_OPTION(flags)                                                               \
    {                                                                                              \
        .name = "--random-weights", .kind = OPTION_FLAG, .target = &(flags).random_weights,        \
        .help = "run the model's shape with random weights; gpt2, gpt2-medium, gpt2-large and "    \
                "TinyLlama/TinyLlama-1.1B-Chat-v1.0 need no files"                                 \
    }
#define KV_DTYPE_OPTION(flags)                                                                     \
    {                                                                                              \
        .name = "--kv-dtype", .kind = OPTION_CHOICE, .target = &(flags).kv_dtype,                  \
        .choices = "auto|f32|bf16", .value = "T",                                                  \
        .help = "KV cache (default: auto = bf16, half the memory; f32 with --dtype f32)"           \
    }
#define THREADS_OPTION(flags)                                                                      \
    {                                                                                              \
        .name = "--threads", .kind = OPTION_UINT, .target = &(flags).threads, .min = 0,            \
        .max = POOL_MAX_THREADS, .value = "N", .help = "threads (default: physical cores)"         \
    }
#define RUN_MODEL_OPTIONS(flags)                                                                   \
    MODEL_OPTION(flags), RANDOM_WEIGHTS_OPTION(flags),                                             \
        {.name = "--dtype",                                                                        \
         .kind = OPTION_CHOICE,                                                                    \
         .target = &(flags).dtype,                                                                 \
         .choices = "auto|f32|bf16|int8",                                                          \
         .value = "T",                                                                             \
         .help = "weights and products in f32, bf16, or int8 (W8A8) (default: auto = bf16)"},      \
        THREADS_OPTION(flags), KV_DTYPE_OPTION(flags),                                             \
    {                                                                                              \
        .name = "--kv-blocks", .kind = OPTION_UINT, .target = &(flags).kv_blocks, .min = 1,        \
        .max = 16777216, .value = "N",                                                             \
        .help = "KV cache budget in blocks of 16 tokens, the same for every scheduler "            \
                "(default: 4096)"                                                                  \
    }

/* What --dtype and --kv-dtype mean; auto is bf16, for keys and values too unless weights are
 * f32. */
enum tensor_dtype model_dtype(const struct model_flags *flags);
enum tensor_dtype model_kv_dtype(const struct model_flags *flags);

/* env and progress are borrowed by the result. */
struct model_options model_options_from(const struct model_flags *flags, const struct hub_env *env,
                                        const struct progress *progress);

/* A bar with ETA on a terminal, a plain line every few seconds otherwise, nothing when quiet. Its
 * fn is handed around as struct progress. progress_bar_clear wipes the bar before other output. */
struct progress_bar {
    bool quiet;
    bool terminal;
    bool drawn;
    uint64_t begin_ns;
    uint64_t last_ns;
    char what[96];
};
void progress_bar_init(struct progress_bar *bar, bool quiet);
struct progress progress_bar_hook(struct progress_bar *bar);
void progress_bar_clear(struct progress_bar *bar);

/* The first SIGINT or SIGTERM sets *stop_flag(), the second ends the process at once.
 * stop_exit_code: 130 or 143 by the signal that came. */
void stop_install(void);
const volatile int *stop_flag(void);
int stop_exit_code(void);

#endif
