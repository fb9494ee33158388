/* https with certificates made here, and what a server says of itself. */
#include "remote_test.h"

#include <signal.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/* ---- certificates ---- */

struct identity {
    EVP_PKEY *key;
    X509 *cert;
    char path[64]; /* PEM of cert */
};

/* Signed by itself, for the names ("DNS:localhost,IP:127.0.0.1"), valid from `from_s` on. */
static void identity_make(struct identity *id, const char *names, long from_s)
{
    id->key = EVP_EC_gen("P-256");
    id->cert = X509_new();
    assert_true(id->key != NULL && id->cert != NULL);
    assert_int_equal(X509_set_version(id->cert, 2), 1);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(id->cert), 1), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(id->cert), from_s));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(id->cert), from_s + 3600));
    assert_int_equal(X509_set_pubkey(id->cert, id->key), 1);
    X509_NAME *name = X509_get_subject_name(id->cert);
    assert_int_equal(
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"t", -1, -1, 0),
        1);
    assert_int_equal(X509_set_issuer_name(id->cert, name), 1);
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, id->cert, id->cert, NULL, NULL, 0);
    X509_EXTENSION *alt = X509V3_EXT_conf_nid(NULL, &context, NID_subject_alt_name, names);
    assert_non_null(alt);
    assert_int_equal(X509_add_ext(id->cert, alt, -1), 1);
    X509_EXTENSION_free(alt);
    assert_true(X509_sign(id->cert, id->key, EVP_sha256()) > 0);
    (void)snprintf(id->path, sizeof id->path, "/tmp/llmsched-cert-XXXXXX");
    int fd = mkstemp(id->path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "w");
    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, id->cert), 1);
    assert_int_equal(fclose(f), 0);
}

static void identity_free(struct identity *id)
{
    (void)unlink(id->path);
    X509_free(id->cert);
    EVP_PKEY_free(id->key);
}

/* ---- a TLS server ---- */

struct tls_script {
    SSL_CTX *context;
    int n_tokens;
    bool notify;        /* close_notify behind each answer, then close */
    bool junk;          /* a record more than was asked for behind each answer */
    atomic_int n_names; /* connections that sent a server name */
};

static bool tls_puts(SSL *ssl, const char *text)
{
    return SSL_write(ssl, text, (int)strlen(text)) > 0;
}

static bool tls_read_request(struct raw_server *s, SSL *ssl)
{
    char buf[4096];
    int n = 0;
    while (n < (int)sizeof buf - 1) {
        int k = SSL_read(ssl, buf + n, (int)sizeof buf - 1 - n);
        if (k <= 0) {
            return false;
        }
        n += k;
        buf[n] = '\0';
        const char *end = strstr(buf, "\r\n\r\n");
        if (end != NULL && strlen(end + 4) == strlen(BODY)) {
            atomic_fetch_add(&s->n_requests, 1);
            return true;
        }
    }
    return false;
}

static bool tls_answer(const struct tls_script *script, SSL *ssl)
{
    char chunk[600];
    bool ok = tls_puts(ssl, HEAD_OK);
    for (int i = 0; ok && i < script->n_tokens; i++) {
        text_chunk(chunk, sizeof chunk, "ab", i == script->n_tokens - 1 ? "\"length\"" : "null");
        ok = tls_puts(ssl, chunk);
    }
    return ok && tls_puts(ssl, "e\r\ndata: [DONE]\n\n\r\n" LAST_CHUNK) &&
           (!script->junk || tls_puts(ssl, "HTTP/1.1 200 OK\r\n"));
}

static void serve_tls(struct raw_server *s, int fd)
{
    struct tls_script *script = (struct tls_script *)(uintptr_t)s->script;
    SSL *ssl = SSL_new(script->context);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1) {
        abort();
    }
    if (SSL_accept(ssl) == 1) {
        atomic_fetch_add(&script->n_names,
                         SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) != NULL);
        while (tls_read_request(s, ssl) && tls_answer(script, ssl) && !script->notify) {
        }
        (void)SSL_shutdown(ssl);
    }
    ERR_clear_error();
    SSL_free(ssl);
}

static SSL_CTX *server_context(const struct identity *id, int version)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    assert_non_null(context);
    assert_int_equal(SSL_CTX_set_max_proto_version(context, version), 1);
    assert_int_equal(SSL_CTX_use_certificate(context, id->cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, id->key), 1);
    return context;
}

