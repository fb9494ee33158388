/* journal.c - see journal.h. */
#include "bench/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"

/* A journal holds all prompts and texts of a matrix; 4 GiB is far beyond what it can hold in use.
 */
#define JOURNAL_MAX_BYTES ((size_t)4 << 30)

static enum status open_locked(const char *path, int *fd, struct error *err)
{
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0) {
        return error_set(err, STATUS_IO, -1, "%s: cannot open for writing: %s", path,
                         strerror(errno));
    }
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        int failure = errno;
        close(*fd);
        *fd = -1;
        if (failure != EWOULDBLOCK) {
            return error_set(err, STATUS_IO, -1, "%s: cannot lock: %s", path, strerror(failure));
        }
        return error_set(err, STATUS_USAGE, -1,
                         "%s: another bench writes into this folder; give another --output-dir",
                         path);
    }
    return STATUS_OK;
}

/* Adds the runs of the journal to head; *kept is the length of its whole lines, 0 when there is
 * no usable one. */
static enum status take_runs(const char *path, const char *fingerprint, struct results *head,
                             size_t *kept, struct error *err)
{
    char *text;
    size_t len;
    *kept = 0;
    enum status s = fs_read_file(path, JOURNAL_MAX_BYTES, &text, &len, err);
    if (s != STATUS_OK || memchr(text, '\n', len) == NULL) {
        if (s == STATUS_OK) {
            mem_free(text); /* empty, or killed while its first line was written */
        }
        return s;
    }
    struct results old = {0};
    char *old_fingerprint = NULL;
    bool torn = false;
    s = results_from_journal(text, len, path, &old, &old_fingerprint, &torn, err);
    if (s == STATUS_OK && strcmp(old_fingerprint, fingerprint) != 0) {
        s = error_set(
            err, STATUS_USAGE, -1,
            "--resume: %s belongs to another matrix (%s; now %s); repeat its command line, "
            "or leave --resume out",
            path, old_fingerprint, fingerprint);
    }
    for (size_t i = 0; s == STATUS_OK && i < old.n_runs; i++) {
        s = results_add(head, &old.runs[i], err);
    }
    for (size_t i = 0; s == STATUS_OK && i < old.n_servers; i++) {
        s = results_set_server(head, &old.servers[i], err);
    }
    if (s == STATUS_OK) {
        const char *last = memrchr(text, '\n', len);
        *kept = (size_t)(last - text) + 1;
        if (torn) {
            log_warn("%s: the last line is incomplete and is cut off", path);
        }
    }
    mem_free(old_fingerprint);
    results_deinit(&old);
    mem_free(text);
    return s;
}

/* Writes a line that `made` says is whole, and frees it. */
static enum status append_line(struct journal *j, enum status made, struct strbuf *line,
                               struct error *err)
{
    enum status s = made;
    if (s == STATUS_OK) {
        s = line->failed ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for the journal")
                         : fs_append_sync(j->fd, j->path, line->data, line->len, err);
    }
    strbuf_deinit(line);
    return s;
}

static enum status write_head(struct journal *j, const char *fingerprint,
                              const struct results *head, struct error *err)
{
    struct strbuf line = {0};
    return append_line(j, results_head_to_line(head, fingerprint, &line, err), &line, err);
}

/* True when the journal holds at least one finished run. (In texts the quotes are escaped.) */
static enum status has_runs(const struct journal *j, bool *out, struct error *err)
{
    char *text;
    size_t len;
    enum status s = fs_read_file(j->path, JOURNAL_MAX_BYTES, &text, &len, err);
    if (s == STATUS_OK) {
        static const char mark[] = "\"kind\":\"run\"}\n";
        *out = memmem(text, len, mark, sizeof mark - 1) != NULL;
        mem_free(text);
    }
    return s;
}

/* Moves an older journal out of the way, under its lock. One without runs is emptied instead, so
 * that it does not push out one that has some. */
static enum status set_aside(const char *folder, struct journal *j, struct error *err)
{
    bool worth_keeping;
    enum status found = has_runs(j, &worth_keeping, err);
    if (found != STATUS_OK) {
        return found;
    }
    if (!worth_keeping) {
        return ftruncate(j->fd, 0) == 0 ? STATUS_OK
                                        : error_set(err, STATUS_IO, -1, "%s: cannot empty: %s",
                                                    j->path, strerror(errno));
    }
    char *previous = fs_join(folder, JOURNAL_PREVIOUS_NAME);
    if (previous == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a path");
    }
    enum status s = STATUS_OK;
    if (rename(j->path, previous) != 0) {
        s = error_set(err, STATUS_IO, -1, "%s: cannot rename: %s", j->path, strerror(errno));
    }
    mem_free(previous);
    if (s == STATUS_OK) {
        close(j->fd);
        s = open_locked(j->path, &j->fd, err);
    }
    return s;
}

/* "benchmark_summaries.csv.tmp.x1y2z3", "latency_comparison.png.tmp", the probe of a prepare. */
static bool is_leftover(const char *name)
{
    size_t len = strlen(name);
    const char *tmp = strstr(name, ".tmp.");
    bool ours = strncmp(name, "benchmark_", 10) == 0 && tmp != NULL && strlen(tmp) == 11;
    bool chart = len > 8 && strcmp(name + len - 8, ".png.tmp") == 0;
    return ours || chart || strcmp(name, JOURNAL_PROBE_NAME) == 0;
}

static void remove_leftovers(const char *folder)
{
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        return;
    }
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (is_leftover(entry->d_name)) {
            unlinkat(dirfd(dir), entry->d_name, 0);
        }
    }
    closedir(dir);
}

enum status journal_lock(const char *folder, struct journal *out, struct error *err)
{
    struct journal j = {.fd = -1, .path = fs_join(folder, JOURNAL_NAME)};
    if (j.path == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a path");
    }
    enum status s = open_locked(j.path, &j.fd, err);
    if (s != STATUS_OK) {
        journal_close(&j);
        return s;
    }
    remove_leftovers(folder);
    char *charts = fs_join(folder, "plot-data");
    if (charts != NULL) {
        remove_leftovers(charts);
    }
    mem_free(charts);
    *out = j;
    return STATUS_OK;
}

enum status journal_resume(struct journal *j, const char *fingerprint, struct results *results,
                           struct error *err)
{
    size_t kept;
    enum status s = take_runs(j->path, fingerprint, results, &kept, err);
    if (s == STATUS_OK && ftruncate(j->fd, (off_t)kept) != 0) {
        s = error_set(err, STATUS_IO, -1, "%s: cannot cut: %s", j->path, strerror(errno));
    }
    j->resumed = s == STATUS_OK && kept > 0;
    return s;
}

enum status journal_begin(struct journal *j, const char *folder, const char *fingerprint,
                          const struct results *head, struct error *err)
{
    if (j->resumed) {
        return STATUS_OK;
    }
    enum status s = set_aside(folder, j, err);
    return s == STATUS_OK ? write_head(j, fingerprint, head, err) : s;
}

enum status journal_append(struct journal *j, const struct run *run, struct error *err)
{
    struct strbuf line = {0};
    return append_line(j, results_run_to_line(run, &line, err), &line, err);
}

enum status journal_append_server(struct journal *j, const struct server_facts *facts,
                                  struct error *err)
{
    struct strbuf line = {0};
    return append_line(j, results_server_to_line(facts, &line, err), &line, err);
}

void journal_close(struct journal *j)
{
    if (j->fd >= 0) {
        close(j->fd);
    }
    mem_free(j->path);
    j->fd = -1;
    j->path = NULL;
}
