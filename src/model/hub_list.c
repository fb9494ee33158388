/*
 * hub_list.c - what a repository on the hub holds, and which of it a model needs.
 *
 * Names come from a server, so they are hostile until checked: one unsafe name and the whole list
 * is refused. Code-bearing kinds (pickle, .bin, .pt, .py) are never taken.
 */
#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "model/hub_int.h"

#define MAX_PAGE_BYTES ((size_t)16 * 1024 * 1024)
#define MAX_PAGES      1000
#define MAX_FILES      4096                /* of the top folder */
#define MAX_FILE_BYTES ((uint64_t)1 << 46) /* 64 TiB: sums of sizes stay far below 2^63 */
#define MAX_PATH_BYTES 4096

/* The json document of a body, or NULL with err filled. */
static json_t *parse(const char *text, size_t len, const char *what, struct error *err)
{
    json_error_t why;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL) {
        (void)error_set(err, STATUS_BAD_DATA, why.position, "the hub's answer about %s: %s", what,
                        why.text);
    }
    return root;
}

/* <endpoint>/api/models/<id>/<kind>/<revision, percent-encoded><tail> */
static char *api_url(const struct hub_http *h, const char *id, const char *kind,
                     const char *revision, const char *tail)
{
    char *escaped = curl_easy_escape(NULL, revision, 0);
    struct strbuf b = {0};
    if (escaped != NULL) {
        strbuf_printf(&b, "%s/api/models/%s/%s/%s%s", hub_http_endpoint(h), id, kind, escaped,
                      tail);
    }
    curl_free(escaped);
    char *url = escaped == NULL || b.failed ? NULL : mem_strdup(b.data);
    strbuf_deinit(&b);
    return url;
}

enum status hub_list_resolve(struct hub_http *h, const char *id, const char *revision,
                             char commit[HUB_HASH_HEX + 1], struct error *err)
{
    char *url = api_url(h, id, "revision", revision, "");
    if (url == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a URL");
    }
    struct strbuf body = {0};
    enum status s = hub_http_get_text(h, url, MAX_PAGE_BYTES, &body, NULL, err);
    mem_free(url);
    json_t *root = NULL;
    if (s == STATUS_OK) {
        root = parse(strbuf_text(&body), body.len, id, err);
        s = root == NULL ? STATUS_BAD_DATA : STATUS_OK;
    }
    if (s == STATUS_OK) {
        const char *sha = json_string_value(json_object_get(root, "sha"));
        if (sha == NULL || !(hub_is_hex(sha, 40) || hub_is_hex(sha, 64))) {
            s = error_set(err, STATUS_BAD_DATA, -1,
                          "the hub's answer about %s: \"sha\" is not a commit id", id);
        } else {
            memcpy(commit, sha, strlen(sha) + 1);
        }
    }
    json_decref(root);
    strbuf_deinit(&body);
    return s;
}

/* A path with folders: each part a plain name, or a dot file (".gitattributes"), never "..". */
static bool is_safe_path(const char *path, size_t len)
{
    if (len == 0 || len > MAX_PATH_BYTES || strlen(path) != len) {
        return false;
    }
    for (const char *part = path;;) {
        size_t n = strcspn(part, "/");
        if (n == 0 || (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.')) {
            return false;
        }
        for (size_t i = 0; i < n; i++) {
            unsigned char c = (unsigned char)part[i];
            if (c < 0x20 || c == 0x7f || c == '\\') {
                return false;
            }
        }
        if (part[n] == '\0') {
            return true;
        }
        part += n + 1;
    }
}

static enum status append_file(struct hub_list *list, const struct hub_file *f, struct error *err)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity == 0 ? 32 : list->capacity * 2;
        struct hub_file *grown = mem_resize(list->files, capacity, sizeof *grown);
        if (grown == NULL) {
            return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a list of files");
        }
        list->files = grown;
        list->capacity = capacity;
    }
    list->files[list->n++] = *f;
    return STATUS_OK;
}

