/*
 * journal.h - benchmark_journal.jsonl: every finished run, synced to disk before the next begins.
 *
 * Line 1 says which matrix it is (fingerprint) and where; each further line is a run, or says what
 * was found of a server. The final
 * files are made from it, so a kill at any moment loses the run in flight and nothing else. One
 * bench per folder: the file is locked while open.
 */
#ifndef LLMSCHED_BENCH_JOURNAL_H
#define LLMSCHED_BENCH_JOURNAL_H

#include <stdbool.h>

#include "base/status.h"
#include "report/results.h"

#define JOURNAL_NAME          "benchmark_journal.jsonl"
#define JOURNAL_PREVIOUS_NAME "benchmark_journal.previous.jsonl"
/* Written and removed again to see whether a folder can be written. */
#define JOURNAL_PROBE_NAME ".llmsched-probe"

struct journal {
    int fd;
    char *path;
    bool resumed; /* its runs were taken: begin leaves it as it is */
};

#define JOURNAL_INIT                                                                               \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

/* Takes the folder for this bench, and removes temporary files that a killed one left there. The
 * journal itself is not changed. Errors: USAGE when another bench has the folder; IO. */
enum status journal_lock(const char *folder, struct journal *out, struct error *err) MUST_USE;

/* Adds the runs found to *results and cuts off a torn last line. No journal, or one without a head:
 * nothing to add. Errors: USAGE when it is of another matrix; BAD_DATA; IO. */
enum status journal_resume(struct journal *j, const char *fingerprint, struct results *results,
                           struct error *err) MUST_USE;

/* Unless resumed: an older journal with runs is kept under JOURNAL_PREVIOUS_NAME, and a new one
 * begins with head's environment, model and settings. */
enum status journal_begin(struct journal *j, const char *folder, const char *fingerprint,
                          const struct results *head, struct error *err) MUST_USE;

/* What was found of a server. */
enum status journal_append_server(struct journal *j, const struct server_facts *facts,
                                  struct error *err) MUST_USE;
enum status journal_append(struct journal *j, const struct run *run, struct error *err) MUST_USE;
void journal_close(struct journal *j);

#endif
