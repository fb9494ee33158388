/* cmd_info.c - `llmsched info`: what was found in a model's files; the schedulers' parameters;
 * settings from the environment and .env. */
#include <stdio.h>
#include <string.h>

#include "bench/environment.h"
#include "cli/common.h"
#include "cli/env_file.h"
#include "model/arch.h"
#include "model/weights.h"
#include "sched/registry.h"
#include "tensor/limits.h"

static void print_rope(const struct model_config *c)
{
    static const char *const names[] = {"none", "linear", "llama3"};
    if (c->arch->position == POSITION_ROPE) {
        printf("rope          theta %g, scaling %s", (double)c->rope_theta, names[c->rope_scaling]);
        if (c->rope_scaling != ROPE_PLAIN) {
            printf(" x %g", (double)c->rope_factor);
        }
        putchar('\n');
    }
}

static void print_config(const struct model_config *c)
{
    printf("architecture  %s\n", c->arch->name);
    printf("shape         %u layers, %u channels, %u heads (%u KV) of %u, FFN %u\n", c->n_layers,
           c->n_channels, c->n_heads, c->n_kv_heads, c->head_size, c->n_ffn);
    printf("vocabulary    %u, %s head\n", c->n_vocab, c->tied ? "tied" : "separate");
    printf("context       %u tokens", c->n_ctx);
    uint32_t local = 0;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        local += c->layer_is_local[i];
    }
    if (local > 0) {
        printf(", window %u in %u layers", c->window, local);
    }
    putchar('\n');
    print_rope(c);
    printf("ids           bos %d, eos", c->bos_id);
    for (uint32_t i = 0; i < c->n_eos; i++) {
        printf(" %d", c->eos_ids[i]);
    }
    printf("%s\n", c->n_eos == 0 ? " none" : "");
    printf("parameters    %llu\n", (unsigned long long)config_parameter_count(c));
}

