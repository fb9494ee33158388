/*
 * hub_pull.c - hub_pull: resolve, list, choose, fetch each, and only then name the commit.
 *
 * Interrupted anywhere, it leaves whole files and a part that the next call continues; look-up
 * finds nothing new until the last file is there.
 */
#include <curl/curl.h>
#include <inttypes.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "model/hub_int.h"

struct pull {
    const char *id;
    const char *revision;
    const struct progress *progress;
    const volatile int *stop;
    char commit[HUB_HASH_HEX + 1];
    char *root;
    struct hub_http *http;
    struct hub_list list;
    struct hub_store store;
};

/* Offline: what the cache has, or the command that would fetch it and the place it would take. */
static enum status pull_offline(const struct pull *p, char **path, struct error *err)
{
    char *repo = hub_repo_folder(p->root, p->id);
    if (repo == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a path");
    }
    enum status s = hub_find_snapshot(repo, p->revision, path, err);
    if (s == STATUS_NOT_FOUND) {
        s = error_set(err, STATUS_NOT_FOUND, -1,
                      "offline (HF_HUB_OFFLINE), and '%s' is not in the cache: with a network, run "
                      "'llmsched pull %s'; it is expected in %s",
                      p->id, p->id, repo);
    }
    mem_free(repo);
    return s;
}

/* An ETag becomes a file name. */
static bool is_safe_etag(const char *etag)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t n = strlen(etag);
    return n > 0 && n <= HUB_HASH_HEX && etag[0] != '.' && strspn(etag, allowed) == n;
}

/* What HEAD says must agree with the list: both describe one commit. */
static enum status check_head(const struct pull *p, const struct hub_head *head, struct hub_file *f,
                              struct error *err)
{
    if (head->commit[0] != '\0' && strcmp(head->commit, p->commit) != 0) {
        return error_set(err, STATUS_BAD_DATA, -1, "%s: the hub serves commit %s instead of %s",
                         f->name, head->commit, p->commit);
    }
    if (head->has_size && head->size_bytes != f->size_bytes) {
        return error_set(err, STATUS_BAD_DATA, -1,
                         "%s: the hub lists %" PRIu64 " bytes and serves %" PRIu64, f->name,
                         f->size_bytes, head->size_bytes);
    }
    bool is_hash = hub_is_hex(head->etag, 40) || hub_is_hex(head->etag, 64);
    if (is_hash && f->hash[0] == '\0') {
        memcpy(f->hash, head->etag, strlen(head->etag) + 1);
    } else if (is_hash && strlen(head->etag) == strlen(f->hash) &&
               strcmp(head->etag, f->hash) != 0) {
        return error_set(err, STATUS_BAD_DATA, -1,
                         "%s: the hub lists the checksum %s and serves %s", f->name, f->hash,
                         head->etag);
    }
    return STATUS_OK;
}

static char *file_url(const struct pull *p, const char *name)
{
    char *escaped = curl_easy_escape(NULL, name, 0);
    struct strbuf b = {0};
    if (escaped != NULL) {
        strbuf_printf(&b, "%s/%s/resolve/%s/%s", hub_http_endpoint(p->http), p->id, p->commit,
                      escaped);
    }
    curl_free(escaped);
    char *url = escaped == NULL || b.failed ? NULL : mem_strdup(b.data);
    strbuf_deinit(&b);
    return url;
}

static enum status fetch_file(struct pull *p, struct hub_file *f, uint64_t base, uint64_t total,
                              struct error *err)
{
    char *url = file_url(p, f->name);
    if (url == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a URL");
    }
    struct hub_head head;
    enum status s = hub_http_head(p->http, url, &head, err);
    if (s == STATUS_OK) {
        s = check_head(p, &head, f, err);
    }
    if (s == STATUS_OK) {
        const char *etag = is_safe_etag(head.etag) ? head.etag : f->hash;
        s = is_safe_etag(etag)
                ? hub_store_fetch(&p->store, p->http, url, etag, f, p->progress, base, total, err)
                : error_set(err, STATUS_BAD_DATA, -1, "%s: the hub names neither ETag nor checksum",
                            f->name);
    }
    mem_free(url);
    return s;
}

/* All chosen files that the snapshot lacks. */
static enum status fetch_missing(struct pull *p, struct error *err)
{
    uint64_t missing_bytes = 0;
    uint64_t total_bytes = 0;
    size_t n_missing = 0;
    for (size_t i = 0; i < p->list.n; i++) {
        struct hub_file *f = &p->list.files[i];
        if (!f->chosen) {
            continue;
        }
        total_bytes += f->size_bytes;
        if (!hub_store_has(&p->store, f)) {
            missing_bytes += f->size_bytes;
            n_missing++;
        }
    }
    if (n_missing == 0) {
        return STATUS_OK; /* nothing is written: a read-only cache will do */
    }
    enum status s = hub_store_prepare(&p->store, missing_bytes, err);
    uint64_t base = 0;
    for (size_t i = 0; s == STATUS_OK && i < p->list.n; i++) {
        struct hub_file *f = &p->list.files[i];
        if (!f->chosen) {
            continue;
        }
        if (p->stop != NULL && *p->stop != 0) {
            return error_set(err, STATUS_INTERRUPTED, -1, "interrupted; run it again to go on");
        }
        if (!hub_store_has(&p->store, f)) {
            s = fetch_file(p, f, base, total_bytes, err);
        }
        base += f->size_bytes;
        progress_report(p->progress, "bytes", base, total_bytes);
    }
    return s;
}

static enum status pull_online(struct pull *p, const struct hub_env *env, char **path,
                               struct error *err)
{
    enum status s = hub_http_open(env, p->stop, &p->http, err);
    if (s == STATUS_OK) {
        s = hub_list_resolve(p->http, p->id, p->revision, p->commit, err);
    }
    if (s == STATUS_OK) {
        s = hub_list_fetch(p->http, p->id, p->commit, &p->list, err);
    }
    if (s == STATUS_OK) {
        s = hub_list_choose(&p->list, p->id, err);
    }
    if (s == STATUS_OK) {
        s = hub_store_init(&p->store, p->root, p->id, p->commit, p->stop, err);
    }
    if (s == STATUS_OK) {
        s = fetch_missing(p, err);
    }
    if (s == STATUS_OK && strcmp(p->revision, p->commit) != 0) {
        s = hub_store_set_ref(&p->store, p->revision, p->commit, err);
    }
    if (s == STATUS_OK) {
        *path = p->store.snapshot;
        p->store.snapshot = NULL;
    }
    return s;
}

enum status hub_pull(const char *id, const char *revision, const struct hub_env *env,
                     const struct progress *progress, const volatile int *stop, char **path,
                     struct error *err)
{
    struct pull p = {.id = id, .progress = progress, .stop = stop};
    p.revision = revision == NULL || revision[0] == '\0' ? "main" : revision;
    if (id == NULL || !hub_is_id(id)) {
        return error_set(err, STATUS_USAGE, -1, "'%s' is not a hub id (\"org/name\")",
                         id == NULL ? "" : id);
    }
    if (!hub_is_revision(p.revision)) {
        return error_set(err, STATUS_USAGE, -1, "'%s' is not a revision (branch, tag or commit)",
                         p.revision);
    }
    enum status s = hub_cache_root(env, &p.root, err);
    if (s == STATUS_OK) {
        s = env->offline ? pull_offline(&p, path, err) : pull_online(&p, env, path, err);
    }
    hub_store_deinit(&p.store);
    hub_list_deinit(&p.list);
    hub_http_close(p.http);
    mem_free(p.root);
    return s;
}
