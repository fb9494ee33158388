/* fs.c - see fs.h. */
#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

static enum status open_error(struct error *err, const char *path)
{
    enum status code = errno == ENOENT || errno == ENOTDIR ? STATUS_NOT_FOUND : STATUS_IO;
    return error_set(err, code, -1, "%s: %s", path, strerror(errno));
}

enum status fs_pread_exact(int fd, const char *path, void *out, size_t n, uint64_t offset,
                           struct error *err)
{
    char *p = out;
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(fd, p + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return error_set(err, STATUS_IO, (int64_t)(offset + done), "%s: read failed: %s", path,
                             strerror(errno));
        }
        if (got == 0) {
            return error_set(err, STATUS_BAD_DATA, (int64_t)(offset + done),
                             "%s: the file ends at byte %llu, %zu bytes too early", path,
                             (unsigned long long)(offset + done), n - done);
        }
        done += (size_t)got;
    }
    return STATUS_OK;
}

enum status fs_read_file(const char *path, size_t max_bytes, char **data, size_t *len,
                         struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang it */
    if (fd < 0) {
        return open_error(err, path);
    }
    struct stat st;
    enum status s = STATUS_OK;
    char *bytes = NULL;
    if (fstat(fd, &st) != 0) {
        s = error_set(err, STATUS_IO, -1, "%s: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(st.st_mode)) {
        s = error_set(err, STATUS_BAD_DATA, -1, "%s: not a regular file", path);
        goto done;
    }
    if ((uint64_t)st.st_size > max_bytes) {
        s = error_set(err, STATUS_BAD_DATA, -1, "%s: %lld bytes, more than the limit of %zu", path,
                      (long long)st.st_size, max_bytes);
        goto done;
    }
    bytes = mem_alloc((size_t)st.st_size + 1, 1);
    if (bytes == NULL) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for %lld bytes", path,
                      (long long)st.st_size);
        goto done;
    }
    s = fs_pread_exact(fd, path, bytes, (size_t)st.st_size, 0, err);
done:
    close(fd);
    if (s != STATUS_OK) {
        mem_free(bytes);
        return s;
    }
    *data = bytes;
    *len = (size_t)st.st_size;
    return STATUS_OK;
}

/* 0 when all n bytes were written, else errno. */
static int write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t put = write(fd, p, n);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return put < 0 ? errno : EIO;
        }
        p += put;
        n -= (size_t)put;
    }
    return 0;
}

static void sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? mem_strdup(".") : mem_strndup(path, (size_t)(slash - path) + 1);
    if (folder == NULL) {
        return;
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    mem_free(folder);
}

enum status fs_write_atomic(const char *path, const void *data, size_t n, struct error *err)
{
    size_t size = strlen(path) + 16;
    char *temp = mem_alloc(size, 1);
    if (temp == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory", path);
    }
    snprintf(temp, size, "%s.tmp.XXXXXX", path);
    int fd = mkstemp(temp);
    int failure = fd < 0 ? errno : 0;
    if (failure == 0) {
        failure = write_all(fd, data, n);
        mode_t mask = umask(0);
        umask(mask);
        if (failure == 0 && (fchmod(fd, 0666 & ~mask) != 0 || fsync(fd) != 0)) {
            failure = errno;
        }
        if (close(fd) != 0 && failure == 0) {
            failure = errno;
        }
        if (failure == 0 && rename(temp, path) != 0) {
            failure = errno;
        }
        if (failure != 0) {
            unlink(temp);
        }
    }
    mem_free(temp);
    if (failure != 0) {
        return error_set(err, STATUS_IO, -1, "%s: cannot write: %s", path, strerror(failure));
    }
    sync_folder_of(path);
    return STATUS_OK;
}

enum status fs_append_sync(int fd, const char *path, const void *data, size_t n, struct error *err)
{
    off_t before = lseek(fd, 0, SEEK_END);
    int failure = before < 0 ? errno : write_all(fd, data, n);
    if (failure == 0 && fsync(fd) != 0) {
        failure = errno;
    }
    if (failure == 0) {
        return STATUS_OK;
    }
    if (before >= 0 && ftruncate(fd, before) != 0) {
        /* The torn record stays; the reader of a journal skips a last line without an end. */
        failure = failure != 0 ? failure : errno;
    }
    return error_set(err, STATUS_IO, before, "%s: cannot append: %s", path, strerror(failure));
}

enum status fs_make_dirs(const char *path, struct error *err)
{
    char *copy = mem_strdup(path);
    if (copy == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory", path);
    }
    enum status s = STATUS_OK;
    for (char *p = copy + 1; s == STATUS_OK && copy[0] != '\0'; p++) {
        if (*p != '/' && *p != '\0') {
            continue;
        }
        char saved = *p;
        *p = '\0';
        if (mkdir(copy, 0777) != 0 && (errno != EEXIST || !fs_is_dir(copy))) {
            s = error_set(err, STATUS_IO, -1, "%s: cannot make the folder: %s", copy,
                          errno == EEXIST ? "a file of that name is in the way" : strerror(errno));
        }
        *p = saved;
        if (saved == '\0') {
            break;
        }
    }
    mem_free(copy);
    return s;
}

bool fs_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool fs_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

char *fs_join(const char *folder, const char *name)
{
    size_t a = strlen(folder);
    size_t b = strlen(name);
    bool slash = a > 0 && folder[a - 1] != '/';
    char *path = mem_alloc(a + b + 2, 1);
    if (path == NULL) {
        return NULL;
    }
    memcpy(path, folder, a);
    if (slash) {
        path[a] = '/';
    }
    memcpy(path + a + (slash ? 1 : 0), name, b + 1);
    return path;
}
