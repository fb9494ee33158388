/*
 * hub_http.c - the hub's HTTP through libcurl: one client, one place for tokens and retries.
 *
 * Invariants: the token goes to the endpoint's own scheme, host and port and nowhere else (libcurl
 * drops the bearer on a redirect to another host; CURLOPT_UNRESTRICTED_AUTH stays off), and never
 * over plain http except to this machine. A try that brought bytes starts the count of tries anew.
 * Protocol: huggingface_hub, file_download.py; RFC 9110 §14.2 (Range), §13.1.5 (If-Range).
 */
#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "model/hub_int.h"

#define DEFAULT_ENDPOINT  "https://huggingface.co"
#define USER_AGENT        "llmsched"
#define MAX_TRIES         5
#define MAX_REDIRECTS     5
#define MAX_TOKEN_BYTES   4096
#define DEFAULT_BASE_MS   500
#define MAX_BACKOFF_MS    8000
#define MAX_RETRY_AFTER_S 300 /* longer, and it is kinder to stop and say so */
#define CONNECT_TIMEOUT_S 10
#define STALL_TIMEOUT_S   10 /* no byte for so long: HF_HUB_DOWNLOAD_TIMEOUT's default */
#define TEXT_TIMEOUT_S    60
#define RECEIVE_BUFFER    (256L * 1024)
#define WAIT_SLICE_MS     20

struct hub_http {
    CURL *curl;
    char *endpoint;
    char *token; /* NULL: none */
    struct curl_slist *headers;
    const volatile int *stop;
    uint32_t retry_base_ms;
};

enum outcome { OUTCOME_OK, OUTCOME_RETRY, OUTCOME_FAIL };

/* --- opening --- */

static bool is_loopback(const char *host)
{
    if (strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0) {
        return true;
    }
    /* 127.0.0.0/8 in dotted form; a name such as "127.example" must not pass. */
    return strncmp(host, "127.", 4) == 0 && host[strspn(host, "0123456789.")] == '\0';
}

static enum status check_endpoint(const char *endpoint, bool has_token, struct error *err)
{
    enum status s = STATUS_OK;
    char *scheme = NULL;
    char *host = NULL;
    char *user = NULL;
    char *query = NULL;
    CURLU *u = curl_url();
    if (u == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a URL");
    }
    if (curl_url_set(u, CURLUPART_URL, endpoint, 0) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
        (strcmp(scheme, "https") != 0 && strcmp(scheme, "http") != 0)) {
        s = error_set(err, STATUS_USAGE, -1, "HF_ENDPOINT: '%s' is not an http(s) URL", endpoint);
    } else if (curl_url_get(u, CURLUPART_USER, &user, 0) == CURLUE_OK ||
               curl_url_get(u, CURLUPART_QUERY, &query, 0) == CURLUE_OK) {
        s = error_set(err, STATUS_USAGE, -1,
                      "HF_ENDPOINT: a bare URL is wanted, without user or query (a token goes "
                      "into HF_TOKEN)");
    } else if (strcmp(scheme, "http") == 0 && !is_loopback(host)) {
        if (has_token) {
            s = error_set(err, STATUS_USAGE, -1,
                          "HF_ENDPOINT: the token would travel readable to http://%s; use https, "
                          "or send none with HF_HUB_DISABLE_IMPLICIT_TOKEN=1",
                          host);
        } else {
            log_warn("HF_ENDPOINT is plain http: anyone on the way can change what you download");
        }
    }
    curl_free(query);
    curl_free(user);
    curl_free(host);
    curl_free(scheme);
    curl_url_cleanup(u);
    return s;
}

/* The token without surrounding white space; NULL in *out when text holds none. */
static enum status clean_token(const char *text, const char *from, char **out, struct error *err)
{
    text += strspn(text, " \t\r\n");
    size_t n = strcspn(text, " \t\r\n");
    if (text[n + strspn(text + n, " \t\r\n")] != '\0' || n > MAX_TOKEN_BYTES) {
        return error_set(err, STATUS_USAGE, -1, "%s does not hold one token", from);
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 0x21 || (unsigned char)text[i] > 0x7e) {
            return error_set(err, STATUS_USAGE, -1, "%s holds a byte that no token has", from);
        }
    }
    if (n > 0 && (*out = mem_strndup(text, n)) == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a token");
    }
    return STATUS_OK;
}

