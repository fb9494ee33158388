/*
 * hub_store.c - the Hugging Face cache on disk: parts, locks, verification, links, refs.
 *
 * Invariants: a name in blobs/ or snapshots/ always stands for a whole, verified, synced file; a
 * part has a private name (host and process), because a shared one is corrupted where flock lies
 * (NFS, Lustre); refs/<revision> is written last, so an unfinished pull is not found by look-up.
 * A part left by a dead process of this host is taken over, and continued only with its stored
 * validator (If-Range).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "model/hub_int.h"

#define HASH_BLOCK_BYTES ((size_t)1 << 20)
#define MAX_HOST_BYTES   48
#define LOCK_POLL_MS     100
#define SPARE_BYTES      ((uint64_t)16 << 20) /* left free beside what a pull needs */

static enum status no_memory(struct error *err)
{
    return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a path");
}

static enum status io_error(struct error *err, const char *path, const char *what)
{
    return error_set(err, STATUS_IO, -1, "%s: %s: %s", path, what, strerror(errno));
}

enum status hub_store_init(struct hub_store *s, const char *root, const char *id,
                           const char *commit, const volatile int *stop, struct error *err)
{
    *s = (struct hub_store){.stop = stop, .repo = hub_repo_folder(root, id)};
    if (s->repo != NULL) {
        s->blobs = fs_join(s->repo, "blobs");
        s->snapshot = hub_path(s->repo, "snapshots", commit);
        s->locks = hub_path(root, ".locks", strrchr(s->repo, '/') + 1);
    }
    if (s->blobs == NULL || s->snapshot == NULL || s->locks == NULL) {
        hub_store_deinit(s);
        return no_memory(err);
    }
    return STATUS_OK;
}

void hub_store_deinit(struct hub_store *s)
{
    mem_free(s->repo);
    mem_free(s->blobs);
    mem_free(s->snapshot);
    mem_free(s->locks);
    *s = (struct hub_store){0};
}

static bool has_size(const char *path, uint64_t size_bytes)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == size_bytes;
}

bool hub_store_has(const struct hub_store *s, const struct hub_file *f)
{
    char *path = fs_join(s->snapshot, f->name);
    bool has = path != NULL && has_size(path, f->size_bytes);
    mem_free(path);
    return has;
}

enum status hub_store_prepare(const struct hub_store *s, uint64_t need_bytes, struct error *err)
{
    const char *folders[] = {s->blobs, s->snapshot, s->locks};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        enum status made = fs_make_dirs(folders[i], err);
        if (made != STATUS_OK) {
            return made;
        }
    }
    struct statvfs fs;
    if (statvfs(s->blobs, &fs) != 0) {
        return io_error(err, s->blobs, "cannot ask for free space");
    }
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (free_bytes < need_bytes || free_bytes - need_bytes < SPARE_BYTES) {
        return error_set(err, STATUS_IO, -1,
                         "%s: %" PRIu64 " bytes are needed, %" PRIu64
                         " are free; make room or move the cache with HF_HUB_CACHE",
                         s->blobs, need_bytes, free_bytes);
    }
    return STATUS_OK;
}

/* --- locks --- */

static bool stopped(const volatile int *stop)
{
    return stop != NULL && *stop != 0;
}

/* Waits for .locks/.../<etag>.lock. *fd = -1 where the file system has no locks: the private part
 * name still keeps two processes apart. */
