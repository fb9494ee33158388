/*
 * text.h - results for people: console blocks and benchmark_report.txt. Writes into a strbuf; who
 * prints is not its business.
 */
#ifndef LLMSCHED_REPORT_TEXT_H
#define LLMSCHED_REPORT_TEXT_H

#include <stdint.h>

#include "base/strbuf.h"
#include "report/results.h"

/* "NAIVE SCHEDULER - Run 1" and its figures. */
void text_run_block(const struct run *run, struct strbuf *out);
/* "SCHEDULER COMPARISON SUMMARY": per size a table, mean and 95 % half-width over runs; the
 * same-text verdict; where wall time went, the largest loss and the flag that mends it. */
void text_comparison(const struct results *r, struct strbuf *out);
/* benchmark_report.txt: the whole report, with what it cannot conclude. */
void text_report(const struct results *r, struct strbuf *out);

#endif
