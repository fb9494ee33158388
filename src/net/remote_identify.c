/*
 * remote_identify.c - what a server says of itself, by plain GETs through libcurl. Not measured.
 */
#include <assert.h>
#include <curl/curl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "net/remote_int.h"

/* /metrics of a busy server has some 200 KB; the list of a hub of models less. */
#define MAX_PAGE_BYTES    (8U << 20)
#define REQUEST_TIMEOUT_S 10
/* Served models named in a message. */
#define MAX_NAMES_SHOWN 8U

struct page {
    struct strbuf body;
    long status; /* 0: none came */
    char why[CURL_ERROR_SIZE + 100];
};

static size_t on_bytes(char *bytes, size_t size, size_t n, void *arg)
{
    struct page *p = arg;
    if (n > MAX_PAGE_BYTES - p->body.len) {
        return 0;
    }
    strbuf_append(&p->body, bytes, size * n);
    return p->body.failed ? 0 : n;
}

/* "https://host/proxy" of ".../proxy/v1/completions", and `path` behind it. */
static void print_url(const struct remote_url *u, const char *path, struct strbuf *out)
{
    const char *end = strstr(u->path, "/v1/");
    char prefix[sizeof u->path];
    (void)snprintf(prefix, sizeof prefix, "%.*s", end == NULL ? 0 : (int)(end - u->path), u->path);
    remote_url_print(u, prefix, out);
    strbuf_puts(out, path);
}

static bool set_options(CURL *curl, const struct remote_config *config, const char *url,
                        struct page *page)
{
    long connect_ms = (long)((config->connect_timeout_ns == 0 ? REMOTE_CONNECT_TIMEOUT_NS
                                                              : config->connect_timeout_ns) /
                             1000000);
    /* No proxy from the environment: the requests that are measured do not take one either. */
    return curl_easy_setopt(curl, CURLOPT_URL, url) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_PROXY, "") == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_USERAGENT, "llmsched") == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, connect_ms) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)REQUEST_TIMEOUT_S) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_WRITEDATA, page) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, page->why) == CURLE_OK &&
           (config->ca_file == NULL ||
            curl_easy_setopt(curl, CURLOPT_CAINFO, config->ca_file) == CURLE_OK) &&
           (config->api_key == NULL ||
            (curl_easy_setopt(curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER) == CURLE_OK &&
             curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, config->api_key) == CURLE_OK));
}

/* Errors: UNREACHABLE where no answer came; any HTTP status is the caller's to judge. */
static enum status get(CURL *curl, const struct remote_config *config, const char *path,
                       struct page *page, struct error *err)
{
    struct strbuf url = {0};
    enum status s = STATUS_OK;
    *page = (struct page){0};
    print_url(&config->url, path, &url);
    if (url.failed) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "no memory for a URL");
    } else if (!set_options(curl, config, url.data, page)) {
        s = error_set(err, STATUS_INTERNAL, -1, "libcurl refuses an option (too old a version?)");
    } else {
        CURLcode rc = curl_easy_perform(curl);
        if (rc != CURLE_OK) {
            s = error_set(err, page->body.failed ? STATUS_NO_MEMORY : STATUS_UNREACHABLE, -1,
                          "%.300s: %s", url.data,
                          page->body.failed         ? "no memory for the answer"
                          : rc == CURLE_WRITE_ERROR ? "an answer of more than 8 MiB"
                          : page->why[0] != '\0'    ? page->why
                                                    : curl_easy_strerror(rc));
        } else {
            (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &page->status);
        }
    }
    strbuf_deinit(&url);
    return s;
}

/* ---- /v1/models ---- */

/* False: not the JSON of a list of models. */
static bool read_models(const json_t *root, const char *model, struct remote_identity *out,
                        bool *is_served)
{
    const json_t *data = json_object_get(root, "data");
    if (!json_is_array(data)) {
        return false;
    }
    *is_served = false;
    out->n_models = (uint32_t)json_array_size(data);
    for (size_t i = 0; i < json_array_size(data); i++) {
        const json_t *entry = json_array_get(data, i);
        const char *id = json_string_value(json_object_get(entry, "id"));
        if (id == NULL || strlen(id) >= sizeof out->model) {
            return false;
        }
        if (*is_served || (model != NULL && strcmp(id, model) != 0)) {
            continue;
        }
        *is_served = true;
        (void)snprintf(out->model, sizeof out->model, "%s", id);
        json_int_t most = json_integer_value(json_object_get(entry, "max_model_len"));
        out->max_model_len = most > 0 && most <= UINT32_MAX ? (uint32_t)most : 0;
    }
    return true;
}