/* HF_TOKEN, else the file of `huggingface-cli login`. */
static enum status find_token(const struct hub_env *env, char **out, struct error *err)
{
    if (env->no_implicit_token) {
        return STATUS_OK;
    }
    if (env->hf_token != NULL && env->hf_token[0] != '\0') {
        return clean_token(env->hf_token, "HF_TOKEN", out, err);
    }
    char *path = NULL;
    if (env->hf_token_path != NULL && env->hf_token_path[0] != '\0') {
        path = mem_strdup(env->hf_token_path);
    } else {
        char *home = NULL;
        enum status found = hub_home(env, &home, NULL);
        if (found != STATUS_OK) {
            return found == STATUS_USAGE ? STATUS_OK : found;
        }
        path = fs_join(home, "token");
        mem_free(home);
    }
    if (path == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a path");
    }
    char *text = NULL;
    size_t len = 0;
    enum status s = fs_read_file(path, MAX_TOKEN_BYTES, &text, &len, err);
    if (s == STATUS_NOT_FOUND) {
        s = STATUS_OK;
    } else if (s == STATUS_OK) {
        s = clean_token(text, path, out, err);
        mem_free(text);
    }
    mem_free(path);
    return s;
}

static int on_progress(void *self, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
                       curl_off_t ul)
{
    const struct hub_http *h = self;
    (void)dl_total, (void)dl, (void)ul_total, (void)ul;
    return h->stop != NULL && *h->stop != 0;
}

static bool set_fixed_options(struct hub_http *h)
{
    /* Bytes as they are stored: their length and hash are checked. */
    h->headers = curl_slist_append(NULL, "Accept-Encoding: identity");
    h->curl = curl_easy_init();
    const char *schemes = strncmp(h->endpoint, "https:", 6) == 0 ? "https" : "http,https";
    return h->headers != NULL && h->curl != NULL &&
           curl_easy_setopt(h->curl, CURLOPT_PROTOCOLS_STR, schemes) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_REDIR_PROTOCOLS_STR, schemes) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_USERAGENT, USER_AGENT) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_LOW_SPEED_LIMIT, 1L) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_TIMEOUT_S) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_NOPROGRESS, 0L) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_XFERINFOFUNCTION, on_progress) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_XFERINFODATA, h) == CURLE_OK &&
           (h->token == NULL ||
            (curl_easy_setopt(h->curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER) == CURLE_OK &&
             curl_easy_setopt(h->curl, CURLOPT_XOAUTH2_BEARER, h->token) == CURLE_OK));
}

enum status hub_http_open(const struct hub_env *env, const volatile int *stop,
                          struct hub_http **out, struct error *err)
{
    struct hub_http *h = mem_alloc(1, sizeof *h);
    if (h == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for an HTTP client");
    }
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        mem_free(h);
        return error_set(err, STATUS_INTERNAL, -1, "libcurl does not start");
    }
    h->stop = stop;
    h->retry_base_ms = env->retry_base_ms != 0 ? env->retry_base_ms : DEFAULT_BASE_MS;
    const char *endpoint = env->hf_endpoint;
    if (endpoint == NULL || endpoint[0] == '\0') {
        endpoint = DEFAULT_ENDPOINT;
    }
    size_t len = strlen(endpoint);
    while (len > 0 && endpoint[len - 1] == '/') {
        len--;
    }
    enum status s = find_token(env, &h->token, err);
    if (s == STATUS_OK) {
        h->endpoint = mem_strndup(endpoint, len);
        s = h->endpoint == NULL ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for a URL")
                                : check_endpoint(h->endpoint, h->token != NULL, err);
    }
    if (s == STATUS_OK && !set_fixed_options(h)) {
        s = error_set(err, STATUS_INTERNAL, -1, "libcurl refuses an option (too old a version?)");
    }
    if (s != STATUS_OK) {
        hub_http_close(h);
        return s;
    }
    *out = h;
    return STATUS_OK;
}

