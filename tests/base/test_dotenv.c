/* test_dotenv.c - .env texts: rows of what is read and refused, each cut everywhere; limits. */
#include "test.h"

#include "base/dotenv.h"
#include "base/mem.h"
#include "base/strbuf.h"

struct row {
    const char *text;
    const char *expected; /* "NAME=value;" each, or "line N: part of the message" */
};

static const struct row rows[] = {
    {"", ""},
    {"\n\r\n  \t\n# A=1\n  # B=2", ""},
    {"A=1", "A=1;"},
    {"A=1\nB=2\n", "A=1;B=2;"},
    {"A=1\r\nB=2\r\n", "A=1;B=2;"},
    {"A=1\r", "A=1;"},
    {"\xEF\xBB\xBF"
     "A=1",
     "A=1;"},
    {"\xEF\xBB\xBF", ""},
    {"\xEF\xBB", "line 1: a name"},
    {"A=1\n\xEF\xBB\xBF"
     "B=1",
     "line 2: a name"},
    {"_a9=x", "_a9=x;"},
    {"  A =  1 2\t ", "A=1 2;"},
    {"A=", "A=;"},
    {"A=   ", "A=;"},
    {"A", "line 1: NAME=VALUE"},
    {"A 1", "line 1: NAME=VALUE"},
    {"A: 1", "line 1: NAME=VALUE"},
    {"=1", "line 1: a name"},
    {"9A=1", "line 1: a name"},
    {"A-B=1", "line 1: NAME=VALUE"},
    {"A.B=1", "line 1: NAME=VALUE"},
    {"\xC3\xA4=1", "line 1: a name"},
    {"A=\xC3\xA4", "A=\xC3\xA4;"},
    {"A=a=b==", "A=a=b==;"},
    {"A=1\nA=2\nB=3\nA=4", "A=4;B=3;"},
    /* export */
    {"export A=1", "A=1;"},
    {"export\t A=1", "A=1;"},
    {"export=1", "export=1;"},
    {"export =1", "export=1;"},
    {"exportA=1", "exportA=1;"},
    {"export", "line 1: NAME=VALUE"},
    {"export A", "line 1: NAME=VALUE"},
    {"export 9=1", "line 1: a name"},
    /* comments */
    {"A=1 # c", "A=1;"},
    {"A=1\t#c", "A=1;"},
    {"A=1#c", "A=1#c;"},
    {"A=#c", "A=#c;"},
    {"A= #c", "A=;"},
    {"A=a#b #c # d", "A=a#b;"},
    {"A='1'#c", "A=1;"},
    {"A=\"1\"  # it's", "A=1;"},
    {"A=it's # it's", "A=it's;"},
    /* quotes */
    {"A=''", "A=;"},
    {"A=\"\"", "A=;"},
    {"A='a # b '", "A=a # b ;"},
    {"A='a\"b\\n$C\\'", "A=a\"b\\n$C\\;"},
    {"A=\" a\\\"b\\\\c\\$d \"", "A= a\"b\\c$d ;"},
    {"A=\"\\n\\r\\t\"", "A=\n\r\t;"},
    {"A=\"C:\\models\\x\\'\"", "A=C:\\models\\x\\';"},
    {"A=\"'\"", "A=';"},
    {"A='", "line 1: no closing quote"},
    {"A=\"", "line 1: no closing quote"},
    {"A=\"a\\\"", "line 1: no closing quote"},
    {"A=\"a\\", "line 1: no closing quote"},
    {"A=1\nB=\"a\nb\"\n", "line 2: no closing quote"},
    {"A='a'b", "line 1: text behind"},
    {"A='a' 'b'", "line 1: text behind"},
    {"A=a'b'", "A=a'b';"},
    /* nothing is substituted */
    {"A=$HOME/x", "A=$HOME/x;"},
    {"A=\"${HOME}`id`$(id)\"", "A=${HOME}`id`$(id);"},
    /* other files */
    {"A=1\n\n\x7f"
     "ELF",
     "line 3: a control character"},
    {"A=1\rB=2\n", "line 1: a control character"},
    {"A=\x1b[31m", "line 1: a control character"},
    {"# \x01", "line 1: a control character"},
};