static enum status lock_blob(const struct hub_store *s, const char *etag, int *fd,
                             struct error *err)
{
    struct strbuf name = {0};
    strbuf_printf(&name, "%s/%s.lock", s->locks, etag);
    if (name.failed) {
        return no_memory(err);
    }
    enum status result = STATUS_OK;
    int lock = open(name.data, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (lock < 0) {
        result = io_error(err, name.data, "cannot open the lock");
    }
    bool told = false;
    while (result == STATUS_OK && flock(lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EINTR) {
            continue;
        }
        if (errno != EWOULDBLOCK) {
            close(lock);
            lock = -1;
            break;
        }
        if (!told) {
            log_info("another process is downloading this file; waiting for it (%s)", name.data);
            told = true;
        }
        struct timespec pause = {.tv_nsec = LOCK_POLL_MS * 1000000L};
        nanosleep(&pause, NULL);
        if (stopped(s->stop)) {
            close(lock);
            result = error_set(err, STATUS_INTERRUPTED, -1, "interrupted; run it again to go on");
        }
    }
    strbuf_deinit(&name);
    if (result == STATUS_OK) {
        *fd = lock;
    }
    return result;
}

/* --- parts --- */

struct part {
    struct hub_transfer transfer;
    char *path;      /* blobs/<etag>.<host>.<pid>.part */
    char *validator; /* path of the stored ETag, beside it */
    struct error validator_error;
};

/* This host's name as part of a file name. */
static void host_word(char out[MAX_HOST_BYTES + 1])
{
    if (gethostname(out, MAX_HOST_BYTES + 1) != 0) {
        out[0] = '\0';
    }
    out[MAX_HOST_BYTES] = '\0';
    for (char *p = out; *p != '\0'; p++) {
        bool plain =
            (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');
        *p = plain ? *p : '-';
    }
    if (out[0] == '\0') {
        out[0] = '-';
        out[1] = '\0';
    }
}

/* True when name is "<prefix><pid>.part" of a process that no longer runs. */
static bool is_orphan(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    if (strncmp(name, prefix, n) != 0) {
        return false;
    }
    char *end = NULL;
    errno = 0;
    long pid = strtol(name + n, &end, 10);
    if (errno != 0 || end == name + n || strcmp(end, ".part") != 0 || pid <= 0) {
        return false;
    }
    return pid == (long)getpid() || (kill((pid_t)pid, 0) != 0 && errno == ESRCH);
}

/* Renames the largest orphan of this blob and its validator to this process's names. */
static void adopt_orphan(const struct hub_store *s, const char *prefix, const struct part *p)
{
    DIR *dir = opendir(s->blobs);
    if (dir == NULL) {
        return;
    }
    char best[NAME_MAX + 1] = "";
    off_t best_size = -1;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        struct stat st;
        if (is_orphan(e->d_name, prefix) &&
            fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
            st.st_size > best_size) {
            memcpy(best, e->d_name, strlen(e->d_name) + 1);
            best_size = st.st_size;
        }
    }
    closedir(dir);
    struct strbuf old = {0};
    strbuf_printf(&old, "%s/%s", s->blobs, best);
    if (best[0] != '\0' && !old.failed && strcmp(old.data, p->path) != 0) {
        /* The validator first: a part without one is started over, never wrongly continued. */
        unlink(p->validator);
        unlink(p->path);
        strbuf_puts(&old, ".etag");
        bool has_validator = !old.failed && rename(old.data, p->validator) == 0;
        old.data[old.len - strlen(".etag")] = '\0';
        if (rename(old.data, p->path) != 0 && has_validator) {
            unlink(p->validator);
        }
    }
    strbuf_deinit(&old);
}

static void store_validator(struct hub_transfer *t)
{
    struct part *p = t->owner;
    size_t n = strlen(t->validator);
    if (n == 0) {
        unlink(p->validator);
    } else if (fs_write_atomic(p->validator, t->validator, n, &p->validator_error) != STATUS_OK) {
        log_debug("%s; a cut download will start over", p->validator_error.message);
        unlink(p->validator);
    }
}

/* The strong ETag stored beside the part, or "". */
static void load_validator(struct part *p)
{
    char *text = NULL;
    size_t n = 0;
    p->transfer.validator[0] = '\0';
    if (fs_read_file(p->validator, sizeof p->transfer.validator - 1, &text, &n, NULL) !=
        STATUS_OK) {
        return;
    }
    bool good = n >= 2 && text[0] == '"' && text[n - 1] == '"';
    for (size_t i = 0; good && i < n; i++) {
        good = (unsigned char)text[i] >= 0x21 && text[i] != 0x7f; /* it becomes a header */
    }
    if (good) {
        memcpy(p->transfer.validator, text, n + 1);
    }
    mem_free(text);
}

static enum status part_open(const struct hub_store *s, const char *etag, const struct hub_file *f,
                             struct part *p, struct error *err)
{
    char host[MAX_HOST_BYTES + 1];
    host_word(host);
    struct strbuf prefix = {0};
    struct strbuf path = {0};
    strbuf_printf(&prefix, "%s.%s.", etag, host);
    strbuf_printf(&path, "%s/%s%ld.part", s->blobs, strbuf_text(&prefix), (long)getpid());
    *p = (struct part){.validator_error = ERROR_INIT};
    p->transfer = (struct hub_transfer){
        .fd = -1, .name = f->name, .size_bytes = f->size_bytes, .on_validator = store_validator};
    p->path = path.failed || prefix.failed ? NULL : mem_strdup(path.data);
    strbuf_puts(&path, ".etag");
    p->validator = path.failed ? NULL : mem_strdup(path.data);
    enum status result = STATUS_OK;
    if (p->path == NULL || p->validator == NULL) {
        result = no_memory(err);
    } else {
        adopt_orphan(s, prefix.data, p);
        p->transfer.fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        struct stat st;
        if (p->transfer.fd < 0 || fstat(p->transfer.fd, &st) != 0) {
            result = io_error(err, p->path, "cannot open");
        } else {
            load_validator(p);
            p->transfer.have_bytes = (uint64_t)st.st_size;
        }
    }
    strbuf_deinit(&prefix);
    strbuf_deinit(&path);
    return result;
}

static void part_close(struct part *p)
{
    if (p->transfer.fd >= 0) {
        close(p->transfer.fd);
    }
    mem_free(p->path);
    mem_free(p->validator);
}

/* --- verification --- */

enum status hub_store_hash(int fd, const char *path, uint64_t size_bytes, size_t n_hex,
                           const volatile int *stop, char *hex, struct error *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_bytes = 0;
    unsigned char *block = mem_alloc(HASH_BLOCK_BYTES, 1);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const EVP_MD *md = n_hex == 40 ? EVP_sha1() : EVP_sha256();
    enum status s = STATUS_OK;
    if (block == NULL || ctx == NULL || EVP_DigestInit_ex(ctx, md, NULL) != 1) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for a checksum", path);
    }
    if (s == STATUS_OK && n_hex == 40) { /* git hashes "blob <size>\0" before the bytes */
        char head[32];
        int n = snprintf(head, sizeof head, "blob %" PRIu64, size_bytes);
        if (EVP_DigestUpdate(ctx, head, (size_t)n + 1) != 1) {
            s = error_set(err, STATUS_INTERNAL, -1, "%s: no checksum", path);
        }
    }
    for (uint64_t at = 0; s == STATUS_OK && at < size_bytes;) {
        uint64_t left = size_bytes - at;
        size_t n = left < HASH_BLOCK_BYTES ? (size_t)left : HASH_BLOCK_BYTES;
        s = stopped(stop)
                ? error_set(err, STATUS_INTERRUPTED, -1, "interrupted; run it again to go on")
                : fs_pread_exact(fd, path, block, n, at, err);
        if (s == STATUS_OK && EVP_DigestUpdate(ctx, block, n) != 1) {
            s = error_set(err, STATUS_INTERNAL, -1, "%s: no checksum", path);
        }
        at += n;
    }
    if (s == STATUS_OK && EVP_DigestFinal_ex(ctx, digest, &digest_bytes) != 1) {
        s = error_set(err, STATUS_INTERNAL, -1, "%s: no checksum", path);
    }
    if (s == STATUS_OK) {
        for (unsigned i = 0; i < digest_bytes; i++) {
            snprintf(hex + (size_t)2 * i, 3, "%02x", digest[i]);
        }
    }
    EVP_MD_CTX_free(ctx);
    mem_free(block);
    return s;
}