void hub_http_close(struct hub_http *h)
{
    if (h == NULL) {
        return;
    }
    curl_easy_cleanup(h->curl);
    curl_slist_free_all(h->headers);
    mem_free(h->endpoint);
    mem_free(h->token);
    mem_free(h);
    curl_global_cleanup();
}

const char *hub_http_endpoint(const struct hub_http *h)
{
    return h->endpoint;
}

/* --- one answer --- */

/* A header of the last answer, or NULL. Borrowed until the next request. */
static const char *header(const struct hub_http *h, const char *name)
{
    struct curl_header *found = NULL;
    return curl_easy_header(h->curl, name, 0, CURLH_HEADER, -1, &found) == CURLHE_OK ? found->value
                                                                                     : NULL;
}

static bool is_transient(CURLcode rc)
{
    switch (rc) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    default:
        return false;
    }
}

static enum status refusal(const struct hub_http *h, long code, const char *url, struct error *err)
{
    const char *why = header(h, "X-Error-Code");
    why = why == NULL ? "" : why;
    if (strcmp(why, "GatedRepo") == 0) {
        return error_set(err, STATUS_NOT_FOUND, -1,
                         "%s: this repository is gated: ask for access on its page, then set "
                         "HF_TOKEN (HTTP %ld)",
                         url, code);
    }
    if (code == 401 || code == 403) {
        return error_set(err, STATUS_NOT_FOUND, -1,
                         "%s: %s: check the id; for a private or gated repository %s (HTTP %ld)",
                         url, code == 401 ? "no such repository, or no access" : "access denied",
                         h->token == NULL ? "set HF_TOKEN" : "HF_TOKEN needs access to it", code);
    }
    if (code == 404) {
        const char *what = strcmp(why, "RevisionNotFound") == 0 ? "no such revision"
                           : strcmp(why, "EntryNotFound") == 0  ? "no such file"
                           : strcmp(why, "RepoNotFound") == 0   ? "no such repository"
                                                                : "not found";
        return error_set(err, STATUS_NOT_FOUND, -1, "%s: %s: check the id and HF_ENDPOINT", url,
                         what);
    }
    return error_set(err, STATUS_UNREACHABLE, -1, "%s: the hub answered HTTP %ld", url, code);
}

/* What the last transfer means. Redirects that libcurl did not follow are OK here. */
static enum outcome judge(const struct hub_http *h, CURLcode rc, const char *url, long *code,
                          struct error *err)
{
    if (h->stop != NULL && *h->stop != 0) {
        (void)error_set(err, STATUS_INTERRUPTED, -1, "interrupted; run it again to go on");
        return OUTCOME_FAIL;
    }
    if (rc != CURLE_OK) {
        (void)error_set(err, STATUS_UNREACHABLE, -1, "%s: %s", url, curl_easy_strerror(rc));
        return is_transient(rc) ? OUTCOME_RETRY : OUTCOME_FAIL;
    }
    *code = 0;
    curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, code);
    if (*code >= 200 && *code < 400) {
        return OUTCOME_OK;
    }
    (void)refusal(h, *code, url, err);
    return *code == 408 || *code == 429 || *code >= 500 ? OUTCOME_RETRY : OUTCOME_FAIL;
}

/* Seconds until the server wants to hear from us again; -1: it did not say. `ratelimit` looks like
 * "api";r=0;t=55. */
static long retry_after_s(const struct hub_http *h)
{
    curl_off_t after = 0;
    curl_easy_getinfo(h->curl, CURLINFO_RETRY_AFTER, &after);
    if (after > 0) {
        return after > MAX_RETRY_AFTER_S ? MAX_RETRY_AFTER_S + 1 : (long)after;
    }
    const char *limit = header(h, "ratelimit");
    const char *remaining = limit == NULL ? NULL : strstr(limit, ";r=0");
    const char *reset = remaining == NULL ? NULL : strstr(limit, ";t=");
    if (reset == NULL) {
        return -1;
    }
    unsigned long s = strtoul(reset + 3, NULL, 10);
    return s > MAX_RETRY_AFTER_S ? MAX_RETRY_AFTER_S + 1 : (long)s;
}