static enum status print_weights(const struct model_options *options,
                                 const struct model_parts *files, struct error *err)
{
    struct weights *weights;
    enum status s = options->random_weights
                        ? weights_random(&files->config, 0, &weights, err)
                        : weights_open(files->path, &files->config, &weights, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct weights_summary w;
    weights_summarise(weights, &w);
    printf("weights       %s: %llu tensors in %u files, %.1f MiB, %s\n", w.format,
           (unsigned long long)w.n_tensors, w.n_files, (double)w.bytes / 1048576.0, w.dtypes);
    weights_close(weights);
    struct exec_model_memory memory;
    s = model_memory(options, files, &memory, err);
    if (s == STATUS_OK) {
        printf("memory        weights %.0f MiB as %s, KV cache up to %.0f MiB as %s in %u blocks\n",
               (double)memory.weight_bytes / 1048576.0, tensor_dtype_name(options->dtype),
               (double)memory.kv_bytes / 1048576.0, tensor_dtype_name(options->kv_dtype),
               options->kv_blocks);
    }
    return s;
}

static int info_model(const struct model_flags *flags)
{
    struct error err = ERROR_INIT;
    struct hub_env env = hub_env_from_environment();
    struct model_options options = model_options_from(flags, &env, NULL);
    struct model_parts files;
    enum status s = model_parts_open(&options, true, &files, &err);
    if (s != STATUS_OK) {
        return fail(s, &err);
    }
    printf("model         %s%s\n", options.model,
           options.random_weights ? " (random weights)" : "");
    printf("path          %s\n", files.path != NULL ? files.path : "none (built-in shape)");
    print_config(&files.config);
    printf("tokenizer     %s\n",
           files.tokenizer != NULL ? tokenizer_describe(files.tokenizer) : "none found");
    s = print_weights(&options, &files, &err);
    model_parts_close(&files);
    return s == STATUS_OK ? 0 : fail(s, &err);
}

static int info_schedulers(void)
{
    for (uint32_t i = 0; i < registry_count(); i++) {
        const struct policy_class *p = registry_at(i);
        printf("%s%s - %s\n", i > 0 ? "\n" : "", p->name, p->summary);
        struct strbuf value = {0};
        struct strbuf range = {0};
        for (uint32_t k = 0; k < p->n_params; k++) {
            const struct param_spec *spec = &p->params[k];
            strbuf_clear(&value);
            strbuf_clear(&range);
            param_value_text(spec, spec->fallback, &value);
            param_range_text(spec, &range);
            printf("  %-24s %-8s %-8s %-16s %s\n", spec->name, param_type_name(spec->type),
                   strbuf_text(&value), strbuf_text(&range), spec->help);
        }
        strbuf_deinit(&value);
        strbuf_deinit(&range);
    }
    return 0;
}

#define MEASURE_S 2.0

static int info_machine(const struct model_flags *flags)
{
    struct error err = ERROR_INIT;
    struct hub_env env = hub_env_from_environment();
    struct model_options options = model_options_from(flags, &env, NULL);
    const struct tensor_ops *all[16];
    uint32_t n = tensor_available(all, COUNT_OF(all));
    const struct tensor_ops *ops;
    struct pool *pool = NULL;
    struct tensor_limits limits;
    enum status s = tensor_select(options.isa, &ops, &err);
    if (s == STATUS_OK) {
        uint32_t threads = options.threads > 0 ? options.threads : pool_default_threads();
        s = pool_create(threads, &pool, &err);
    }
    if (s == STATUS_OK) {
        s = tensor_limits_measure(ops, pool, MEASURE_S, &limits, &err);
    }
    if (s == STATUS_OK) {
        char cpu[256];
        environment_cpu(cpu, sizeof cpu);
        printf("cpu           %s\n", cpu);
        printf("threads       %u (physical cores: %u)\n", pool_threads(pool),
               pool_default_threads());
        printf("kernels       %s (", ops->isa);
        for (uint32_t i = 0; i < n; i++) {
            printf("%s%s", i > 0 ? ", " : "LLMSCHED_ISA: ", all[i]->isa);
        }
        printf(")\nmeasured now, all threads:\n");
        for (int d = 0; d < TENSOR_DTYPES; d++) {
            printf("  %-11s %8.1f G%s/s\n", tensor_dtype_name((enum tensor_dtype)d),
                   2e-9 * limits.multiply_adds[d], d == TENSOR_INT8 ? "OP" : "FLOP");
        }
        printf("  %-11s %8.1f GB/s\n", "read", 1e-9 * limits.read_bytes);
    }
    pool_destroy(pool);
    return s == STATUS_OK ? 0 : fail(s, &err);
}

static int run(int argc, char **argv)
{
    struct model_flags flags = MODEL_FLAGS_INIT;
    const struct option_spec specs[] = {RUN_MODEL_OPTIONS(flags)};
    struct error err = ERROR_INIT;
    struct text_list words = {0};
    bool help;
    enum status s = options_parse(specs, COUNT_OF(specs), argc, argv, &words, &help, &err);
    int code;
    if (s == STATUS_OK && help) {
        options_print_help(&command_info, specs, COUNT_OF(specs));
        code = 0;
    } else if (s == STATUS_OK && words.n == 1 && strcmp(words.items[0], "schedulers") == 0) {
        code = info_schedulers();
    } else if (s == STATUS_OK && words.n == 1 && strcmp(words.items[0], "machine") == 0) {
        code = info_machine(&flags);
    } else if (s == STATUS_OK && words.n == 1 && strcmp(words.items[0], "env") == 0) {
        env_file_print();
        code = 0;
    } else if (s == STATUS_OK && (words.n == 1 || words.n == 2) &&
               strcmp(words.items[0], "model") == 0) {
        if (words.n == 2) {
            flags.model = words.items[1];
        }
        code = info_model(&flags);
    } else {
        if (s == STATUS_OK) {
            s = error_set(&err, STATUS_USAGE, -1,
                          "info takes `schedulers`, `model [M]`, `machine` or `env`; --help shows "
                          "examples");
        }
        code = fail(s, &err);
    }
    text_list_deinit(&words);
    return code;
}

const struct command command_info = {
    .name = "info",
    .summary = "Show schedulers' parameters, a model's files, this machine's limits, or settings.",
    .usage = "(schedulers | model [M] | machine | env) [OPTIONS]",
    .examples = "  llmsched info schedulers\n"
                "  llmsched info model SmolLM2-135M-Instruct\n"
                "  llmsched info model gpt2-large --random-weights\n"
                "  llmsched info machine  # measures: peak of each dtype, read rate\n"
                "  llmsched info env      # from the environment and .env\n",
    .run = run,
};
