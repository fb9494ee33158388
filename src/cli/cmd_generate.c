/*
 * cmd_generate.c - `llmsched generate`: one request through the same engine and scheduler as a
 * bench.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "cli/common.h"
#include "engine/clock_real.h"
#include "engine/engine.h"
#include "load/closed_loop.h"
#include "sched/registry.h"

struct generate_flags {
    struct model_flags model;
    const char *prompt;
    const char *prompt_ids;
    uint64_t max_new_tokens, seed, top_k;
    double temperature, top_p;
    bool ignore_eos, ids;
};

/* Prints tokens as they are delivered. */
struct printer {
    bool ids;
    bool first;
    struct detok detok;
    struct strbuf text;
    enum event_kind end;
    uint32_t reason;
};

static void on_event(void *self, const struct event *ev)
{
    struct printer *p = self;
    if (ev->kind == EVENT_DELIVER) {
        strbuf_clear(&p->text);
        for (uint32_t i = 0; i < ev->n; i++) {
            if (p->ids) {
                strbuf_printf(&p->text, "%s%d", p->first ? "" : " ", ev->tokens[i]);
                p->first = false;
            } else {
                detok_push(&p->detok, ev->tokens[i], &p->text);
            }
        }
        fwrite(strbuf_text(&p->text), 1, p->text.len, stdout);
        fflush(stdout);
    } else if (event_is_terminal(ev->kind)) {
        p->end = ev->kind;
        p->reason = ev->reason;
    }
}

static void on_step(void *self, const struct step_record *step)
{
    (void)self;
    (void)step;
}

static void on_gap(void *self, const struct gap_record *gap)
{
    (void)self;
    (void)gap;
}

static enum status parse_ids(const char *text, struct token_ids *out, struct error *err)
{
    size_t n = 1;
    for (const char *p = text; *p != '\0'; p++) {
        n += *p == ',' || *p == ' ';
    }
    out->ids = mem_alloc(n, sizeof *out->ids);
    if (out->ids == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for %zu ids", n);
    }
    out->capacity = n;
    for (const char *p = text; *p != '\0';) {
        char *end;
        errno = 0;
        long id = strtol(p, &end, 10);
        if (end == p || errno != 0 || id < 0 || id > INT32_MAX ||
            (*end != '\0' && *end != ',' && *end != ' ')) {
            return error_set(err, STATUS_USAGE, p - text,
                             "--prompt-ids: \"%.20s\" is not a token id; ids stand as in 1,2,3", p);
        }
        out->ids[out->n++] = (int32_t)id;
        p = end + strspn(end, ", ");
    }
    return STATUS_OK;
}

static enum status prompt_tokens(const struct generate_flags *f, const struct loaded_model *m,
                                 struct token_ids *ids, struct error *err)
{
    if (f->prompt_ids == NULL) {
        enum status s =
            tokenizer_encode(m->files.tokenizer, f->prompt, strlen(f->prompt), true, ids, err);
        if (s == STATUS_OK && ids->n == 0) {
            s = error_set(err, STATUS_USAGE, -1, "--prompt: the text gives no tokens");
        }
        return s;
    }
    enum status s = parse_ids(f->prompt_ids, ids, err);
    if (s == STATUS_OK && ids->n == 0) {
        s = error_set(err, STATUS_USAGE, -1, "--prompt-ids: no ids");
    }
    for (size_t i = 0; i < ids->n && s == STATUS_OK; i++) {
        if ((uint32_t)ids->ids[i] >= m->files.config.n_vocab) {
            s = error_set(err, STATUS_USAGE, -1,
                          "--prompt-ids: %d is not below the vocabulary's %u", ids->ids[i],
                          m->files.config.n_vocab);
        }
    }
    return s;
}