/* Sleeps before try number `tries` + 1. False: give up (err says why). */
static bool wait_before_retry(const struct hub_http *h, unsigned tries, struct error *err)
{
    if (tries >= MAX_TRIES) {
        error_prefix(err, "gave up after %d tries", MAX_TRIES);
        return false;
    }
    uint64_t ms = (uint64_t)h->retry_base_ms << (tries - 1);
    ms = ms > MAX_BACKOFF_MS ? MAX_BACKOFF_MS : ms;
    long asked_s = retry_after_s(h);
    if (asked_s > MAX_RETRY_AFTER_S) {
        error_prefix(err, "the hub asks to wait for more than %d s; try again later",
                     MAX_RETRY_AFTER_S);
        return false;
    }
    if (asked_s >= 0) {
        ms = (uint64_t)asked_s * 1000;
    }
    log_info("%s; trying again in %.1f s", err->message, (double)ms / 1000.0);
    for (uint64_t slept = 0; slept < ms; slept += WAIT_SLICE_MS) {
        if (h->stop != NULL && *h->stop != 0) {
            (void)error_set(err, STATUS_INTERRUPTED, -1, "interrupted; run it again to go on");
            return false;
        }
        struct timespec slice = {.tv_nsec = WAIT_SLICE_MS * 1000000L};
        nanosleep(&slice, NULL);
    }
    return true;
}

/* Options that differ from request to request, set anew for each. */
static bool set_request(struct hub_http *h, const char *url, bool head, struct curl_slist *headers,
                        curl_write_callback sink, void *self)
{
    return curl_easy_setopt(h->curl, CURLOPT_URL, url) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_HTTPGET, 1L) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_NOBODY, head ? 1L : 0L) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_FOLLOWLOCATION, head ? 0L : 1L) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_RANGE, NULL) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_TIMEOUT, (long)TEXT_TIMEOUT_S) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, headers) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_WRITEFUNCTION, sink) == CURLE_OK &&
           curl_easy_setopt(h->curl, CURLOPT_WRITEDATA, self) == CURLE_OK;
}

/* --- texts --- */

struct text_sink {
    struct strbuf *body;
    size_t max_bytes;
    bool too_big;
};

static size_t take_text(char *bytes, size_t one, size_t n, void *self)
{
    struct text_sink *t = self;
    (void)one; /* always 1 */
    if (n > t->max_bytes - t->body->len) {
        t->too_big = true;
        return 0;
    }
    strbuf_append(t->body, bytes, n);
    return t->body->failed ? 0 : n;
}

/* True when both URLs share scheme, host and port. */
static bool same_origin(const char *a, const char *b)
{
    static const CURLUPart parts[] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
    CURLU *ua = curl_url();
    CURLU *ub = curl_url();
    bool same = ua != NULL && ub != NULL && curl_url_set(ua, CURLUPART_URL, a, 0) == CURLUE_OK &&
                curl_url_set(ub, CURLUPART_URL, b, 0) == CURLUE_OK;
    for (size_t i = 0; same && i < sizeof parts / sizeof parts[0]; i++) {
        char *pa = NULL;
        char *pb = NULL;
        same = curl_url_get(ua, parts[i], &pa, CURLU_DEFAULT_PORT) == CURLUE_OK &&
               curl_url_get(ub, parts[i], &pb, CURLU_DEFAULT_PORT) == CURLUE_OK &&
               strcasecmp(pa, pb) == 0;
        curl_free(pa);
        curl_free(pb);
    }
    curl_url_cleanup(ua);
    curl_url_cleanup(ub);
    return same;
}

/* `reference`, absolute or relative, seen from `base`; NULL when it makes no URL. */
static char *resolve_url(const char *base, const char *reference)
{
    char *text = NULL;
    char *copy = NULL;
    CURLU *u = curl_url();
    if (u != NULL && curl_url_set(u, CURLUPART_URL, base, 0) == CURLUE_OK &&
        curl_url_set(u, CURLUPART_URL, reference, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_URL, &text, 0) == CURLUE_OK) {
        copy = mem_strdup(text);
    }
    curl_free(text);
    curl_url_cleanup(u);
    return copy;
}

