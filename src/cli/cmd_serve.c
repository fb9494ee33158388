/* cmd_serve.c - `llmsched serve`: its options. What it does with them: serve_run.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/monotime.h"
#include "cli/common.h"
#include "cli/serve_run.h"
#include "engine/engine.h"
#include "sched/registry.h"

#define MAX_SERVED_NAMES 64
#define LONGEST_NS       (3600 * NS_PER_S)

struct serve_flags {
    struct model_flags model;
    const char *scheduler, *executor, *host, *api_key_file, *stamps, *tpot, *ttft;
    struct text_list sets, served_names;
    uint64_t port, max_queue, max_seqs, max_model_len, seed;
    double shutdown_s;
};

/* No other program can know it beforehand, and UINT64_MAX is outside what --seed takes. */
#define SEED_OF_SYSTEM UINT64_MAX

/* "10ms", "0.5s", "250us"; a number without a unit would leave open which. */
static enum status parse_duration(const char *option, const char *text, uint64_t *out,
                                  struct error *err)
{
    static const struct {
        const char *unit;
        double ns;
    } units[] = {{"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
    char *end;
    double x = strtod(text, &end);
    for (size_t i = 0; i < COUNT_OF(units) && end != text; i++) {
        double ns = x * units[i].ns;
        if (strcmp(end, units[i].unit) == 0 && ns >= 0 && ns <= (double)LONGEST_NS) {
            *out = (uint64_t)(ns + 0.5);
            return STATUS_OK;
        }
    }
    return error_set(err, STATUS_USAGE, -1,
                     "%s: \"%s\" is not a duration from 0 to 3600 s; write 10ms, 0.5s or 250us",
                     option, text);
}

/* Options that mean nothing for the chosen executor are mistakes. */
static enum status read_executor(const struct serve_flags *f, struct serve_options *o,
                                 struct error *err)
{
    o->synthetic = strcmp(f->executor, "synthetic") == 0;
    const struct {
        const char *name;
        bool given;
        bool synthetic;
    } bound[] = {
        {"--tpot", f->tpot != NULL, true},
        {"--ttft", f->ttft != NULL, true},
        {"--stamps", f->stamps != NULL, true},
        {"--model", f->model.model != NULL, false},
        {"--random-weights", f->model.random_weights, false},
        {"--set", f->sets.n > 0, false},
    };
    for (size_t i = 0; i < COUNT_OF(bound); i++) {
        if (bound[i].given && bound[i].synthetic != o->synthetic) {
            return error_set(err, STATUS_USAGE, -1, "%s has no meaning with --executor %s",
                             bound[i].name, f->executor);
        }
    }
    o->stamps_path = f->stamps;
    enum status s = parse_duration("--tpot", f->tpot != NULL ? f->tpot : "10ms", &o->tpot_ns, err);
    return s != STATUS_OK
               ? s
               : parse_duration("--ttft", f->ttft != NULL ? f->ttft : "50ms", &o->ttft_ns, err);
}

static enum status read_scheduler(const struct serve_flags *f, struct serve_options *o,
                                  struct error *err)
{
    enum status s = scheduler_spec_parse(f->scheduler, &o->scheduler, err);
    for (size_t i = 0; i < f->sets.n && s == STATUS_OK; i++) {
        s = scheduler_spec_set(&o->scheduler, 1, f->sets.items[i], err);
    }
    if (s == STATUS_OK && scheduler_spec_is_remote(&o->scheduler)) {
        return error_set(err, STATUS_USAGE, -1,
                         "--scheduler: vllm is a server of its own; take naive, dynamic or "
                         "continuous");
    }
    return s == STATUS_OK ? scheduler_spec_check(&o->scheduler, 1, err) : s;
}

static enum status read_names(const struct serve_flags *f, struct serve_options *o,
                              struct error *err)
{
    if (f->served_names.n > MAX_SERVED_NAMES) {
        return error_set(err, STATUS_USAGE, -1, "--served-model-name: %zu names; the limit is %d",
                         f->served_names.n, MAX_SERVED_NAMES);
    }
    for (size_t i = 0; i < f->served_names.n; i++) {
        if (f->served_names.items[i][0] == '\0') {
            return error_set(err, STATUS_USAGE, -1, "--served-model-name: a name is empty");
        }
    }
    o->served_names = (const char *const *)f->served_names.items;
    o->n_served_names = (uint32_t)f->served_names.n;
    return STATUS_OK;
}

static enum status read_seed(const struct serve_flags *f, struct serve_options *o,
                             struct error *err)
{
    o->seed = f->seed;
    if (f->seed == SEED_OF_SYSTEM &&
        getrandom(&o->seed, sizeof o->seed, 0) != (ssize_t)sizeof o->seed) {
        return error_set(err, STATUS_IO, -1, "no random seed from the system: %s; give --seed",
                         strerror(errno));
    }
    return STATUS_OK;
}

static int serve(const struct serve_flags *f)
{
    struct error err = ERROR_INIT;
    char *key = NULL;
    struct serve_options o = {
        .model = f->model,
        .host = f->host,
        .port = (uint16_t)f->port,
        .max_queue = (uint32_t)f->max_queue,
        .max_seqs = (uint32_t)f->max_seqs,
        .max_model_len = (uint32_t)f->max_model_len,
        .shutdown_ns = monotime_from_seconds(f->shutdown_s),
    };
    enum status s = read_executor(f, &o, &err);
    if (s == STATUS_OK) {
        s = read_scheduler(f, &o, &err);
    }
    if (s == STATUS_OK) {
        s = read_names(f, &o, &err);
    }
    if (s == STATUS_OK) {
        s = read_seed(f, &o, &err);
    }
    if (s == STATUS_OK) {
        s = api_key_read(f->api_key_file, "LLMSCHED_API_KEY", &key, &err);
    }
    o.api_key = key;
    int code = s == STATUS_OK ? serve_run(&o) : fail(s, &err);
    mem_free(key);
    return code;
}

/* NOLINTNEXTLINE(readability-function-size): the table of options fills it */
static int run(int argc, char **argv)
{
    struct serve_flags f = {
        .model = MODEL_FLAGS_INIT,
        .scheduler = "continuous",
        .executor = "model",
        .host = "127.0.0.1",
        .port = 8000,
        .max_queue = ENGINE_DEFAULT_MAX_QUEUE,
        .shutdown_s = 30,
        .seed = SEED_OF_SYSTEM,
    };
    const struct option_spec specs[] = {
        RUN_MODEL_OPTIONS(f.model),
        {.name = "--scheduler",
         .kind = OPTION_TEXT,
         .target = &f.scheduler,
         .value = "NAME",
         .help = "naive, dynamic or continuous (default); `llmsched info schedulers`"},
        {.name = "--set",
         .kind = OPTION_REPEAT,
         .target = &f.sets,
         .value = "NAME.PARAM=VALUE",
         .help = "a parameter of the scheduler, as in --set dynamic.max_batch_size=64"},
        {.name = "--host",
         .kind = OPTION_TEXT,
         .target = &f.host,
         .value = "HOST",
         .help = "address to listen on (default: 127.0.0.1, this machine only)"},
        {.name = "--port",
         .kind = OPTION_UINT,
         .target = &f.port,
         .min = 0,
         .max = 65535,
         .value = "PORT",
         .help = "0: a free one; the address is the line on standard output (default: 8000)"},
        {.name = "--api-key-file",
         .kind = OPTION_TEXT,
         .target = &f.api_key_file,
         .value = "FILE",
         .help = "clients must send its line as Bearer token; else $LLMSCHED_API_KEY, if set"},
        {.name = "--served-model-name",
         .kind = OPTION_REPEAT,
         .target = &f.served_names,
         .value = "NAME",
         .help = "name clients may ask for, may be given again (default: as --model)"},
        {.name = "--max-queue",
         .kind = OPTION_UINT,
         .target = &f.max_queue,
         .min = 1,
         .max = 1000000,
         .value = "N",
         .help = "sequences that may wait; more are answered with 429 (default: 4096)"},
        {.name = "--max-seqs",
         .kind = OPTION_UINT,
         .target = &f.max_seqs,
         .min = 1,
         .max = PLAN_MAX_SEQS,
         .value = "N",
         .help = "sequences that may run at once (default: 256)"},
        {.name = "--max-model-len",
         .kind = OPTION_UINT,
         .target = &f.max_model_len,
         .min = 1,
         .max = 16777216,
         .value = "N",
         .help = "tokens of prompt and output together (default: the model's context)"},
        {.name = "--shutdown-timeout",
         .kind = OPTION_REAL,
         .target = &f.shutdown_s,
         .min = 0,
         .max = 86400,
         .value = "S",
         .help = "seconds that running requests get after SIGTERM or Ctrl-C (default: 30)"},
        {.name = "--seed",
         .kind = OPTION_UINT,
         .target = &f.seed,
         .min = 0,
         .max = 9007199254740991.0,
         .value = "N",
         .help = "behind requests that send no seed (default: from the system)"},
        {.name = "--executor",
         .kind = OPTION_CHOICE,
         .target = &f.executor,
         .choices = "model|synthetic",
         .value = "X",
         .help = "synthetic: no model, tokens on an exact timetable, to test clients with"},
        {.name = "--ttft",
         .kind = OPTION_TEXT,
         .target = &f.ttft,
         .value = "TIME",
         .help = "synthetic: from a request to its first token (default: 50ms)"},
        {.name = "--tpot",
         .kind = OPTION_TEXT,
         .target = &f.tpot,
         .value = "TIME",
         .help = "synthetic: from token to token (default: 10ms)"},
        {.name = "--stamps",
         .kind = OPTION_TEXT,
         .target = &f.stamps,
         .value = "FILE",
         .help = "synthetic: when each token was due and written, as CSV, saved at the end"},
    };
    struct error err = ERROR_INIT;
    bool help;
    int code = 0;
    enum status s = options_parse(specs, COUNT_OF(specs), argc, argv, NULL, &help, &err);
    if (s == STATUS_OK && help) {
        options_print_help(&command_serve, specs, COUNT_OF(specs));
    } else {
        code = s == STATUS_OK ? serve(&f) : fail(s, &err);
    }
    text_list_deinit(&f.sets);
    text_list_deinit(&f.served_names);
    return code;
}

const struct command command_serve = {
    .name = "serve",
    .summary = "Offer OpenAI's HTTP API on a model, behind any of the schedulers.",
    .usage = "[OPTIONS]",
    .examples =
        "  llmsched serve                                   # SmolLM2 on http://127.0.0.1:8000\n"
        "  llmsched serve --scheduler naive --set naive.batch_size=16 --port 0\n"
        "  curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\\n"
        "       -d '{\"prompt\": \"The capital of France is\", \"max_tokens\": 20}'\n"
        "\n"
        "  Paths: /v1/completions, /v1/chat/completions, /v1/models, /health, /version,\n"
        "  /tokenize, /detokenize, /metrics. TLS is left to a proxy in front of it.\n"
        "  SIGTERM or Ctrl-C: new requests get 503, running ones finish, or end with\n"
        "  finish_reason \"abort\" after --shutdown-timeout; then the exit code is 0. A second\n"
        "  signal ends the process at once (130, 143).\n",
    .run = run,
};