static enum status run_engine(const struct generate_flags *f, struct loaded_model *m,
                              struct request *request, struct printer *printer, struct error *err)
{
    struct clock_real real = {.stop = stop_flag()};
    struct clock clock = clock_real_clock(&real);
    struct event_sink sink = {.event = on_event, .step = on_step, .gap = on_gap, .self = printer};
    struct engine_config config = {
        .executor = exec_model_executor(m->exec),
        .clock = &clock,
        .sinks = &sink,
        .n_sinks = 1,
        .total_blocks = (uint32_t)f->model.kv_blocks,
    };
    enum status s = registry_find("continuous", &config.policy, err);
    if (s != STATUS_OK) {
        return s;
    }
    config.params = policy_params_default(config.policy);
    struct engine *engine;
    s = engine_create(&config, &engine, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct closed_loop loop;
    closed_loop_init(&loop, request, 1, 1);
    struct source source = closed_loop_source(&loop);
    s = engine_run(engine, &source, stop_flag(), err);
    engine_destroy(engine);
    if (s == STATUS_OK && printer->end == EVENT_REJECT) {
        s = error_set(err, STATUS_BAD_DATA, -1,
                      "the request was rejected: %s (prompt %u + new %u "
                      "tokens; the model's context is %u)",
                      reject_reason_name((enum reject_reason)printer->reason),
                      request->prompt_tokens, request->max_new_tokens, m->files.config.n_ctx);
    } else if (s == STATUS_OK && printer->end == EVENT_FAIL) {
        s = error_set(err, STATUS_BAD_MODEL, -1, "the request failed: %s",
                      exec_model_last_error(m->exec));
    }
    return s;
}

static enum status generate(const struct generate_flags *f, struct loaded_model *m,
                            struct error *err)
{
    struct token_ids ids = {0};
    struct printer printer = {.ids = f->ids || m->files.tokenizer == NULL, .first = true};
    enum status s = prompt_tokens(f, m, &ids, err);
    if (s == STATUS_OK) {
        struct request request = {
            .prompt = ids.ids,
            .prompt_tokens = (uint32_t)ids.n,
            .max_new_tokens = (uint32_t)f->max_new_tokens,
            .deadline_ns = TIME_NEVER,
            .sample_key = f->seed,
            .sampling = {.temperature = (float)f->temperature,
                         .top_k = (uint32_t)f->top_k,
                         .top_p = (float)f->top_p},
            .ignore_eos = f->ignore_eos,
        };
        if (!printer.ids) {
            detok_begin(&printer.detok, m->files.tokenizer, false);
        }
        s = run_engine(f, m, &request, &printer, err);
        strbuf_clear(&printer.text);
        if (!printer.ids) {
            detok_end(&printer.detok, &printer.text);
        }
        fwrite(strbuf_text(&printer.text), 1, printer.text.len, stdout);
        putchar('\n');
    }
    strbuf_deinit(&printer.text);
    token_ids_deinit(&ids);
    return s;
}

static int load_and_generate(const struct generate_flags *f)
{
    struct error err = ERROR_INIT;
    struct progress_bar bar;
    progress_bar_init(&bar, false);
    struct progress progress = progress_bar_hook(&bar);
    struct hub_env env = hub_env_from_environment();
    struct model_options options = model_options_from(&f->model, &env, &progress);
    struct model_parts files = {0};
    struct loaded_model model = {0};
    enum status s = model_parts_open(&options, f->prompt_ids != NULL, &files, &err);
    if (s == STATUS_OK) {
        s = model_load(&options, &files, &model, &err);
        progress_bar_clear(&bar);
    }
    if (s == STATUS_OK) {
        if (f->model.random_weights) {
            log_warn("random weights: the output has no meaning");
        }
        stop_install();
        s = generate(f, &model, &err);
        loaded_model_close(&model);
    }
    model_parts_close(&files);
    if (s == STATUS_INTERRUPTED) {
        return stop_exit_code();
    }
    return s == STATUS_OK ? 0 : fail(s, &err);
}

/* NOLINTNEXTLINE(readability-function-size): the table of options fills it */
static int run(int argc, char **argv)
{
    struct generate_flags f = {
        .model = MODEL_FLAGS_INIT,
        .max_new_tokens = 20,
        .seed = 42,
        .top_k = 50,
        .temperature = 0.7,
        .top_p = 0.95,
    };
    const struct option_spec specs[] = {
        {.name = "--prompt",
         .letter = 'p',
         .kind = OPTION_TEXT,
         .target = &f.prompt,
         .value = "TEXT",
         .help = "the text to continue"},
        {.name = "--prompt-ids",
         .kind = OPTION_TEXT,
         .target = &f.prompt_ids,
         .value = "1,2,3",
         .help = "token ids instead of a text; needs no tokenizer"},
        {.name = "--max-new-tokens",
         .letter = 'n',
         .kind = OPTION_UINT,
         .target = &f.max_new_tokens,
         .min = 1,
         .max = 1000000,
         .value = "N",
         .help = "output tokens at most (default: 20)"},
        {.name = "--temperature",
         .kind = OPTION_REAL,
         .target = &f.temperature,
         .min = 0,
         .max = 100,
         .value = "T",
         .help = "0: greedy (default: 0.7)"},
        {.name = "--top-k",
         .kind = OPTION_UINT,
         .target = &f.top_k,
         .min = 0,
         .max = 1000000,
         .value = "K",
         .help = "0: off (default: 50)"},
        {.name = "--top-p",
         .kind = OPTION_REAL,
         .target = &f.top_p,
         .min = 1e-6,
         .max = 1,
         .value = "P",
         .help = "1: off (default: 0.95)"},
        {.name = "--seed",
         .kind = OPTION_UINT,
         .target = &f.seed,
         .min = 0,
         .max = 9007199254740991.0,
         .value = "N",
         .help = "same seed, same text (default: 42)"},
        {.name = "--ignore-eos",
         .kind = OPTION_ON_OFF,
         .target = &f.ignore_eos,
         .help = "on: go on past the end-of-sequence token (default: off)"},
        {.name = "--ids", .kind = OPTION_FLAG, .target = &f.ids, .help = "print ids, not text"},
        RUN_MODEL_OPTIONS(f.model),
    };
    struct error err = ERROR_INIT;
    bool help;
    enum status s = options_parse(specs, COUNT_OF(specs), argc, argv, NULL, &help, &err);
    if (s == STATUS_OK && help) {
        options_print_help(&command_generate, specs, COUNT_OF(specs));
        return 0;
    }
    if (s == STATUS_OK && (f.prompt == NULL) == (f.prompt_ids == NULL)) {
        s = error_set(&err, STATUS_USAGE, -1, "generate takes either --prompt or --prompt-ids");
    }
    return s == STATUS_OK ? load_and_generate(&f) : fail(s, &err);
}

const struct command command_generate = {
    .name = "generate",
    .summary = "Continue one prompt and print the text.",
    .usage = "(--prompt TEXT | --prompt-ids 1,2,3) [OPTIONS]",
    .examples = "  llmsched generate --prompt \"The capital of France is\" --temperature 0\n"
                "  llmsched generate --prompt-ids 504,3575,282,4649,314 --ids\n",
    .run = run,
};