static enum status parse_entry(const json_t *entry, struct hub_list *out, struct error *err)
{
    const char *type = json_string_value(json_object_get(entry, "type"));
    const json_t *path = json_object_get(entry, "path");
    const char *name = json_string_value(path);
    if (type == NULL || name == NULL) {
        return error_set(err, STATUS_BAD_DATA, -1,
                         "the hub's list of files: an entry without \"type\" or \"path\"");
    }
    if (!is_safe_path(name, json_string_length(path))) {
        return error_set(err, STATUS_BAD_DATA, -1,
                         "the hub's list of files: unsafe name '%s'; nothing was downloaded", name);
    }
    if (strcmp(type, "file") != 0 || strchr(name, '/') != NULL || !hub_is_plain_name(name)) {
        return STATUS_OK; /* folders, files in folders, dot files: never part of a model */
    }
    for (size_t i = 0; i < out->n; i++) {
        if (strcmp(out->files[i].name, name) == 0) {
            return error_set(err, STATUS_BAD_DATA, -1,
                             "the hub's list of files: '%s' appears twice", name);
        }
    }
    if (out->n == MAX_FILES) {
        return error_set(err, STATUS_BAD_DATA, -1, "the hub lists more than %d files", MAX_FILES);
    }
    const json_t *size = json_object_get(entry, "size");
    const json_t *lfs = json_object_get(entry, "lfs");
    const char *hash = json_string_value(json_object_get(json_is_object(lfs) ? lfs : entry, "oid"));
    if (!json_is_integer(size) || json_integer_value(size) < 0 ||
        (uint64_t)json_integer_value(size) > MAX_FILE_BYTES) {
        return error_set(err, STATUS_BAD_DATA, -1,
                         "the hub's list of files: '%s' has no sensible \"size\"", name);
    }
    struct hub_file f = {.size_bytes = (uint64_t)json_integer_value(size)};
    if (hash != NULL) {
        if (!(json_is_object(lfs) ? hub_is_hex(hash, 64)
                                  : hub_is_hex(hash, 40) || hub_is_hex(hash, 64))) {
            return error_set(err, STATUS_BAD_DATA, -1,
                             "the hub's list of files: '%s' has the malformed \"oid\" '%s'", name,
                             hash);
        }
        memcpy(f.hash, hash, strlen(hash) + 1);
    }
    f.name = mem_strdup(name);
    if (f.name == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a file name");
    }
    enum status s = append_file(out, &f, err);
    if (s != STATUS_OK) {
        mem_free(f.name);
    }
    return s;
}

enum status hub_list_parse(const char *json, size_t len, struct hub_list *out, struct error *err)
{
    json_t *root = parse(json, len, "its files", err);
    if (root == NULL) {
        return STATUS_BAD_DATA;
    }
    enum status s = STATUS_OK;
    if (!json_is_array(root)) {
        s = error_set(err, STATUS_BAD_DATA, -1, "the hub's list of files is not an array");
    }
    for (size_t i = 0; s == STATUS_OK && i < json_array_size(root); i++) {
        s = parse_entry(json_array_get(root, i), out, err);
    }
    json_decref(root);
    return s;
}

enum status hub_list_fetch(struct hub_http *h, const char *id, const char *commit,
                           struct hub_list *out, struct error *err)
{
    char *url = api_url(h, id, "tree", commit, "?recursive=1");
    enum status s = STATUS_OK;
    if (url == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a URL");
    }
    struct strbuf body = {0};
    for (int page = 0; s == STATUS_OK && url != NULL; page++) {
        if (page == MAX_PAGES) {
            s = error_set(err, STATUS_BAD_DATA, -1, "%s: the list of files has no end", id);
            break;
        }
        char *next = NULL;
        strbuf_clear(&body);
        s = hub_http_get_text(h, url, MAX_PAGE_BYTES, &body, &next, err);
        if (s == STATUS_OK) {
            s = hub_list_parse(strbuf_text(&body), body.len, out, err);
        }
        mem_free(url);
        url = next;
    }
    mem_free(url);
    strbuf_deinit(&body);
    return s;
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t a = strlen(name);
    size_t b = strlen(suffix);
    return a > b && strcasecmp(name + a - b, suffix) == 0;
}

