/* remote_url.c - the endpoint's URL, and the names of faults and token sources. See remote.h. */
#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "net/http_int.h"
#include "net/remote.h"

#define EXAMPLE       "http://localhost:8000/v1/completions"
#define DEFAULT_PATH  "/v1/completions"
#define MAX_URL_BYTES 1400U

const char *remote_fault_name(enum remote_fault f)
{
    static const char *const names[REMOTE_FAULT_COUNT] = {
#define REMOTE_FAULT_TEXT(name, text) text,
        REMOTE_FAULT_LIST(REMOTE_FAULT_TEXT)
#undef REMOTE_FAULT_TEXT
    };
    assert(f < REMOTE_FAULT_COUNT);
    return names[f];
}

const char *remote_token_source_name(enum remote_token_source s)
{
    static const char *const names[] = {"none", "usage", "ids", "events"};
    assert(s <= REMOTE_TOKENS_EVENTS);
    return names[s];
}

/* ---- parsing ---- */

#define FAULT(err, ...) error_set((err), STATUS_USAGE, -1, __VA_ARGS__)

/* "8000" up to the end of the span. */
static bool parse_port(const char *text, size_t n, uint16_t *port)
{
    uint32_t value = 0;
    if (n == 0 || n > 5) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!http_is_digit((unsigned char)text[i])) {
            return false;
        }
        value = value * 10 + (uint32_t)(text[i] - '0');
    }
    *port = (uint16_t)value;
    return value >= 1 && value <= UINT16_MAX;
}

static bool is_host_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_';
}

/* Host and port; n bytes up to the path. */
static enum status parse_authority(const char *at, size_t n, struct remote_url *u,
                                   struct error *err)
{
    const char *host = at;
    const char *end = at + n;
    const char *host_end;
    if (memchr(at, '@', n) != NULL) {
        return FAULT(err, "no user in it; a key goes into --api-key-file or OPENAI_API_KEY");
    }
    if (n > 0 && *at == '[') {
        host++;
        host_end = memchr(at, ']', n);
        if (host_end == NULL) {
            return FAULT(err, "'[' without ']'");
        }
        at = host_end + 1;
    } else {
        const char *colon = memchr(at, ':', n);
        host_end = at = colon == NULL ? end : colon;
    }
    size_t len = (size_t)(host_end - host);
    if (len == 0 || len >= sizeof u->host) {
        return FAULT(err, "no host, or too long a one, as in %s", EXAMPLE);
    }
    memcpy(u->host, host, len);
    u->host[len] = '\0';
    struct in6_addr six;
    if (host[-1] == '[') {
        if (inet_pton(AF_INET6, u->host, &six) != 1) {
            return FAULT(err, "'%s' is no IPv6 address", u->host);
        }
    } else {
        for (size_t i = 0; i < len; i++) {
            if (!is_host_byte(host[i])) {
                return FAULT(err, "'%s' is no host name, as in %s", u->host, EXAMPLE);
            }
        }
    }
    u->port = u->tls ? 443 : 80;
    if (at < end && (*at != ':' || !parse_port(at + 1, (size_t)(end - at - 1), &u->port))) {
        return FAULT(err, "a port from 1 to 65535 is wanted behind the host, as in %s", EXAMPLE);
    }
    return STATUS_OK;
}

static enum status parse_path(const char *path, struct remote_url *u, struct error *err)
{
    size_t len = strlen(path);
    for (size_t i = 0; i < len; i++) {
        if (path[i] == '?' || path[i] == '#' || !http_is_target_byte((unsigned char)path[i])) {
            return FAULT(err, "a path without query, fragment or spaces is wanted, as in %s",
                         EXAMPLE);
        }
    }
    while (len > 0 && path[len - 1] == '/') {
        len--;
    }
    const char *rest = "";
    if (len == 0) {
        rest = DEFAULT_PATH;
    } else if (len >= 3 && memcmp(path + len - 3, "/v1", 3) == 0) {
        rest = "/completions";
    }
    if (len + strlen(rest) >= sizeof u->path) {
        return FAULT(err, "the path is longer than %zu bytes", sizeof u->path - 1);
    }
    (void)snprintf(u->path, sizeof u->path, "%.*s%s", (int)len, path, rest);
    return STATUS_OK;
}

static enum status parse(const char *text, struct remote_url *u, struct error *err)
{
    const char *at = text;
    if (strncasecmp(at, "http://", 7) == 0) {
        at += 7;
    } else if (strncasecmp(at, "https://", 8) == 0) {
        at += 8;
        u->tls = true;
    } else {
        return FAULT(err, "a URL with http:// or https:// is wanted, as in %s", EXAMPLE);
    }
    if (strlen(text) > MAX_URL_BYTES) {
        return FAULT(err, "longer than %u bytes", MAX_URL_BYTES);
    }
    size_t n = strcspn(at, "/?#");
    enum status s = parse_authority(at, n, u, err);
    return s == STATUS_OK ? parse_path(at + n, u, err) : s;
}

enum status remote_url_parse(const char *text, struct remote_url *out, struct error *err)
{
    struct remote_url u = {0};
    enum status s = parse(text, &u, err);
    if (s != STATUS_OK) {
        error_prefix(err, "endpoint '%.200s'", text);
        return s;
    }
    /* What a server listens on is not where a client connects to. */
    if (strcmp(u.host, "0.0.0.0") == 0) {
        (void)snprintf(u.host, sizeof u.host, "127.0.0.1");
    } else if (strcmp(u.host, "::") == 0) {
        (void)snprintf(u.host, sizeof u.host, "::1");
    }
    *out = u;
    return STATUS_OK;
}

void remote_url_print(const struct remote_url *u, const char *path, struct strbuf *out)
{
    bool is_six = strchr(u->host, ':') != NULL;
    strbuf_printf(out, "%s://%s%s%s", u->tls ? "https" : "http", is_six ? "[" : "", u->host,
                  is_six ? "]" : "");
    if (u->port != (u->tls ? 443 : 80)) {
        strbuf_printf(out, ":%u", u->port);
    }
    strbuf_puts(out, path);
}