/* Link: <URL>; rel="next" (RFC 8288; the hub sends one link). */
static enum status next_link(const struct hub_http *h, const char *url, char **next,
                             struct error *err)
{
    const char *link = header(h, "Link");
    const char *open = link == NULL ? NULL : strchr(link, '<');
    const char *close = open == NULL ? NULL : strchr(open, '>');
    if (close == NULL || strstr(close, "rel=\"next\"") == NULL) {
        return STATUS_OK;
    }
    char *reference = mem_strndup(open + 1, (size_t)(close - open - 1));
    char *resolved = reference == NULL ? NULL : resolve_url(url, reference);
    mem_free(reference);
    if (resolved == NULL || !same_origin(resolved, url)) {
        mem_free(resolved);
        return error_set(err, STATUS_BAD_DATA, -1, "%s: its next page is on another host", url);
    }
    *next = resolved;
    return STATUS_OK;
}

enum status hub_http_get_text(struct hub_http *h, const char *url, size_t max_bytes,
                              struct strbuf *body, char **next, struct error *err)
{
    struct error local = ERROR_INIT;
    err = err == NULL ? &local : err;
    for (unsigned tries = 1;; tries++) {
        struct text_sink sink = {.body = body, .max_bytes = max_bytes};
        long code = 0;
        strbuf_clear(body);
        if (!set_request(h, url, false, h->headers, take_text, &sink)) {
            return error_set(err, STATUS_INTERNAL, -1, "libcurl refuses the URL %s", url);
        }
        CURLcode rc = curl_easy_perform(h->curl);
        if (sink.too_big) {
            return error_set(err, STATUS_BAD_DATA, -1, "%s: the answer exceeds %zu bytes", url,
                             max_bytes);
        }
        if (body->failed) {
            return error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for the answer", url);
        }
        enum outcome o = judge(h, rc, url, &code, err);
        if (o == OUTCOME_OK) {
            return next == NULL ? STATUS_OK : next_link(h, url, next, err);
        }
        if (o == OUTCOME_FAIL || !wait_before_retry(h, tries, err)) {
            return err->code;
        }
    }
}

/* --- HEAD --- */

static size_t drop_bytes(char *bytes, size_t one, size_t n, void *self)
{
    (void)bytes, (void)one, (void)self;
    return n;
}

/* W/"abc" or "abc" -> abc; "" when absent or too long to be one of the hub's. */
static void plain_etag(const char *value, char out[HUB_MAX_ETAG_BYTES + 1])
{
    out[0] = '\0';
    if (value == NULL) {
        return;
    }
    if (strncmp(value, "W/", 2) == 0) {
        value += 2;
    }
    size_t len = strlen(value);
    if (len >= 2 && value[0] == '"' && value[len - 1] == '"') {
        value++;
        len -= 2;
    }
    if (len <= HUB_MAX_ETAG_BYTES) {
        memcpy(out, value, len);
        out[len] = '\0';
    }
}

/* Decimal digits and nothing else. */
static bool parse_size(const char *text, uint64_t *out)
{
    size_t n = strlen(text);
    if (n == 0 || n > 18 || strspn(text, "0123456789") != n) {
        return false;
    }
    *out = strtoull(text, NULL, 10);
    return true;
}

static enum status read_head(const struct hub_http *h, const char *url, long code,
                             struct hub_head *out, struct error *err)
{
    struct hub_head head = {.commit = ""};
    const char *commit = header(h, "X-Repo-Commit");
    if (commit != NULL && (hub_is_hex(commit, 40) || hub_is_hex(commit, 64))) {
        memcpy(head.commit, commit, strlen(commit) + 1);
    }
    const char *linked = header(h, "X-Linked-Etag");
    plain_etag(linked != NULL ? linked : header(h, "ETag"), head.etag);
    const char *size = header(h, "X-Linked-Size");
    if (size == NULL && code < 300) {
        size = header(h, "Content-Length"); /* of a redirect, it would be the redirect's */
    }
    if (size != NULL) {
        head.has_size = parse_size(size, &head.size_bytes);
        if (!head.has_size) {
            return error_set(err, STATUS_BAD_DATA, -1, "%s: the hub names the size '%s'", url,
                             size);
        }
    }
    *out = head;
    return STATUS_OK;
}

