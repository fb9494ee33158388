/* selftest_server.c - see selftest_int.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/monotime.h"
#include "bench/selftest_int.h"

#define START_NS  (20 * NS_PER_S) /* on a busy machine; usually a few milliseconds */
#define END_NS    (60 * NS_PER_S) /* stamps of 20 million tokens are written */
#define LOG_BYTES ((size_t)1 << 20)
#define LOG_SHOWN 300

extern char **environ;

/* The first two cores this thread may use. */
static void choose_cores(struct selftest_server *s)
{
    int found[2] = {-1, -1};
    int n = 0;
    if (sched_getaffinity(0, sizeof s->before, &s->before) != 0) {
        return;
    }
    for (int i = 0; i < CPU_SETSIZE && n < 2; i++) {
        if (CPU_ISSET(i, &s->before)) {
            found[n++] = i;
        }
    }
    if (n == 2) {
        s->server_core = found[0];
        s->client_core = found[1];
    }
}

static void stand_on(int core)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    (void)sched_setaffinity(0, sizeof one, &one); /* refused: the figures say what it cost */
}

static enum status make_folder(struct selftest_server *s, struct error *err)
{
    char folder[sizeof s->folder];
    snprintf(folder, sizeof folder, "/tmp/llmsched-selftest-XXXXXX");
    if (mkdtemp(folder) == NULL) {
        return error_set(err, STATUS_IO, -1, "%s: cannot be made: %s", folder, strerror(errno));
    }
    memcpy(s->folder, folder, sizeof folder);
    snprintf(s->stamps_path, sizeof s->stamps_path, "%s/stamps.csv", folder);
    snprintf(s->log_path, sizeof s->log_path, "%s/server.log", folder);
    return STATUS_OK;
}

/* The child's standard output goes to *out_fd, its messages to a file. */
static enum status spawn(struct selftest_server *s, const struct selftest_config *config,
                         uint64_t ttft_ns, uint64_t tpot_ns, int *out_fd, struct error *err)
{
    char ttft[40];
    char tpot[40];
    char jobs[24];
    snprintf(ttft, sizeof ttft, "%.6fms", (double)ttft_ns / (double)NS_PER_MS);
    snprintf(tpot, sizeof tpot, "%.6fms", (double)tpot_ns / (double)NS_PER_MS);
    snprintf(jobs, sizeof jobs, "%u", config->streams);
    char *argv[] = {(char *)config->program,
                    "serve",
                    "--executor",
                    "synthetic",
                    "--ttft",
                    ttft,
                    "--tpot",
                    tpot,
                    "--port",
                    "0",
                    "--max-queue",
                    jobs,
                    "--stamps",
                    s->stamps_path,
                    NULL};
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return error_set(err, STATUS_IO, -1, "no pipe: %s", strerror(errno));
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, s->log_path,
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (s->server_core >= 0) {
        stand_on(s->server_core); /* the child inherits it */
    }
    pid_t pid;
    int failed = posix_spawn(&pid, config->program, &actions, NULL, argv, environ);
    if (s->client_core >= 0) {
        stand_on(s->client_core);
    }
    posix_spawn_file_actions_destroy(&actions);
    close(fds[1]);
    if (failed != 0) {
        close(fds[0]);
        return error_set(err, STATUS_IO, -1, "%s: cannot be started: %s", config->program,
                         strerror(failed));
    }
    s->pid = pid;
    *out_fd = fds[0];
    return STATUS_OK;
}

/* Puts what the server said last behind a message about it. */
static enum status fail_with_log(const struct selftest_server *s, enum status status,
                                 const char *what, struct error *err)
{
    char *log = NULL;
    size_t len = 0;
    if (fs_read_file(s->log_path, LOG_BYTES, &log, &len, NULL) != STATUS_OK) {
        len = 0;
    }
    size_t from = len > LOG_SHOWN ? len - LOG_SHOWN : 0;
    while (len > from && log[len - 1] == '\n') {
        len--;
    }
    enum status result = error_set(err, status, -1, "the server of the self-test %s; it said: %.*s",
                                   what, (int)(len - from), log != NULL ? log + from : "");
    mem_free(log);
    return result;
}

/* The line that `serve` prints once it listens: "http://127.0.0.1:PORT". */
static enum status read_port(struct selftest_server *s, int fd, struct error *err)
{
    char line[256] = "";
    size_t len = 0;
    uint64_t until = monotime_now_ns() + START_NS;
    while (len + 1 < sizeof line && memchr(line, '\n', len) == NULL) {
        uint64_t now = monotime_now_ns();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready = now < until ? poll(&p, 1, (int)((until - now) / NS_PER_MS) + 1) : 0;
        ssize_t got = ready > 0 ? read(fd, line + len, sizeof line - 1 - len) : 0;
        if (got < 0 || (ready < 0 && errno == EINTR)) {
            continue;
        }
        if (got == 0) {
            break;
        }
        len += (size_t)got;
    }
    line[len] = '\0';
    const char *colon = strrchr(line, ':');
    char *end = NULL;
    unsigned long port = colon != NULL ? strtoul(colon + 1, &end, 10) : 0;
    if (strncmp(line, "http://", 7) != 0 || port < 1 || port > UINT16_MAX || *end != '\n') {
        return fail_with_log(s, STATUS_UNREACHABLE, "did not come up", err);
    }
    s->port = (uint16_t)port;
    return STATUS_OK;
}

enum status selftest_server_start(struct selftest_server *s, const struct selftest_config *config,
                                  uint64_t ttft_ns, uint64_t tpot_ns, struct error *err)
{
    choose_cores(s);
    int fd = -1;
    enum status status = make_folder(s, err);
    if (status == STATUS_OK) {
        status = spawn(s, config, ttft_ns, tpot_ns, &fd, err);
    }
    if (status == STATUS_OK) {
        status = read_port(s, fd, err);
        close(fd);
    }
    return status;
}

/* True when the child has ended by then; its exit status is in *how. */
static bool wait_until(struct selftest_server *s, uint64_t until_ns, int *how)
{
    while (waitpid(s->pid, how, WNOHANG) == 0) {
        if (monotime_now_ns() >= until_ns) {
            return false;
        }
        (void)poll(NULL, 0, 5);
    }
    s->pid = -1;
    return true;
}

enum status selftest_server_end(struct selftest_server *s, struct error *err)
{
    int how = 0;
    if (kill(s->pid, SIGTERM) != 0 || !wait_until(s, monotime_now_ns() + END_NS, &how)) {
        return fail_with_log(s, STATUS_IO, "does not end", err);
    }
    if (!WIFEXITED(how) || WEXITSTATUS(how) != 0) {
        return fail_with_log(s, STATUS_IO, "failed", err);
    }
    return STATUS_OK;
}

void selftest_server_deinit(struct selftest_server *s)
{
    if (s->pid > 0) {
        int how;
        kill(s->pid, SIGKILL);
        (void)wait_until(s, TIME_NEVER, &how);
    }
    if (s->folder[0] != '\0') {
        unlink(s->stamps_path);
        unlink(s->log_path);
        rmdir(s->folder);
        s->folder[0] = '\0';
    }
    if (s->client_core >= 0) {
        (void)sched_setaffinity(0, sizeof s->before, &s->before);
    }
}
