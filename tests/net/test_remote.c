/* The client against a server that sends exactly these bytes: outcomes, ends, connections. */
#include "remote_test.h"

/* ---- URLs ---- */

static void urls(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *printed; /* NULL: refused */
        const char *says;
    } rows[] = {
        {"http://localhost:8000/v1/completions", "http://localhost:8000/v1/completions", ""},
        {"http://localhost", "http://localhost/v1/completions", ""},
        {"http://localhost:80/", "http://localhost/v1/completions", ""},
        {"https://h:443/v1", "https://h/v1/completions", ""},
        {"https://h/proxy/v1/", "https://h/proxy/v1/completions", ""},
        {"HTTPS://a-b.c_d:8443/x/y", "https://a-b.c_d:8443/x/y", ""},
        {"http://h/v1/chat/completions", "http://h/v1/chat/completions", ""},
        {"http://0.0.0.0:8000", "http://127.0.0.1:8000/v1/completions", ""},
        {"http://[::]:1", "http://[::1]:1/v1/completions", ""},
        {"http://[::1]", "http://[::1]/v1/completions", ""},
        {"http://h:65535/v1", "http://h:65535/v1/completions", ""},
        {"", NULL, "http://localhost:8000"},
        {"localhost:8000", NULL, "http:// or https://"},
        {"ftp://h", NULL, "http:// or https://"},
        {"http://", NULL, "no host"},
        {"http://:8000", NULL, "no host"},
        {"http:///v1", NULL, "no host"},
        {"http://h:0", NULL, "1 to 65535"},
        {"http://h:65536", NULL, "1 to 65535"},
        {"http://h:", NULL, "1 to 65535"},
        {"http://h:80x", NULL, "1 to 65535"},
        {"http://h:000080", NULL, "1 to 65535"},
        {"http://[::1]8000", NULL, "1 to 65535"},
        {"http://::1:8000", NULL, "no host"},
        {"http://[::1", NULL, "'[' without ']'"},
        {"http://[h]", NULL, "no IPv6 address"},
        {"http://h st", NULL, "no host name"},
        {"http://h\xC3\xA9", NULL, "no host name"},
        {"http://me:secret@h", NULL, "no user"},
        {"http://h/v1?a=b", NULL, "without query"},
        {"http://h?a", NULL, "without query"},
        {"http://h/v1#a", NULL, "without query"},
        {"http://h/a b", NULL, "spaces"},
        {"http://h/a\r\nX: y", NULL, "spaces"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct remote_url u;
        struct error err = ERROR_INIT;
        enum status s = remote_url_parse(rows[i].text, &u, &err);
        if (rows[i].printed == NULL) {
            assert_int_equal(s, STATUS_USAGE);
            assert_contains(err.message, rows[i].says);
            continue;
        }
        assert_ok(s);
        struct strbuf printed = {0};
        remote_url_print(&u, u.path, &printed);
        assert_string_equal(strbuf_text(&printed), rows[i].printed);
        strbuf_deinit(&printed);
    }
}

/* ---- one answer ---- */

enum end { END_KEEP, END_CLOSE, END_RESET, END_HANG };

struct script {
    const char *name;
    const char *bytes;
    enum end end;
    enum remote_fault fault;
    uint16_t http_status;
    uint32_t n_events;
    uint32_t tokens;
    const char *text;
    const char *says; /* within the error */
};

static void serve_script(struct raw_server *s, int fd)
{
    const struct script *script = s->script;
    while (raw_read_request(s, fd) && raw_puts(fd, script->bytes)) {
        if (script->end == END_RESET) {
            raw_sleep_ms(20); /* a RST may overtake bytes that were not read */
            raw_reset(fd);
            return;
        }
        if (script->end == END_CLOSE) {
            return;
        }
    }
}

#define SSE_HEAD   "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
#define CLOSE_HEAD SSE_HEAD "\r\n"
#define EVENT_AB   "data: {\"choices\":[{\"text\":\"ab\",\"finish_reason\":null}]}\n\n"
#define EVENT_STOP "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\n"
#define EVENT_USAGE                                                                                \
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}\n\n"
#define DONE "data: [DONE]\n\n"
#define JSON_HEAD(n)                                                                               \
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " n "\r\n\r\n"