/* BAD_DATA when the part is not what the hub's hash says. */
static enum status verify(const struct part *p, const struct hub_file *f, const volatile int *stop,
                          struct error *err)
{
    if (f->hash[0] == '\0') {
        log_warn("%s: the hub names no checksum; only its size was checked", f->name);
        return STATUS_OK;
    }
    char hex[HUB_HASH_HEX + 1];
    enum status s =
        hub_store_hash(p->transfer.fd, p->path, f->size_bytes, strlen(f->hash), stop, hex, err);
    if (s == STATUS_OK && strcmp(hex, f->hash) != 0) {
        s = error_set(err, STATUS_BAD_DATA, -1,
                      "%s: wrong checksum: the hub says %s, the download has %s; it was removed, "
                      "try again",
                      f->name, f->hash, hex);
    }
    return s;
}

/* --- putting it in place --- */

static enum status sync_folder(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        enum status s = io_error(err, path, "cannot sync");
        if (fd >= 0) {
            close(fd);
        }
        return s;
    }
    close(fd);
    return STATUS_OK;
}

/* snapshots/<commit>/<name> -> ../../blobs/<etag>; where links are not to be had, the file itself
 * moves there (huggingface_hub does the same). */
static enum status link_blob(const struct hub_store *s, const char *etag, const char *name,
                             struct error *err)
{
    struct strbuf target = {0};
    struct strbuf temp = {0};
    struct strbuf blob = {0};
    char *path = fs_join(s->snapshot, name);
    strbuf_printf(&target, "../../blobs/%s", etag);
    strbuf_printf(&temp, "%s/.%s.%ld.tmp", s->snapshot, name, (long)getpid());
    strbuf_printf(&blob, "%s/%s", s->blobs, etag);
    enum status result = STATUS_OK;
    if (path == NULL || target.failed || temp.failed || blob.failed) {
        result = no_memory(err);
    } else {
        unlink(temp.data);
        if (symlink(target.data, temp.data) != 0) {
            bool refused = errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS;
            if (!refused || rename(blob.data, path) != 0) {
                result = io_error(err, path, "cannot link");
            }
        } else if (rename(temp.data, path) != 0) {
            result = io_error(err, path, "cannot link");
            unlink(temp.data);
        }
    }
    if (result == STATUS_OK) {
        result = sync_folder(s->snapshot, err);
    }
    strbuf_deinit(&blob);
    strbuf_deinit(&temp);
    strbuf_deinit(&target);
    mem_free(path);
    return result;
}

