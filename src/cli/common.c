/* common.c - see common.h. */
#include "cli/common.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/monotime.h"

int fail(enum status s, const struct error *err)
{
    const char *message = err->message[0] != '\0' ? err->message : status_text(s);
    fprintf(stderr, "llmsched: %s\n", message);
    return status_exit_code(s);
}

int finish_stdout(int code)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("llmsched: cannot write to standard output\n", stderr);
        return code != 0 ? code : status_exit_code(STATUS_IO);
    }
    return code;
}

const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* Keys have some 50 to 200 bytes; a longer file is some other file. */
#define MAX_KEY_BYTES ((size_t)4096)

enum status api_key_read(const char *file, const char *name, char **out, struct error *err)
{
    const char *value = variable(name);
    char *key = NULL;
    size_t len = 0;
    if (file != NULL) {
        enum status s = fs_read_file(file, MAX_KEY_BYTES, &key, &len, err);
        if (s != STATUS_OK) {
            error_prefix(err, "--api-key-file");
            return s;
        }
        while (len > 0 && strchr("\r\n", key[len - 1]) != NULL) {
            key[--len] = '\0';
        }
    } else if (value != NULL) {
        len = strlen(value);
        key = mem_strdup(value);
        if (key == NULL) {
            return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the key");
        }
    }
    bool visible = key == NULL || len > 0;
    for (size_t i = 0; i < len; i++) {
        visible = visible && key[i] > ' ' && key[i] <= '~';
    }
    if (!visible) {
        mem_free(key);
        return error_set(err, STATUS_USAGE, -1,
                         "%s: a key is one line of visible ASCII characters, without spaces",
                         file != NULL ? file : name);
    }
    *out = key;
    return STATUS_OK;
}

static bool variable_is_on(const char *name)
{
    const char *value = variable(name);
    return value != NULL && strcmp(value, "0") != 0 && strcasecmp(value, "false") != 0 &&
           strcasecmp(value, "no") != 0 && strcasecmp(value, "off") != 0;
}

struct hub_env hub_env_from_environment(void)
{
    const char *cache = variable("HF_HUB_CACHE");
    return (struct hub_env){
        .hf_endpoint = variable("HF_ENDPOINT"),
        .hf_token = variable("HF_TOKEN"),
        .hf_token_path = variable("HF_TOKEN_PATH"),
        .hf_hub_cache = cache != NULL ? cache : variable("HUGGINGFACE_HUB_CACHE"),
        .hf_home = variable("HF_HOME"),
        .xdg_cache_home = variable("XDG_CACHE_HOME"),
        .home = variable("HOME"),
        .offline = variable_is_on("HF_HUB_OFFLINE") || variable_is_on("TRANSFORMERS_OFFLINE"),
        .no_implicit_token = variable_is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN"),
        .models_dir = "models",
    };
}

const char *default_model(void)
{
    const char *model = variable("LLM_MODEL");
    return model != NULL ? model : "SmolLM2-135M-Instruct";
}

static enum tensor_dtype dtype_named(const char *name, enum tensor_dtype automatic)
{
    enum tensor_dtype dtype;
    return tensor_dtype_find(name, &dtype) ? dtype : automatic;
}

enum tensor_dtype model_dtype(const struct model_flags *flags)
{
    return dtype_named(flags->dtype, TENSOR_BF16);
}

enum tensor_dtype model_kv_dtype(const struct model_flags *flags)
{
    bool is_f32 = model_dtype(flags) == TENSOR_F32;
    return dtype_named(flags->kv_dtype, is_f32 ? TENSOR_F32 : TENSOR_BF16);
}

struct model_options model_options_from(const struct model_flags *flags, const struct hub_env *env,
                                        const struct progress *progress)
{
    return (struct model_options){
        .model = flags->model != NULL ? flags->model : default_model(),
        .random_weights = flags->random_weights,
        .dtype = model_dtype(flags),
        .kv_dtype = model_kv_dtype(flags),
        .isa = variable("LLMSCHED_ISA"),
        .threads = (uint32_t)flags->threads,
        .kv_blocks = (uint32_t)flags->kv_blocks,
        .env = env,
        .progress = progress,
    };
}