static void tls_load(struct load *l, const struct raw_server *server, const char *host,
                     const char *ca_file, uint32_t n, uint32_t connections)
{
    load_init(l, server->port, n, connections);
    l->config.url.tls = true;
    (void)snprintf(l->config.url.host, sizeof l->config.url.host, "%s", host);
    l->config.ca_file = ca_file;
}

static struct identity good;
static struct identity other;
static struct identity late;

static void requests_over_tls(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    static const char *const hosts[] = {"127.0.0.1", "localhost"};
    for (int v = 0; v < 2; v++) {
        for (int h = 0; h < 2; h++) {
            struct tls_script script = {.context = server_context(&good, versions[v]),
                                        .n_tokens = 5};
            struct raw_server *server = raw_server_start(serve_tls, &script);
            struct load l;
            tls_load(&l, server, hosts[h], good.path, 40, 4);
            struct error err = ERROR_INIT;
            assert_status(load_connect(&l), STATUS_OK);
            assert_ok(load_run(&l));
            for (uint32_t i = 0; i < l.n; i++) {
                assert_string_equal(l.answers[i].error, "");
                assert_string_equal(strbuf_text(&l.answers[i].text), "ababababab");
                assert_true(l.answers[i].send_end_ns <= l.answers[i].head_ns);
            }
            assert_int_equal(atomic_load(&server->n_accepted), 4);
            assert_int_equal(atomic_load(&script.n_names), h == 0 ? 0 : 4); /* SNI: names only */
            load_deinit(&l);
            raw_server_stop(server);
            SSL_CTX_free(script.context);
        }
    }
}

/* Closed in good order behind each answer, or followed by bytes nobody asked for: the answers are
 * right, and the next request has a new connection. */
static void closed_over_tls(void **state)
{
    (void)state;
    for (int junk = 0; junk < 2; junk++) {
        struct tls_script script = {.context = server_context(&good, TLS1_3_VERSION),
                                    .n_tokens = 2,
                                    .notify = junk == 0,
                                    .junk = junk == 1};
        struct raw_server *server = raw_server_start(serve_tls, &script);
        struct load l;
        tls_load(&l, server, "localhost", good.path, 6, 1);
        struct error err = ERROR_INIT;
        assert_ok(load_connect(&l));
        assert_ok(load_run(&l));
        uint32_t n_ok = load_count(&l, REMOTE_FAULT_NONE);
        uint32_t n_send = load_count(&l, REMOTE_FAULT_SEND);   /* the race of kept connections */
        uint32_t n_parse = load_count(&l, REMOTE_FAULT_PARSE); /* junk that came later */
        assert_int_equal(n_ok + n_send + n_parse, 6);
        assert_true(n_ok >= 3 && (junk == 1 || n_parse == 0));
        load_deinit(&l);
        raw_server_stop(server);
        SSL_CTX_free(script.context);
    }
}

static void certificates_are_verified(void **state)
{
    (void)state;
    const struct {
        const struct identity *server;
        const char *host;
        const char *ca_file;
        const char *says;
    } rows[] = {
        {&good, "localhost", NULL, "certificate: self-signed certificate"},
        {&good, "localhost", other.path, "certificate: self-signed certificate"},
        {&other, "localhost", other.path, "certificate: hostname mismatch"},
        {&other, "127.0.0.1", other.path, "certificate: IP address mismatch"},
        {&late, "localhost", late.path, "certificate: certificate is not yet valid"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tls_script script = {.context = server_context(rows[i].server, TLS1_3_VERSION)};
        struct raw_server *server = raw_server_start(serve_tls, &script);
        struct load l;
        tls_load(&l, server, rows[i].host, rows[i].ca_file, 1, 2);
        assert_int_equal(load_connect(&l), STATUS_UNREACHABLE);
        assert_contains(l.err.message, rows[i].says);
        assert_contains(l.err.message, "https://");
        assert_int_equal(atomic_load(&server->n_requests), 0);
        load_deinit(&l);
        raw_server_stop(server);
        SSL_CTX_free(script.context);
    }
}

/* No TLS on that port, and a connection that ends within the handshake. */
static void serve_plain(struct raw_server *s, int fd)
{
    char byte;
    if (recv(fd, &byte, 1, 0) == 1 && s->script != NULL) {
        (void)raw_puts(fd, "HTTP/1.1 400 Bad Request\r\n\r\n");
    }
}

static void no_tls_there(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct raw_server *server = raw_server_start(serve_plain, i == 0 ? "x" : NULL);
        struct load l;
        tls_load(&l, server, "127.0.0.1", good.path, 1, 1);
        assert_int_equal(load_connect(&l), STATUS_UNREACHABLE);
        assert_contains(l.err.message, i == 0 ? "TLS: " : "during the TLS handshake");
        load_deinit(&l);
        raw_server_stop(server);
    }
    struct raw_server *server = raw_server_start(serve_plain, NULL);
    struct load l;
    struct error err = ERROR_INIT;
    tls_load(&l, server, "127.0.0.1", "/no/such/file", 1, 1);
    assert_status(remote_create(&l.config, &l.client, &err), STATUS_USAGE);
    assert_contains(err.message, "/no/such/file: not a file of PEM certificates");
    load_deinit(&l);
    raw_server_stop(server);
}

