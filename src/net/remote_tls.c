/*
 * remote_tls.c - TLS as a filter on memory: the client reads and writes the socket itself, so that
 * a read is stamped when it returns, before it is deciphered.
 *
 * OpenSSL allocates with its own allocator. Versions 1.2 and 1.3; chain and host name are verified
 * (RFC 6125), there is no switch to turn that off.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "net/remote_int.h"

/* The reason of the oldest error in the queue, which is emptied; text if there is none. */
static void take_reason(char *why, size_t cap, const char *text)
{
    unsigned long code = ERR_get_error();
    const char *reason = code == 0 ? NULL : ERR_reason_error_string(code);
    (void)snprintf(why, cap, "%s", reason == NULL ? text : reason);
    ERR_clear_error();
}

enum status remote_tls_context(const char *ca_file, SSL_CTX **out, struct error *err)
{
    char why[160];
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1) {
        SSL_CTX_free(context);
        take_reason(why, sizeof why, "no reason given");
        return error_set(err, STATUS_INTERNAL, -1, "OpenSSL does not start: %s", why);
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    int ok = ca_file == NULL ? SSL_CTX_set_default_verify_paths(context)
                             : SSL_CTX_load_verify_file(context, ca_file);
    if (ok != 1) {
        SSL_CTX_free(context);
        take_reason(why, sizeof why, "no certificate in it");
        return error_set(err, STATUS_USAGE, -1, "%s: not a file of PEM certificates: %s",
                         ca_file == NULL ? "the system's certificates" : ca_file, why);
    }
    *out = context;
    return STATUS_OK;
}

SSL *remote_tls_open(SSL_CTX *context, const char *host)
{
    SSL *ssl = SSL_new(context);
    BIO *in = BIO_new(BIO_s_mem());
    BIO *out = BIO_new(BIO_s_mem());
    if (ssl == NULL || in == NULL || out == NULL) {
        SSL_free(ssl);
        BIO_free(in);
        BIO_free(out);
        return NULL;
    }
    BIO_set_mem_eof_return(in, -1); /* empty means: more is to come */
    SSL_set_bio(ssl, in, out);      /* they are ssl's now */
    SSL_set_connect_state(ssl);
    unsigned char address[sizeof(struct in6_addr)];
    bool is_address =
        inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    int ok = is_address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host)
                        : SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
    if (ok != 1) {
        SSL_free(ssl);
        return NULL;
    }
    return ssl;
}

bool remote_tls_put(SSL *ssl, const char *bytes, size_t n)
{
    size_t written;
    return BIO_write_ex(SSL_get_rbio(ssl), bytes, n, &written) == 1 && written == n;
}

static enum remote_tls_step judge(SSL *ssl, int result, char *why, size_t cap)
{
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return REMOTE_TLS_MORE;
    case SSL_ERROR_ZERO_RETURN:
        (void)snprintf(why, cap, "closed by the server");
        return REMOTE_TLS_CLOSED;
    default:
        break;
    }
    long verdict = SSL_get_verify_result(ssl);
    if (verdict != X509_V_OK) {
        (void)snprintf(why, cap, "certificate: %s", X509_verify_cert_error_string(verdict));
        ERR_clear_error();
    } else {
        char reason[120];
        take_reason(reason, sizeof reason, "broken off");
        (void)snprintf(why, cap, "TLS: %s", reason);
    }
    return REMOTE_TLS_CLOSED;
}

enum remote_tls_step remote_tls_handshake(SSL *ssl, char *why, size_t why_cap)
{
    ERR_clear_error();
    int result = SSL_do_handshake(ssl);
    return result == 1 ? REMOTE_TLS_DONE : judge(ssl, result, why, why_cap);
}

enum remote_tls_step remote_tls_read(SSL *ssl, char *out, size_t cap, size_t *n, char *why,
                                     size_t why_cap)
{
    ERR_clear_error();
    int result = SSL_read_ex(ssl, out, cap, n);
    return result == 1 ? REMOTE_TLS_DONE : judge(ssl, result, why, why_cap);
}

bool remote_tls_write(SSL *ssl, const void *bytes, size_t n)
{
    size_t written;
    ERR_clear_error();
    return n == 0 || SSL_write_ex(ssl, bytes, n, &written) == 1;
}

size_t remote_tls_pending(SSL *ssl, size_t from, const char **bytes)
{
    char *data = NULL;
    long n = BIO_get_mem_data(SSL_get_wbio(ssl), &data);
    if (n <= 0 || from >= (size_t)n) {
        return 0;
    }
    *bytes = data + from;
    return (size_t)n - from;
}

void remote_tls_sent(SSL *ssl)
{
    (void)BIO_reset(SSL_get_wbio(ssl));
}
