/*
 * fs.h - whole files in and out, safely.
 *
 * Reads are bounded and by pread, so a file that shrinks while it is read is an error, not a
 * SIGBUS. Writes go to a temporary name in the same folder, are synced and renamed: a reader (or a
 * kill -9) sees the old file or the new one, never a part.
 */
#ifndef LLMSCHED_BASE_FS_H
#define LLMSCHED_BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* The whole regular file, with a closing NUL that *len does not count. Errors: NOT_FOUND, IO,
 * BAD_DATA when it is larger than max_bytes. Owner of *data: the caller (mem_free). */
enum status fs_read_file(const char *path, size_t max_bytes, char **data, size_t *len,
                         struct error *err) MUST_USE;

/* Exactly n bytes at offset; a short file is BAD_DATA naming path and offset. */
enum status fs_pread_exact(int fd, const char *path, void *out, size_t n, uint64_t offset,
                           struct error *err) MUST_USE;

/* Temporary name, write, fsync, rename, fsync of the folder. */
enum status fs_write_atomic(const char *path, const void *data, size_t n,
                            struct error *err) MUST_USE;

/* Appends and fsyncs one record to an open file descriptor. A record that could be written only in
 * part is cut off again (the file returns to its former length). */
enum status fs_append_sync(int fd, const char *path, const void *data, size_t n,
                           struct error *err) MUST_USE;

/* mkdir -p. */
enum status fs_make_dirs(const char *path, struct error *err) MUST_USE;

bool fs_is_dir(const char *path);
bool fs_is_file(const char *path);

/* Joins folder and name with one '/'; NULL when out of memory. Owner: the caller (mem_free). */
char *fs_join(const char *folder, const char *name) MUST_USE;

#endif