static const struct script scripts[] = {
    {"until close", CLOSE_HEAD EVENT_AB EVENT_STOP DONE, END_CLOSE, REMOTE_FAULT_NONE, 200, 1, 1,
     "ab", ""},
    {"reset behind [DONE]", CLOSE_HEAD EVENT_AB EVENT_STOP EVENT_USAGE DONE, END_RESET,
     REMOTE_FAULT_NONE, 200, 1, 5, "ab", ""},
    {"chunked, closed behind [DONE]", HEAD_OK "38\r\n" EVENT_STOP "\r\ne\r\n" DONE "\r\n",
     END_CLOSE, REMOTE_FAULT_NONE, 200, 0, 0, "", ""},
    {"whole JSON",
     JSON_HEAD("83") "{\"choices\":[{\"text\":\"abc\",\"finish_reason\":\"stop\"}],"
                     "\"usage\":{\"completion_tokens\":3}}",
     END_KEEP, REMOTE_FAULT_NONE, 200, 1, 3, "abc", ""},
    {"closed before an answer", "", END_CLOSE, REMOTE_FAULT_CUT, 0, 0, 0, "", "before an answer"},
    {"reset before an answer", "", END_RESET, REMOTE_FAULT_CUT, 0, 0, 0, "", "reset"},
    {"closed within the head", "HTTP/1.1 200 OK\r\nConte", END_CLOSE, REMOTE_FAULT_CUT, 0, 0, 0, "",
     "within the head"},
    {"closed within the stream", CLOSE_HEAD EVENT_AB EVENT_AB, END_CLOSE, REMOTE_FAULT_CUT, 200, 2,
     2, "abab", ""},
    {"reset within the stream", HEAD_OK "38\r\n" EVENT_AB, END_RESET, REMOTE_FAULT_CUT, 200, 1, 1,
     "ab", "reset by the server after 1 events"},
    {"[DONE] without a finish_reason", CLOSE_HEAD EVENT_AB DONE, END_CLOSE, REMOTE_FAULT_CUT, 200,
     1, 1, "ab", "without a finish_reason"},
    {"finish_reason without [DONE]", HEAD_OK "38\r\n" EVENT_STOP "\r\n" LAST_CHUNK, END_KEEP,
     REMOTE_FAULT_CUT, 200, 0, 0, "", "without [DONE]"},
    {"error event",
     CLOSE_HEAD EVENT_AB "data: {\"error\":{\"message\":\"out of memory\"}}\n\n" DONE, END_CLOSE,
     REMOTE_FAULT_SERVER, 200, 1, 1, "ab", "server error: out of memory"},
    {"finish_reason abort",
     CLOSE_HEAD "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"abort\"}]}\n\n" DONE,
     END_CLOSE, REMOTE_FAULT_SERVER, 200, 0, 0, "", "abort"},
    {"short output", CLOSE_HEAD EVENT_AB EVENT_STOP EVENT_USAGE DONE, END_CLOSE,
     REMOTE_FAULT_SHORT_OUTPUT, 200, 1, 5, "ab", "short output: 5 of 6 tokens (counted by usage)"},
    {"status with a message",
     "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n"
     "Content-Length: 34\r\n\r\n{\"error\":{\"message\":\"queue full\"}}",
     END_KEEP, REMOTE_FAULT_STATUS, 429, 0, 0, "", "status: HTTP 429: queue full"},
    {"status of a proxy", "HTTP/1.1 502 Bad\r\nContent-Length: 12\r\n\r\n<h1>no\n</h1>", END_KEEP,
     REMOTE_FAULT_STATUS, 502, 0, 0, "", "HTTP 502: <h1>no </h1>"},
    {"status, then cut", "HTTP/1.1 500 X\r\nContent-Length: 12\r\n\r\noops", END_CLOSE,
     REMOTE_FAULT_STATUS, 500, 0, 0, "", "HTTP 500: oops"},
    {"not HTTP", "SSH-2.0-OpenSSH_9.2\r\n", END_CLOSE, REMOTE_FAULT_PARSE, 0, 0, 0, "",
     "not a status line"},
    {"not a stream", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
     END_KEEP, REMOTE_FAULT_PARSE, 200, 0, 0, "", "\"text/html\" is neither"},
    {"not JSON", CLOSE_HEAD EVENT_AB "data: {\"choices\":\n\n", END_HANG, REMOTE_FAULT_PARSE, 200,
     1, 1, "ab", "not JSON"},
    {"bad chunk", HEAD_OK "xyz\r\n", END_HANG, REMOTE_FAULT_PARSE, 200, 0, 0, "", "chunk size"},
    {"no end", CLOSE_HEAD EVENT_AB, END_HANG, REMOTE_FAULT_TIMEOUT, 200, 1, 1, "ab",
     "timeout: not answered whole within 0.3 s"},
    {"no answer", "", END_HANG, REMOTE_FAULT_TIMEOUT, 0, 0, 0, "", "timeout"},
};

static void outcomes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        const struct script *row = &scripts[i];
        struct raw_server *server = raw_server_start(serve_script, row);
        struct load l;
        load_init(&l, server->port, 1, 1);
        l.calls[0].least_tokens = row->fault == REMOTE_FAULT_SHORT_OUTPUT ? 6 : 0;
        if (row->fault == REMOTE_FAULT_TIMEOUT) {
            l.config.request_timeout_ns = 300 * NS_PER_MS;
        }
        struct error err = ERROR_INIT;
        assert_ok(load_connect(&l));
        assert_ok(load_run(&l));
        const struct remote_answer *a = &l.answers[0];
        if (a->fault != row->fault || a->http_status != row->http_status ||
            a->n_events != row->n_events || a->output_tokens != row->tokens ||
            strcmp(strbuf_text(&a->text), row->text) != 0 || strstr(a->error, row->says) == NULL) {
            fail_msg("%s: %s %u %u %u '%s' \"%s\"", row->name, remote_fault_name(a->fault),
                     a->http_status, a->n_events, a->output_tokens, strbuf_text(&a->text),
                     a->error);
        }
        assert_int_equal(a->send_end_ns != TIME_NEVER, 1);
        load_deinit(&l);
        raw_server_stop(server);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls),
        cmocka_unit_test(outcomes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