/* One HEAD with its retries. */
static enum status head_once(struct hub_http *h, const char *url, long *code, struct error *err)
{
    for (unsigned tries = 1;; tries++) {
        if (!set_request(h, url, true, h->headers, drop_bytes, NULL)) {
            return error_set(err, STATUS_INTERNAL, -1, "libcurl refuses the URL %s", url);
        }
        enum outcome o = judge(h, curl_easy_perform(h->curl), url, code, err);
        if (o == OUTCOME_OK) {
            return STATUS_OK;
        }
        if (o == OUTCOME_FAIL || !wait_before_retry(h, tries, err)) {
            return err->code;
        }
    }
}

enum status hub_http_head(struct hub_http *h, const char *url, struct hub_head *out,
                          struct error *err)
{
    struct error local = ERROR_INIT;
    err = err == NULL ? &local : err;
    char *at = mem_strdup(url);
    enum status s =
        at == NULL ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for a URL") : STATUS_OK;
    for (int hops = 0; s == STATUS_OK; hops++) {
        long code = 0;
        s = head_once(h, at, &code, err);
        if (s != STATUS_OK) {
            break;
        }
        const char *location = code >= 300 ? header(h, "Location") : NULL;
        /* A relative one is a renamed repository; an absolute one leads to the storage. */
        if (location == NULL || location[0] != '/' || location[1] == '/') {
            s = read_head(h, at, code, out, err);
            break;
        }
        if (hops == MAX_REDIRECTS) {
            s = error_set(err, STATUS_BAD_DATA, -1, "%s: redirects without end", url);
            break;
        }
        char *target = resolve_url(at, location);
        mem_free(at);
        at = target;
        if (at == NULL) {
            s = error_set(err, STATUS_BAD_DATA, -1, "%s: redirects to no URL", url);
        }
    }
    mem_free(at);
    return s;
}

/* --- files --- */

struct file_sink {
    struct hub_http *h;
    struct hub_transfer *t;
    bool begun;         /* the answer's head was looked at */
    bool wanted;        /* the body belongs into the file */
    bool restart;       /* the range was not what was asked for: begin again at 0 */
    enum status status; /* of a local failure */
    struct error *err;
};

/* "bytes 100-199/200" must continue the file exactly. */
static bool range_fits(const struct hub_http *h, const struct hub_transfer *t)
{
    const char *value = header(h, "Content-Range");
    uint64_t from;
    uint64_t to;
    uint64_t total;
    char extra;
    return value != NULL &&
           sscanf(value, "bytes %" SCNu64 "-%" SCNu64 "/%" SCNu64 "%c", &from, &to, &total,
                  &extra) == 3 &&
           from == t->have_bytes && total == t->size_bytes && to == total - 1;
}

static enum status reset_file(struct hub_transfer *t, struct error *err)
{
    if (ftruncate(t->fd, 0) != 0) {
        return error_set(err, STATUS_IO, -1, "%s: cannot start over: %s", t->name, strerror(errno));
    }
    t->have_bytes = 0;
    return STATUS_OK;
}

/* Called at the first byte of an answer's body. */
static void begin_body(struct file_sink *sink)
{
    struct hub_transfer *t = sink->t;
    long code = 0;
    curl_easy_getinfo(sink->h->curl, CURLINFO_RESPONSE_CODE, &code);
    sink->begun = true;
    sink->wanted = code == 200 || code == 206;
    if (code == 206 && !range_fits(sink->h, t)) {
        sink->restart = true;
        return;
    }
    if (code == 200 && t->have_bytes > 0) {
        sink->status = reset_file(t, sink->err); /* it knows no ranges, or the file changed */
    }
    const char *etag = header(sink->h, "ETag");
    bool strong = etag != NULL && etag[0] == '"' && strlen(etag) < sizeof t->validator;
    if (code == 200 && strcmp(t->validator, strong ? etag : "") != 0) {
        memcpy(t->validator, strong ? etag : "", strong ? strlen(etag) + 1 : 1);
        t->on_validator(t);
    }
}