#define BAR_CELLS     24
#define BAR_REDRAW_NS (NS_PER_S / 10)
#define PLAIN_LINE_NS (10 * NS_PER_S)

static void format_duration(double seconds, char *out, size_t out_bytes)
{
    unsigned long s = (unsigned long)(seconds + 0.5);
    if (s >= 3600) {
        snprintf(out, out_bytes, "%lu h %02lu min", s / 3600, s / 60 % 60);
    } else if (s >= 60) {
        snprintf(out, out_bytes, "%lu min %02lu s", s / 60, s % 60);
    } else {
        snprintf(out, out_bytes, "%lu s", s);
    }
}

static int terminal_columns(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

static void draw(struct progress_bar *bar, const char *what, uint64_t done, uint64_t total,
                 uint64_t now)
{
    double frac = total > 0 ? (double)done / (double)total : 0.0;
    double elapsed = monotime_seconds(now - bar->begin_ns);
    char eta[48] = "";
    if (done > 0 && done < total && elapsed > 0.5) {
        char left[32];
        format_duration(elapsed / frac - elapsed, left, sizeof left);
        snprintf(eta, sizeof eta, ", %s left", left);
    }
    if (!bar->terminal) {
        fprintf(stderr, "llmsched: %s: %.0f %%%s\n", what, 100.0 * frac, eta);
        return;
    }
    char cells[BAR_CELLS + 1];
    for (int i = 0; i < BAR_CELLS; i++) {
        cells[i] = (double)i < frac * BAR_CELLS ? '#' : '.';
    }
    cells[BAR_CELLS] = '\0';
    char line[256];
    snprintf(line, sizeof line, "[%s] %3.0f %%  %s%s", cells, 100.0 * frac, what, eta);
    fprintf(stderr, "\r\033[K%.*s", terminal_columns() - 1, line); /* a wrapped line stays behind */
    bar->drawn = true;
}

/* `what` may be "stage|detail": ETA and the plain lines restart with the stage, not the detail. */
static void progress_fn(void *self, const char *what, uint64_t done, uint64_t total)
{
    struct progress_bar *bar = self;
    if (bar->quiet) {
        return;
    }
    uint64_t now = monotime_now_ns();
    size_t stage = strcspn(what, "|");
    bool fresh = strncmp(bar->what, what, stage) != 0 || bar->what[stage] != '\0';
    if (fresh) {
        snprintf(bar->what, sizeof bar->what, "%.*s", (int)stage, what);
        bar->begin_ns = now;
        bar->last_ns = now;
    }
    uint64_t every = bar->terminal ? BAR_REDRAW_NS : PLAIN_LINE_NS;
    if (now - bar->last_ns < every && !(done == total && bar->drawn)) {
        return;
    }
    bar->last_ns = now;
    draw(bar, what[stage] == '|' ? what + stage + 1 : what, done, total, now);
    if (done == total) {
        progress_bar_clear(bar);
    }
}

void progress_bar_init(struct progress_bar *bar, bool quiet)
{
    const char *term = getenv("TERM");
    bool dumb = term == NULL || strcmp(term, "dumb") == 0;
    *bar = (struct progress_bar){.quiet = quiet, .terminal = isatty(STDERR_FILENO) && !dumb};
}

struct progress progress_bar_hook(struct progress_bar *bar)
{
    return (struct progress){.fn = progress_fn, .self = bar};
}

void progress_bar_clear(struct progress_bar *bar)
{
    if (bar->drawn) {
        fputs("\r\033[K", stderr);
        bar->drawn = false;
    }
}

static volatile int stop;
static volatile sig_atomic_t stop_signal;

static void on_stop(int sig)
{
    if (stop != 0) {
        _exit(128 + sig);
    }
    stop_signal = sig;
    stop = 1;
    static const char text[] = "\nllmsched: stopping; once more to quit at once\n";
    ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
    (void)n;
}

void stop_install(void)
{
    struct sigaction action = {.sa_handler = on_stop};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

const volatile int *stop_flag(void)
{
    return &stop;
}

int stop_exit_code(void)
{
    return stop_signal == SIGTERM ? 143 : 130;
}