/* ---- what a server says of itself ---- */

struct page {
    const char *path;
    const char *answer; /* whole */
};

#define NOT_FOUND  "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
#define PAGE(body) "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" body

static void serve_page_and_close(struct raw_server *s, int fd)
{
    char request[4096];
    size_t len;
    if (raw_read_request_into(fd, request, sizeof request, &len)) {
        const struct page *p = s->script;
        for (; p->path != NULL; p++) {
            char line[128];
            (void)snprintf(line, sizeof line, "GET %s HTTP/1.1\r\n", p->path);
            if (strncmp(request, line, strlen(line)) == 0) {
                break;
            }
        }
        (void)raw_puts(fd, p->answer);
    }
}

static enum status identify(const struct page *pages, const char *path, const char *model,
                            struct remote_identity *out, struct error *err)
{
    struct raw_server *server = raw_server_start(serve_page_and_close, pages);
    struct remote_config config = {.url = {.host = "127.0.0.1", .port = server->port},
                                   .connections = 1};
    (void)snprintf(config.url.path, sizeof config.url.path, "%s", path);
    enum status s = remote_identify(&config, model, out, err);
    raw_server_stop(server);
    return s;
}

static void identifies(void **state)
{
    (void)state;
    struct remote_identity id;
    struct error err = ERROR_INIT;
    const struct page vllm[] = {
        {"/p/v1/models", PAGE("{\"data\":[{\"id\":\"a\"},{\"id\":\"b\",\"max_model_len\":1024}]}")},
        {"/p/version", PAGE("{\"version\":\"0.32.0\"}")},
        {"/p/metrics", PAGE("# HELP vllm:cache_config_info x\nvllm:x 1\n"
                            "vllm:cache_config_info{block_size=\"16\",odd=\"a}\\\"b,c\"} 1.0\n")},
        {NULL, NOT_FOUND},
    };
    assert_ok(identify(vllm, "/p/v1/completions", "b", &id, &err));
    assert_string_equal(id.model, "b");
    assert_int_equal(id.n_models, 2);
    assert_int_equal(id.max_model_len, 1024);
    assert_string_equal(id.version, "0.32.0");
    assert_string_equal(id.cache_config, "block_size=\"16\",odd=\"a}\\\"b,c\"");
    assert_ok(identify(vllm, "/p/v1/chat/completions", NULL, &id, &err));
    assert_string_equal(id.model, "a");
    assert_int_equal(id.max_model_len, 0);

    const struct page least[] = {{"/v1/models", PAGE("{\"data\":[{\"id\":\"m\"}]}")},
                                 {NULL, NOT_FOUND}};
    assert_ok(identify(least, "/v1/completions", "m", &id, &err));
    assert_string_equal(id.version, "");
    assert_string_equal(id.cache_config, "");
    assert_int_equal(id.n_models, 1);
}