/* Downloads and verifies; on OK the part is whole. */
static enum status fill_part(const struct hub_store *s, struct hub_http *h, const char *url,
                             const struct hub_file *f, struct part *p, struct error *err)
{
    struct hub_transfer *t = &p->transfer;
    /* Bytes of an earlier call: too many, or nothing to ask the server for their continuation. */
    bool whole = t->have_bytes == t->size_bytes;
    if (t->have_bytes > t->size_bytes || (!whole && t->validator[0] == '\0')) {
        t->have_bytes = 0;
        if (ftruncate(t->fd, 0) != 0) {
            return io_error(err, p->path, "cannot start over");
        }
    }
    bool resumed = t->have_bytes > 0;
    for (;;) {
        enum status result = hub_http_download(h, url, t, err);
        if (result == STATUS_OK) {
            result = verify(p, f, s->stop, err);
        }
        if (result != STATUS_BAD_DATA) {
            return result;
        }
        unlink(p->validator);
        t->validator[0] = '\0';
        if (!resumed) {
            unlink(p->path);
            return result;
        }
        /* The earlier bytes may be the bad ones: once more from the start. */
        log_info("%s; starting over", err == NULL ? f->name : err->message);
        resumed = false;
        t->have_bytes = 0;
        if (ftruncate(t->fd, 0) != 0) {
            return io_error(err, p->path, "cannot start over");
        }
    }
}

static enum status download_blob(const struct hub_store *s, struct hub_http *h, const char *url,
                                 const char *etag, const char *blob, const struct hub_file *f,
                                 const struct hub_transfer *progress, struct error *err)
{
    struct part p;
    enum status result = part_open(s, etag, f, &p, err);
    if (result == STATUS_OK) {
        p.transfer.owner = &p;
        p.transfer.progress = progress->progress;
        p.transfer.progress_base = progress->progress_base;
        p.transfer.progress_total = progress->progress_total;
        result = fill_part(s, h, url, f, &p, err);
    }
    if (result == STATUS_OK && fsync(p.transfer.fd) != 0) {
        result = io_error(err, p.path, "cannot sync");
    }
    if (result == STATUS_OK && rename(p.path, blob) != 0) {
        result = io_error(err, blob, "cannot rename to");
    }
    if (result == STATUS_OK) {
        unlink(p.validator);
        result = sync_folder(s->blobs, err);
    }
    part_close(&p);
    return result;
}

enum status hub_store_fetch(const struct hub_store *s, struct hub_http *h, const char *url,
                            const char *etag, const struct hub_file *f,
                            const struct progress *progress, uint64_t base, uint64_t total,
                            struct error *err)
{
    char *blob = fs_join(s->blobs, etag);
    if (blob == NULL) {
        return no_memory(err);
    }
    int lock = -1;
    enum status result = STATUS_OK;
    if (!has_size(blob, f->size_bytes)) {
        result = lock_blob(s, etag, &lock, err);
        /* Whoever held the lock may have finished it. */
        if (result == STATUS_OK && !has_size(blob, f->size_bytes)) {
            struct hub_transfer report = {
                .progress = progress, .progress_base = base, .progress_total = total};
            result = download_blob(s, h, url, etag, blob, f, &report, err);
        }
    }
    if (result == STATUS_OK) {
        result = link_blob(s, etag, f->name, err);
    }
    if (lock >= 0) {
        close(lock); /* and so unlocks */
    }
    mem_free(blob);
    return result;
}

enum status hub_store_set_ref(const struct hub_store *s, const char *revision, const char *commit,
                              struct error *err)
{
    char *path = hub_path(s->repo, "refs", revision);
    if (path == NULL) {
        return no_memory(err);
    }
    char *old = NULL;
    size_t n = 0;
    enum status result = fs_read_file(path, HUB_HASH_HEX, &old, &n, NULL);
    bool same = result == STATUS_OK && strcmp(old, commit) == 0;
    mem_free(old);
    result = STATUS_OK;
    if (!same) { /* so that a read-only cache with everything in it will do */
        *strrchr(path, '/') = '\0';
        result = fs_make_dirs(path, err);
        path[strlen(path)] = '/';
        if (result == STATUS_OK) {
            result = fs_write_atomic(path, commit, strlen(commit), err);
        }
    }
    mem_free(path);
    return result;
}
