/*
 * hub_int.h - shared by the hub_*.c files and their tests.
 *
 *   hub_locate.c  names, the cache's root, look-up            no network, reads only
 *   hub_http.c    libcurl: one client, retries, the token's bounds
 *   hub_list.c    the hub's JSON -> files, and which of them a model needs
 *   hub_store.c   the cache layout: locks, parts, verification, links, refs
 *   hub_pull.c    the order of it all
 *
 * Cache layout (huggingface_hub, guides/manage-cache): <root>/models--org--name/ with
 * blobs/<etag>, snapshots/<commit>/<file> -> ../../blobs/<etag>, refs/<revision>,
 * .no_exist/<commit>/<file>; <root>/.locks/models--org--name/<etag>.lock.
 */
#ifndef LLMSCHED_MODEL_HUB_INT_H
#define LLMSCHED_MODEL_HUB_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/status.h"
#include "base/strbuf.h"
#include "model/hub.h"

#define HUB_MAX_NAME_BYTES 200 /* of a file: leaves room for suffixes under NAME_MAX (255) */
#define HUB_HASH_HEX       64  /* SHA-256; a git blob id has 40 */
#define HUB_MAX_ETAG_BYTES 128

/* --- names (hub_locate.c) --- */

/* "name" or "org/name", each part [A-Za-z0-9._-], not starting with '.', without "..". */
bool hub_is_id(const char *id);
/* One path component that is safe to create: no '/', '\\', control byte, leading '.', at most
 * HUB_MAX_NAME_BYTES. */
bool hub_is_plain_name(const char *name);
/* A branch, tag or commit: components that are plain names, joined by '/'. */
bool hub_is_revision(const char *revision);
bool hub_is_hex(const char *text, size_t len);
/* Names joined by '/'; NULL when out of memory. Owner: the caller. */
char *hub_path(const char *a, const char *b, const char *c);
/* HF_HOME, or its default below XDG_CACHE_HOME or HOME; USAGE when none of them is set. */
enum status hub_home(const struct hub_env *env, char **home, struct error *err) MUST_USE;
/* The cache's root folder; USAGE when no variable and no home names one. */
enum status hub_cache_root(const struct hub_env *env, char **root, struct error *err) MUST_USE;
/* <root>/models--org--name */
char *hub_repo_folder(const char *root, const char *id) MUST_USE;
/* The snapshot folder that refs/<revision> (or a commit itself) names, if it is there and holds a
 * model. NOT_FOUND otherwise. */
enum status hub_find_snapshot(const char *repo_folder, const char *revision, char **path,
                              struct error *err) MUST_USE;

/* --- transfer (hub_http.c) --- */

struct hub_http;

/* Checks endpoint and token. A token is refused over plain http except to this machine: it would
 * travel readable. */
enum status hub_http_open(const struct hub_env *env, const volatile int *stop,
                          struct hub_http **out, struct error *err) MUST_USE;
void hub_http_close(struct hub_http *h);
const char *hub_http_endpoint(const struct hub_http *h); /* without a trailing '/' */

/* GET of at most max_bytes into body; *next is the rel="next" link (NULL: none; owner: the
 * caller). The link must stay on the endpoint's own host. */
enum status hub_http_get_text(struct hub_http *h, const char *url, size_t max_bytes,
                              struct strbuf *body, char **next, struct error *err) MUST_USE;

struct hub_head {
    char commit[HUB_HASH_HEX + 1];     /* X-Repo-Commit, or "" */
    char etag[HUB_MAX_ETAG_BYTES + 1]; /* X-Linked-Etag or ETag, without W/ and quotes, or "" */
    uint64_t size_bytes;               /* X-Linked-Size or Content-Length */
    bool has_size;
};
/* HEAD; follows relative redirects only. */
enum status hub_http_head(struct hub_http *h, const char *url, struct hub_head *out,
                          struct error *err) MUST_USE;

/* A file being filled. The caller opens fd and sets have_bytes to what is already there. */
struct hub_transfer {
    int fd;
    const char *name;                             /* for messages */
    uint64_t size_bytes;                          /* expected, exactly */
    uint64_t have_bytes;                          /* in fd; grows */
    char validator[HUB_MAX_ETAG_BYTES + 3];       /* strong ETag that have_bytes belong to, or "" */
    void (*on_validator)(struct hub_transfer *t); /* it changed: store it beside the part */
    void *owner;
    const struct progress *progress;
    uint64_t progress_base; /* bytes of the files before this one */
    uint64_t progress_total;
};
/* GET, continued by Range after every cut until size_bytes are there. */
enum status hub_http_download(struct hub_http *h, const char *url, struct hub_transfer *t,
                              struct error *err) MUST_USE;

/* --- files (hub_list.c) --- */

struct hub_file {
    char *name;
    uint64_t size_bytes;
    char hash[HUB_HASH_HEX + 1]; /* 64 hex: SHA-256; 40 hex: git blob id; "": unknown */
    bool chosen;
};
struct hub_list {
    struct hub_file *files;
    size_t n;
    size_t capacity;
};

/* The commit that a revision stands for. */
enum status hub_list_resolve(struct hub_http *h, const char *id, const char *revision,
                             char commit[HUB_HASH_HEX + 1], struct error *err) MUST_USE;
/* Every file of the commit. An unsafe name makes the whole list BAD_DATA. */
enum status hub_list_fetch(struct hub_http *h, const char *id, const char *commit,
                           struct hub_list *out, struct error *err) MUST_USE;
/* One page of the tree, appended; exposed for tests. */
enum status hub_list_parse(const char *json, size_t len, struct hub_list *out,
                           struct error *err) MUST_USE;
/* Marks what a model needs: files of the top folder; safetensors before gguf, one gguf only. */
enum status hub_list_choose(struct hub_list *list, const char *id, struct error *err) MUST_USE;
void hub_list_deinit(struct hub_list *list);

/* --- cache (hub_store.c) --- */

struct hub_store {
    char *repo;  /* <root>/models--org--name */
    char *locks; /* <root>/.locks/models--org--name */
    char *blobs;
    char *snapshot; /* <repo>/snapshots/<commit> */
    const volatile int *stop;
};
enum status hub_store_init(struct hub_store *s, const char *root, const char *id,
                           const char *commit, const volatile int *stop,
                           struct error *err) MUST_USE;
void hub_store_deinit(struct hub_store *s);
/* True when the snapshot has the file in its full size. */
bool hub_store_has(const struct hub_store *s, const struct hub_file *f);
/* Makes the folders and checks that the file system has room for need_bytes more. */
enum status hub_store_prepare(const struct hub_store *s, uint64_t need_bytes,
                              struct error *err) MUST_USE;
/* Downloads url into blobs/<etag> (unless it is there), verifies, links it as f->name. */
enum status hub_store_fetch(const struct hub_store *s, struct hub_http *h, const char *url,
                            const char *etag, const struct hub_file *f,
                            const struct progress *progress, uint64_t base, uint64_t total,
                            struct error *err) MUST_USE;
/* refs/<revision> = commit; the last step of a pull. */
enum status hub_store_set_ref(const struct hub_store *s, const char *revision, const char *commit,
                              struct error *err) MUST_USE;
/* Lower-case hex of SHA-256 (n_hex 64) or of git's blob id (n_hex 40) over the whole file. */
enum status hub_store_hash(int fd, const char *path, uint64_t size_bytes, size_t n_hex,
                           const volatile int *stop, char *hex, struct error *err) MUST_USE;

#endif
