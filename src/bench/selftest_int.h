/* selftest_int.h - the server of the self-test: a child process on a core of its own. */
#ifndef LLMSCHED_BENCH_SELFTEST_INT_H
#define LLMSCHED_BENCH_SELFTEST_INT_H

#include <sched.h>
#include <sys/types.h>

#include "bench/selftest_client.h"

struct selftest_server {
    pid_t pid; /* -1: none */
    uint16_t port;
    int client_core; /* -1: not pinned */
    int server_core;
    cpu_set_t before; /* the caller's cores, given back by deinit */
    char folder[64];  /* "" : none; removed by deinit */
    char stamps_path[96];
    char log_path[96]; /* the server's messages */
};

#define SELFTEST_SERVER_INIT                                                                       \
    {                                                                                              \
        .pid = -1, .client_core = -1, .server_core = -1                                            \
    }

/* Starts `serve --executor synthetic` and waits until it listens. Where there are two cores, it
 * runs on one and the calling thread on another. */
enum status selftest_server_start(struct selftest_server *s, const struct selftest_config *config,
                                  uint64_t ttft_ns, uint64_t tpot_ns, struct error *err) MUST_USE;
/* Asks it to end and waits; stamps_path is then complete. */
enum status selftest_server_end(struct selftest_server *s, struct error *err) MUST_USE;
/* Ends what still runs, removes files, gives the cores back. */
void selftest_server_deinit(struct selftest_server *s);

#endif
