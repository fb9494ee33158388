/*
 * bench_pull.c - hub_pull as a program: `bench_pull ID [REVISION]`, the hub's variables from the
 * environment. Prints the snapshot folder and the rate; exits with the status's code. SIGINT stops
 * it. PULL_RETRY_MS shortens the pauses between tries; PULL_FAIL_AT=n refuses the n-th allocation.
 * tests/model/test_hub_pull.py drives it.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "model/hub.h"

static volatile int stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

static void on_progress(void *self, const char *what, uint64_t done, uint64_t total)
{
    uint64_t *last = self;
    (void)what;
    (void)total;
    *last = done;
}

static unsigned long number_of(const char *name)
{
    const char *text = getenv(name);
    return text == NULL ? 0 : strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fputs("usage: bench_pull ID [REVISION]\n", stderr);
        return 2;
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    struct hub_env env = {
        .hf_endpoint = getenv("HF_ENDPOINT"),
        .hf_token = getenv("HF_TOKEN"),
        .hf_token_path = getenv("HF_TOKEN_PATH"),
        .hf_hub_cache = getenv("HF_HUB_CACHE"),
        .hf_home = getenv("HF_HOME"),
        .xdg_cache_home = getenv("XDG_CACHE_HOME"),
        .home = getenv("HOME"),
        .offline = number_of("HF_HUB_OFFLINE") != 0,
        .no_implicit_token = number_of("HF_HUB_DISABLE_IMPLICIT_TOKEN") != 0,
        .retry_base_ms = (uint32_t)number_of("PULL_RETRY_MS"),
    };
    uint64_t bytes = 0;
    struct progress progress = {.fn = on_progress, .self = &bytes};
    struct error err = ERROR_INIT;
    char *path = NULL;
    uint64_t begin = monotime_now_ns();
    uint64_t allocations = mem_alloc_count();
    mem_fail_at(number_of("PULL_FAIL_AT"), false);
    enum status s =
        hub_pull(argv[1], argc > 2 ? argv[2] : NULL, &env, &progress, &stop, &path, &err);
    mem_fail_at(0, false);
    allocations = mem_alloc_count() - allocations;
    if (s != STATUS_OK) {
        fprintf(stderr, "%s: %s\n", status_name(s), err.message);
        return status_exit_code(s);
    }
    double seconds = monotime_seconds(monotime_now_ns() - begin);
    fprintf(stderr, "%llu bytes in %.3f s, %llu allocations\n", (unsigned long long)bytes, seconds,
            (unsigned long long)allocations);
    printf("%s\n", path);
    mem_free(path);
    return 0;
}