static void show(const struct dotenv *d, struct strbuf *out)
{
    strbuf_clear(out);
    for (size_t i = 0; i < d->n; i++) {
        strbuf_printf(out, "%s=%s;", d->pairs[i].name, d->pairs[i].value);
    }
}

/* The n bytes in a block of their own size: ASan sees one byte too far. */
static enum status parse(const char *text, size_t n, struct dotenv *d, struct error *err)
{
    char *exact = malloc(n > 0 ? n : 1);
    assert_non_null(exact);
    memcpy(exact, text, n);
    enum status s = dotenv_parse(exact, n, ".env", d, err);
    free(exact);
    return s;
}

static void test_rows(void **state)
{
    (void)state;
    struct strbuf text = {0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        struct dotenv d;
        struct error err = ERROR_INIT;
        if (strncmp(r->expected, "line ", 5) == 0) {
            assert_status(parse(r->text, strlen(r->text), &d, &err), STATUS_BAD_DATA);
            assert_contains(err.message, r->expected);
            assert_int_equal(err.position, atoi(r->expected + 5));
            continue;
        }
        assert_ok(parse(r->text, strlen(r->text), &d, &err));
        show(&d, &text);
        assert_string_equal(strbuf_text(&text), r->expected);
        dotenv_deinit(&d);
    }
    strbuf_deinit(&text);
}

/* Cut anywhere it is read or refused, never read beyond its end. */
static void test_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t n = 0; n <= strlen(rows[i].text); n++) {
            struct dotenv d;
            struct error err = ERROR_INIT;
            if (parse(rows[i].text, n, &d, &err) == STATUS_OK) {
                dotenv_deinit(&d);
            } else {
                assert_int_equal(err.code, STATUS_BAD_DATA);
            }
        }
    }
}

static void test_nul(void **state)
{
    (void)state;
    struct dotenv d;
    struct error err = ERROR_INIT;
    assert_status(parse("A=1\0B=2", 7, &d, &err), STATUS_BAD_DATA);
    assert_contains(err.message, ".env line 1: a control character");
}

static void test_limits(void **state)
{
    (void)state;
    struct dotenv d;
    struct error err = ERROR_INIT;
    struct strbuf text = {0};
    for (unsigned i = 0; i < DOTENV_MAX_PAIRS; i++) {
        strbuf_printf(&text, "A%u=%u\n", i, i);
    }
    assert_ok(parse(text.data, text.len, &d, &err));
    assert_int_equal(d.n, DOTENV_MAX_PAIRS);
    assert_string_equal(d.pairs[255].value, "255");
    dotenv_deinit(&d);
    strbuf_puts(&text, "A7=again"); /* no new one */
    assert_ok(parse(text.data, text.len, &d, &err));
    assert_string_equal(d.pairs[7].value, "again");
    dotenv_deinit(&d);
    strbuf_puts(&text, "\nB=1");
    assert_status(parse(text.data, text.len, &d, &err), STATUS_BAD_DATA);
    assert_contains(err.message, "line 258: more variables than the limit of 256");

    strbuf_clear(&text);
    strbuf_puts(&text, "A=");
    while (text.len < DOTENV_MAX_BYTES) {
        strbuf_putc(&text, 'x');
    }
    assert_ok(parse(text.data, text.len, &d, &err));
    assert_int_equal(strlen(d.pairs[0].value), DOTENV_MAX_BYTES - 2);
    dotenv_deinit(&d);
    strbuf_putc(&text, 'x');
    assert_status(parse(text.data, text.len, &d, &err), STATUS_BAD_DATA);
    assert_contains(err.message, "65537 bytes, more than the limit of 65536");
    strbuf_deinit(&text);

    mem_fail_at(1, false);
    assert_status(parse("A=1", 3, &d, &err), STATUS_NO_MEMORY);
    mem_fail_at(0, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_nul),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