static enum status not_served(const json_t *root, const char *model, struct error *err)
{
    const json_t *data = json_object_get(root, "data");
    struct strbuf names = {0};
    for (size_t i = 0; i < json_array_size(data) && i < MAX_NAMES_SHOWN; i++) {
        strbuf_printf(&names, "%s%s", i == 0 ? "" : ", ",
                      json_string_value(json_object_get(json_array_get(data, i), "id")));
    }
    if (json_array_size(data) > MAX_NAMES_SHOWN) {
        strbuf_puts(&names, ", ...");
    }
    enum status s =
        model == NULL
            ? error_set(err, STATUS_UNREACHABLE, -1, "the server says that it serves no model")
            : error_set(err, STATUS_USAGE, -1, "model '%.100s' is not served; served: %.300s",
                        model, names.len == 0 ? "none" : strbuf_text(&names));
    strbuf_deinit(&names);
    return s;
}

static enum status take_models(const struct page *page, const char *model,
                               struct remote_identity *out, struct error *err)
{
    if (page->status == 401 || page->status == 403) {
        return error_set(err, STATUS_USAGE, -1,
                         "the server wants another API key (HTTP %ld): give it with "
                         "--api-key-file or OPENAI_API_KEY",
                         page->status);
    }
    if (page->status != 200) {
        return error_set(err, STATUS_UNREACHABLE, -1, "/v1/models answers HTTP %ld: %.200s",
                         page->status, strbuf_text(&page->body));
    }
    uint64_t refused = mem_refused_count();
    json_t *root =
        json_loadb(strbuf_text(&page->body), page->body.len, JSON_REJECT_DUPLICATES, NULL);
    if (mem_refused_count() != refused) { /* which jansson may hide by leaving out a key */
        json_decref(root);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the list of models");
    }
    bool is_served;
    enum status s = STATUS_OK;
    if (!read_models(root, model, out, &is_served)) {
        s = error_set(err, STATUS_UNREACHABLE, -1,
                      "/v1/models does not answer with a list of models: is it an "
                      "OpenAI-compatible server?");
    } else if (!is_served) {
        s = not_served(root, model, err);
    }
    json_decref(root);
    return s;
}

/* ---- /version and /metrics ---- */

static void take_version(const struct page *page, struct remote_identity *out)
{
    json_t *root = json_loadb(strbuf_text(&page->body), page->body.len, 0, NULL);
    const char *version = json_string_value(json_object_get(root, "version"));
    if (version != NULL) {
        (void)snprintf(out->version, sizeof out->version, "%s", version);
    }
    json_decref(root);
}

/* The labels between the braces of the first vllm:cache_config_info line; a '}' may stand within
 * quotes. What does not fit is cut behind a whole label. */
static void take_cache_config(const struct page *page, struct remote_identity *out)
{
    static const char name[] = "\nvllm:cache_config_info{";
    const char *text = strbuf_text(&page->body);
    const char *at = strstr(text, name);
    if (at != NULL) {
        at += sizeof name - 1;
    } else if (strncmp(text, name + 1, sizeof name - 2) == 0) {
        at = text + sizeof name - 2;
    } else {
        return;
    }
    size_t n = 0;
    size_t whole = 0; /* up to the last comma */
    bool quoted = false;
    while (at[n] != '\0' && at[n] != '\n' && (quoted || at[n] != '}')) {
        if (quoted && at[n] == '\\' && at[n + 1] != '\0') {
            n++;
        } else if (at[n] == '"') {
            quoted = !quoted;
        } else if (at[n] == ',' && !quoted && n < sizeof out->cache_config) {
            whole = n;
        }
        n++;
    }
    n = n < sizeof out->cache_config ? n : whole;
    (void)snprintf(out->cache_config, sizeof out->cache_config, "%.*s", (int)n, at);
}

enum status remote_identify(const struct remote_config *config, const char *model,
                            struct remote_identity *out, struct error *err)
{
    struct remote_identity found = {0};
    struct page page;
    mem_lend(json_set_alloc_funcs);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return error_set(err, STATUS_INTERNAL, -1, "libcurl does not start");
    }
    CURL *curl = curl_easy_init();
    if (curl == NULL) {
        curl_global_cleanup();
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for an HTTP client");
    }
    enum status s = get(curl, config, "/v1/models", &page, err);
    if (s == STATUS_OK) {
        s = take_models(&page, model, &found, err);
    }
    strbuf_deinit(&page.body);
    if (s == STATUS_OK) {
        if (get(curl, config, "/version", &page, NULL) == STATUS_OK && page.status == 200) {
            take_version(&page, &found);
        }
        strbuf_deinit(&page.body);
        if (get(curl, config, "/metrics", &page, NULL) == STATUS_OK && page.status == 200) {
            take_cache_config(&page, &found);
        }
        strbuf_deinit(&page.body);
        *out = found;
    }
    curl_easy_cleanup(curl);
    curl_global_cleanup();
    return s;
}