/* "model-00001-of-00003.safetensors" */
static bool is_shard(const char *name)
{
    const char *of = strstr(name, "-of-");
    return of != NULL && has_suffix(name, ".safetensors") && of - name >= 6 && of[-6] == '-' &&
           strspn(of - 5, "0123456789") == 5 && strspn(of + 4, "0123456789") == 5 &&
           strcmp(of + 9, ".safetensors") == 0;
}

static bool has_file(const struct hub_list *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++) {
        if (strcmp(list->files[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* model.safetensors alone; else the shards of its index; else whatever safetensors there are. */
static size_t choose_safetensors(struct hub_list *list)
{
    bool single = has_file(list, "model.safetensors");
    bool index = has_file(list, "model.safetensors.index.json");
    size_t n = 0;
    for (size_t i = 0; i < list->n; i++) {
        struct hub_file *f = &list->files[i];
        if (has_suffix(f->name, ".safetensors")) {
            f->chosen = single  ? strcmp(f->name, "model.safetensors") == 0
                        : index ? strncmp(f->name, "model-", 6) == 0 && is_shard(f->name)
                                : true;
            n += f->chosen;
        } else if (single && strcmp(f->name, "model.safetensors.index.json") == 0) {
            f->chosen = false;
        }
    }
    return n;
}

/* Position in the order of preference of a GGUF's kind as its name tells it; -1: one we cannot
 * read. Q8_0 first: a quarter of f32, and no visible loss. */
static int gguf_rank(const char *name)
{
    static const char *const kinds[] = {"q8_0", "f16", "bf16", "q4_1", "q4_0", "q6_k", "f32"};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        char suffix[16];
        snprintf(suffix, sizeof suffix, "%s.gguf", kinds[i]);
        if (!has_suffix(name, suffix)) {
            continue;
        }
        char before = name[strlen(name) - strlen(suffix) - 1];
        if (before == '-' || before == '.' || before == '_') {
            return (int)i;
        }
    }
    return -1;
}

static enum status choose_gguf(struct hub_list *list, const char *id, struct error *err)
{
    struct hub_file *best = NULL;
    int best_rank = -1;
    size_t n = 0;
    for (size_t i = 0; i < list->n; i++) {
        struct hub_file *f = &list->files[i];
        if (!has_suffix(f->name, ".gguf")) {
            continue;
        }
        f->chosen = false;
        n++;
        int rank = gguf_rank(f->name);
        if (n == 1 || (rank >= 0 && (best_rank < 0 || rank < best_rank))) {
            best = f;
            best_rank = rank;
        }
    }
    if (best == NULL) {
        return error_set(err, STATUS_UNSUPPORTED, -1,
                         "%s has neither safetensors nor gguf weights; pickle files (.bin, .pt) "
                         "can run code and are never loaded: look for a converted repository",
                         id);
    }
    if (n > 1 && best_rank < 0) {
        return error_set(err, STATUS_UNSUPPORTED, -1,
                         "%s: none of its %zu gguf files is of a known kind (Q8_0, F16, BF16, "
                         "Q4_1, Q4_0, Q6_K, F32, by name)",
                         id, n);
    }
    best->chosen = true;
    if (n > 1) {
        log_info("%s has %zu gguf files: taking %s", id, n, best->name);
    }
    return STATUS_OK;
}

enum status hub_list_choose(struct hub_list *list, const char *id, struct error *err)
{
    static const char *const beside[] = {".json", ".txt", ".model", ".jinja"};
    bool any_safetensors = false;
    for (size_t i = 0; i < list->n; i++) {
        struct hub_file *f = &list->files[i];
        f->chosen = false;
        for (size_t k = 0; k < sizeof beside / sizeof beside[0]; k++) {
            f->chosen = f->chosen || has_suffix(f->name, beside[k]);
        }
        any_safetensors = any_safetensors || has_suffix(f->name, ".safetensors");
    }
    if (!any_safetensors) {
        return choose_gguf(list, id, err);
    }
    if (choose_safetensors(list) == 0) {
        return error_set(err, STATUS_BAD_DATA, -1,
                         "%s has an index of weights but none of the shards it names", id);
    }
    return STATUS_OK;
}

void hub_list_deinit(struct hub_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        mem_free(list->files[i].name);
    }
    mem_free(list->files);
    *list = (struct hub_list){0};
}
