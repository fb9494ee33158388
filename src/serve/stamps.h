/*
 * stamps.h - when each token of a timetable was due and when it was written, kept until the end.
 *
 * Nothing is written while requests run: the file would disturb what it measures. Thread: one
 * owner.
 */
#ifndef LLMSCHED_SERVE_STAMPS_H
#define LLMSCHED_SERVE_STAMPS_H

#include <stdint.h>

#include "base/status.h"
#include "serve/job.h"

struct stamps;

enum status stamps_create(struct stamps **out, struct error *err) MUST_USE;
void stamps_destroy(struct stamps *s);

/* Remembers the job's first n tokens under that name (copied). What memory is refused for is
 * counted and reported by stamps_save. */
void stamps_add(struct stamps *s, const char *request_id, uint32_t choice, const struct job *job,
                uint32_t n);

/* CSV "request_id,token,due_ns,written_ns". Errors: IO, NO_MEMORY (stamps were lost). */
enum status stamps_save(const struct stamps *s, const char *path, struct error *err) MUST_USE;

#endif