static void does_not_identify(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        const char *model;
        enum status status;
        const char *says;
    } rows[] = {
        {PAGE("{\"data\":[{\"id\":\"a\"},{\"id\":\"b\"}]}"), "c", STATUS_USAGE,
         "model 'c' is not served; served: a, b"},
        {PAGE("{\"data\":[]}"), NULL, STATUS_UNREACHABLE, "serves no model"},
        {PAGE("{\"data\":[]}"), "c", STATUS_USAGE, "served: none"},
        {PAGE("{\"data\":[{\"id\":1}]}"), NULL, STATUS_UNREACHABLE, "list of models"},
        {PAGE("<html>"), NULL, STATUS_UNREACHABLE, "list of models"},
        {PAGE(""), NULL, STATUS_UNREACHABLE, "list of models"},
        {"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", NULL, STATUS_USAGE,
         "--api-key-file or OPENAI_API_KEY"},
        {"HTTP/1.1 503 X\r\nContent-Length: 7\r\n\r\nloading", NULL, STATUS_UNREACHABLE,
         "HTTP 503: loading"},
        {NOT_FOUND, NULL, STATUS_UNREACHABLE, "HTTP 404"},
        {"SSH-2.0-x\r\n", NULL, STATUS_UNREACHABLE, "/v1/models: "},
        {"", NULL, STATUS_UNREACHABLE, "/v1/models: "},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct page pages[] = {{"/v1/models", rows[i].answer}, {NULL, NOT_FOUND}};
        struct remote_identity id = {.n_models = 77};
        struct error err = ERROR_INIT;
        assert_status(identify(pages, "/v1/completions", rows[i].model, &id, &err), rows[i].status);
        assert_contains(err.message, rows[i].says);
        assert_int_equal(id.n_models, 77);
    }
}

static void long_labels_are_cut_whole(void **state)
{
    (void)state;
    struct strbuf answer = {0};
    struct remote_identity id;
    struct error err = ERROR_INIT;
    strbuf_puts(&answer, PAGE("vllm:cache_config_info{"));
    for (int i = 0; i < 200; i++) {
        strbuf_printf(&answer, "%sl%03d=\"%d\"", i == 0 ? "" : ",", i, i % 10);
    }
    strbuf_puts(&answer, "} 1\n");
    const struct page pages[] = {{"/v1/models", PAGE("{\"data\":[{\"id\":\"m\"}]}")},
                                 {"/metrics", answer.data},
                                 {NULL, NOT_FOUND}};
    assert_ok(identify(pages, "/v1/completions", NULL, &id, &err));
    size_t len = strlen(id.cache_config);
    assert_true(len > sizeof id.cache_config - 12);
    assert_int_equal(id.cache_config[len - 1], '"');
    strbuf_deinit(&answer);
}

/* The same certificates hold for these requests. */
static void serve_models_over_tls(struct raw_server *s, int fd)
{
    const struct tls_script *script = s->script;
    char request[4096];
    SSL *ssl = SSL_new(script->context);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1) {
        abort();
    }
    if (SSL_accept(ssl) == 1 && SSL_read(ssl, request, sizeof request) > 0) {
        (void)tls_puts(ssl, PAGE("{\"data\":[{\"id\":\"m\"}]}"));
        (void)SSL_shutdown(ssl);
    }
    ERR_clear_error();
    SSL_free(ssl);
}

static void identifies_over_tls(void **state)
{
    (void)state;
    struct tls_script script = {.context = server_context(&good, TLS1_3_VERSION)};
    struct raw_server *server = raw_server_start(serve_models_over_tls, &script);
    struct remote_identity id;
    struct error err = ERROR_INIT;
    struct remote_config config = {
        .url = {.tls = true, .host = "localhost", .port = server->port, .path = "/v1/completions"},
        .connections = 1,
        .ca_file = good.path};
    assert_ok(remote_identify(&config, NULL, &id, &err));
    assert_string_equal(id.model, "m");
    config.ca_file = other.path;
    assert_status(remote_identify(&config, NULL, &id, &err), STATUS_UNREACHABLE);
    assert_contains(err.message, "certificate");
    raw_server_stop(server);
    SSL_CTX_free(script.context);
}

static int set_up(void **state)
{
    (void)state;
    identity_make(&good, "DNS:localhost,IP:127.0.0.1", -60);
    identity_make(&other, "DNS:example.test", -60);
    identity_make(&late, "DNS:localhost", 1800);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    identity_free(&good);
    identity_free(&other);
    identity_free(&late);
    return 0;
}

int main(void)
{
    (void)signal(SIGPIPE, SIG_IGN); /* SSL_write of the server below */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_over_tls),
        cmocka_unit_test(closed_over_tls),
        cmocka_unit_test(certificates_are_verified),
        cmocka_unit_test(no_tls_there),
        cmocka_unit_test(identifies),
        cmocka_unit_test(does_not_identify),
        cmocka_unit_test(long_labels_are_cut_whole),
        cmocka_unit_test(identifies_over_tls),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
