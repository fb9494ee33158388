/*
 * journal.h - benchmark_journal.jsonl: every finished run, synced to disk before the next begins.
 *
 * Line 1 says which matrix it is (fingerprint) and where; each further line is a run. The final
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

struct journal {
    int fd;
    char *path;
};

/*
 * Fresh (resume false): an older journal is kept under JOURNAL_PREVIOUS_NAME, and a new one begins
 * with head's environment, model and settings. Resume: the runs found are added to *head; a torn
 * last line is cut off. A missing journal starts fresh.
 * Errors: USAGE when the folder is in use by another bench or, on resume, the journal is of another
 * matrix; BAD_DATA; IO.
 */
enum status journal_open(const char *folder, bool resume, const char *fingerprint,
                         struct results *head, struct journal *out, struct error *err) MUST_USE;
enum status journal_append(struct journal *j, const struct run *run, struct error *err) MUST_USE;
void journal_close(struct journal *j);

#endif