static size_t take_file(char *bytes, size_t one, size_t n, void *self)
{
    struct file_sink *sink = self;
    struct hub_transfer *t = sink->t;
    (void)one;
    if (!sink->begun) {
        begin_body(sink);
    }
    if (sink->status != STATUS_OK || sink->restart) {
        return 0;
    }
    if (!sink->wanted) {
        return n; /* the text of an error page */
    }
    if (n > t->size_bytes - t->have_bytes) {
        sink->status = error_set(sink->err, STATUS_BAD_DATA, (int64_t)t->size_bytes,
                                 "%s: the hub sends more than the %" PRIu64 " bytes it announced",
                                 t->name, t->size_bytes);
        return 0;
    }
    for (size_t done = 0; done < n;) {
        ssize_t put = pwrite(t->fd, bytes + done, n - done, (off_t)t->have_bytes);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            sink->status = error_set(sink->err, STATUS_IO, (int64_t)t->have_bytes,
                                     "%s: cannot write: %s", t->name, strerror(errno));
            return 0;
        }
        done += (size_t)put;
        t->have_bytes += (uint64_t)put;
    }
    progress_report(t->progress, "bytes", t->progress_base + t->have_bytes, t->progress_total);
    return n;
}

/* One GET for the bytes that are missing. */
static enum outcome download_once(struct hub_http *h, const char *url, struct hub_transfer *t,
                                  struct error *err)
{
    struct file_sink sink = {.h = h, .t = t, .err = err};
    struct curl_slist *extra = NULL;
    char range[32];
    char if_range[sizeof t->validator + 16];
    bool ready = set_request(h, url, false, h->headers, take_file, &sink) &&
                 curl_easy_setopt(h->curl, CURLOPT_TIMEOUT, 0L) == CURLE_OK;
    if (t->have_bytes > 0) {
        snprintf(range, sizeof range, "%" PRIu64 "-", t->have_bytes);
        ready = ready && curl_easy_setopt(h->curl, CURLOPT_RANGE, range) == CURLE_OK;
    }
    if (t->have_bytes > 0 && t->validator[0] != '\0') {
        snprintf(if_range, sizeof if_range, "If-Range: %s", t->validator);
        extra = curl_slist_append(NULL, "Accept-Encoding: identity");
        ready = ready && extra != NULL && curl_slist_append(extra, if_range) != NULL &&
                curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, extra) == CURLE_OK;
    }
    enum outcome o = OUTCOME_FAIL;
    if (!ready) {
        (void)error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for a request", t->name);
    } else {
        long code = 0;
        CURLcode rc = curl_easy_perform(h->curl);
        if (sink.status == STATUS_OK) {
            o = judge(h, rc, url, &code, err);
        }
        bool beyond = o == OUTCOME_FAIL && code == 416 && t->have_bytes > 0;
        if (sink.status == STATUS_OK && (sink.restart || beyond)) {
            (void)error_set(err, STATUS_UNREACHABLE, -1,
                            "%s: the server cannot continue at %" PRIu64, url, t->have_bytes);
            o = reset_file(t, err) == STATUS_OK ? OUTCOME_RETRY : OUTCOME_FAIL;
        } else if (o == OUTCOME_OK && t->have_bytes < t->size_bytes) {
            (void)error_set(err, STATUS_UNREACHABLE, (int64_t)t->have_bytes,
                            "%s: the hub sent %" PRIu64 " of %" PRIu64 " bytes", url, t->have_bytes,
                            t->size_bytes);
            o = OUTCOME_RETRY;
        }
    }
    curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, h->headers);
    curl_slist_free_all(extra);
    return o;
}

enum status hub_http_download(struct hub_http *h, const char *url, struct hub_transfer *t,
                              struct error *err)
{
    struct error local = ERROR_INIT;
    err = err == NULL ? &local : err;
    assert(t->on_validator != NULL);
    unsigned tries = 0;
    uint64_t farthest = t->have_bytes; /* starting over is no progress until it gets beyond this */
    while (t->have_bytes < t->size_bytes) {
        enum outcome o = download_once(h, url, t, err);
        if (o == OUTCOME_FAIL) {
            return err->code;
        }
        tries = t->have_bytes > farthest ? 1 : tries + 1;
        farthest = t->have_bytes > farthest ? t->have_bytes : farthest;
        if (o == OUTCOME_RETRY && !wait_before_retry(h, tries, err)) {
            return err->code;
        }
    }
    return STATUS_OK;
}
