/*
 * test_chat_template.c - where templates are found, limits, errors and memory. What is rendered is
 * held against jinja2 by test_chat_oracle.py; the few expected prompts here run without it.
 */
#include "test.h"

#include "base/mem.h"
#include "model/chat_template.h"
#include "model/jinja_int.h"
#include "model/model_builders.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* Marked as ChatML without writing anything. */
#define MARKS "{% if false %}<|im_start|><|im_end|>{% endif %}"
#define PLAIN                                                                                      \
    "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}"        \
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
#define PLAIN_JSON                                                                                 \
    "\"{% for m in messages %}{{ bos_token }}{{ m.content }}<|im_start|><|im_end|>{{ eos_token }}" \
    "{% endfor %}\""

static const struct chat_message chat[] = {
    {CHAT_SYSTEM, "s", 1}, {CHAT_USER, "u", 1}, {CHAT_ASSISTANT, "a", 1}, {CHAT_USER, "v\0w", 3}};

static struct chat_template *from(const char *text)
{
    struct error err = ERROR_INIT;
    struct chat_template *t = NULL;
    assert_ok(chat_template_from_text(text, strlen(text), "<s>", "</s>", &t, &err));
    return t;
}

static void expect(const struct chat_template *t, size_t n, bool generate, const char *expected,
                   size_t len)
{
    struct error err = ERROR_INIT;
    struct strbuf out = {0};
    strbuf_puts(&out, "before ");
    assert_ok(chat_template_render(t, chat, n, generate, &out, &err));
    if (out.len != len + 7 || memcmp(out.data, "before ", 7) != 0 ||
        memcmp(out.data + 7, expected, len) != 0) {
        fail_msg("got \"%s\", expected \"%s\"", strbuf_text(&out) + 7, expected);
    }
    strbuf_deinit(&out);
}

static void test_render(void **state)
{
    (void)state;
    static const char whole[] = "<|im_start|>system:s<|im_end|><|im_start|>user:u<|im_end|>"
                                "<|im_start|>assistant:a<|im_end|><|im_start|>user:v\0w<|im_end|>";
    struct chat_template *t = from(PLAIN);
    assert_string_equal(chat_template_name(t), "chatml");
    expect(t, 4, false, whole, sizeof whole - 1);
    expect(t, 1, true, "<|im_start|>system:s<|im_end|><|im_start|>", 42);
    chat_template_close(t);
    chat_template_close(NULL);
}

static void test_order_of_roles(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    struct strbuf out = {0};
    struct chat_template *t = from(MARKS "{% for m in messages %}{{ m.content }}"
                                         "{% if m.role == 'assistant' %}"
                                         "{{ raise_exception('no answers') }}{% endif %}"
                                         "{% endfor %}{{ messages[0].content }}");
    strbuf_puts(&out, "kept");
    assert_status(chat_template_render(t, chat, 4, true, &out, &err), STATUS_USAGE);
    assert_contains(err.message, "message 3");
    assert_contains(err.message, "no answers");
    assert_status(chat_template_render(t, chat, 0, true, &out, &err), STATUS_USAGE);
    assert_contains(err.message, "at least one message");
    assert_string_equal(strbuf_text(&out), "kept");
    chat_template_close(t);
    t = from(MARKS "{{ messages[1].content }}");
    assert_status(chat_template_render(t, chat, 1, true, &out, &err), STATUS_USAGE);
    assert_contains(err.message, "more messages than these 1");
    chat_template_close(t);
    t = from(MARKS "{% if messages[0].role == 'system' %}{{ raise_exception('no rules') }}"
                   "{% endif %}");
    assert_status(chat_template_render(t, chat, 2, true, &out, &err), STATUS_USAGE);
    assert_contains(err.message, "these messages: no rules");
    chat_template_close(t);
    strbuf_deinit(&out);
}

static void refused(const char *text, size_t len, const char *why)
{
    struct error err = ERROR_INIT;
    struct chat_template *t = NULL;
    assert_status(chat_template_from_text(text, len, "<s>", "</s>", &t, &err), STATUS_UNSUPPORTED);
    assert_contains(err.message, "not one of ChatML");
    assert_contains(err.message, why);
    assert_null(t);
}

static void test_limits(void **state)
{
    (void)state;
    struct strbuf text = {0};
    strbuf_puts(&text, MARKS);
    while (text.len < JINJA_MAX_BYTES) {
        strbuf_putc(&text, 'x');
    }
    struct error err = ERROR_INIT;
    struct chat_template *t = NULL;
    assert_ok(chat_template_from_text(text.data, text.len, "", "", &t, &err));
    chat_template_close(t);
    strbuf_putc(&text, 'x');
    refused(text.data, text.len, "64 KiB");
    refused("", 0, "marks");
    refused(MARKS "\xff", sizeof MARKS, "not UTF-8");
    refused(MARKS "{{ 1234567890 }}", sizeof MARKS + 15, "9 digits");

    /* Names: those given, and the rest. */
    for (uint32_t extra = 0; extra < 2; extra++) {
        strbuf_clear(&text);
        strbuf_puts(&text, MARKS);
        for (uint32_t i = 0; i < JINJA_MAX_NAMES - JINJA_GIVEN_COUNT + extra; i++) {
            strbuf_printf(&text, "{%% set n%u = 'x' %%}", i);
        }
        if (extra == 1) {
            refused(text.data, text.len, "64 names");
        } else {
            t = from(text.data);
            expect(t, 1, true, "", 0);
            chat_template_close(t);
        }
    }

    /* Doubled until it would not fit: a text held, a text written, a number. */
    static const char *const doubling[][3] = {
        {"{% set x = messages[0].content %}", "{% set x = x + x %}", ""},
        {"{% set x = '0123456789abcdef' %}", "{% set x = x ~ x %}", "{{ x }}"},
    };
    for (size_t i = 0; i < COUNT(doubling); i++) {
        strbuf_clear(&text);
        strbuf_puts(&text, MARKS);
        strbuf_puts(&text, doubling[i][0]);
        for (int k = 0; k < 40; k++) {
            strbuf_puts(&text, doubling[i][1]);
            strbuf_puts(&text, doubling[i][2]);
        }
        refused(text.data, text.len, "refuses every conversation");
    }
    strbuf_clear(&text);
    strbuf_puts(&text, MARKS "{% set x = 999999999 %}");
    for (int k = 0; k < 40; k++) {
        strbuf_puts(&text, "{% set x = x + x %}");
    }
    refused(text.data, text.len, "without bounds");
    strbuf_deinit(&text);
}

/* Cut anywhere, the template is refused or is another whole one; it never reads beyond its end. */
static void test_truncated(void **state)
{
    (void)state;
    static const char text[] =
        PLAIN "{#- c -#}{{ 'a\\n' | trim if not (1 % 2 == 0) else eos_token }}";
    for (size_t n = 0; n < sizeof text; n++) {
        struct error err = ERROR_INIT;
        struct chat_template *t = NULL;
        char *exact = malloc(n + 1);
        assert_non_null(exact);
        memcpy(exact, text, n);
        exact = realloc(exact, n > 0 ? n : 1);
        assert_non_null(exact);
        enum status st = chat_template_from_text(exact, n, "<s>", "</s>", &t, &err);
        assert_true(st == STATUS_OK || (st == STATUS_UNSUPPORTED && err.message[0] != '\0'));
        chat_template_close(t);
        free(exact);
    }
}

static void open_fails(const char *path, enum status expected, const char *why)
{
    struct error err = ERROR_INIT;
    struct chat_template *t = NULL;
    assert_status(chat_template_open(path, &t, &err), expected);
    assert_contains(err.message, why);
    assert_contains(err.message, path);
    assert_null(t);
}

static void open_gives(const char *path, const char *expected)
{
    struct error err = ERROR_INIT;
    struct chat_template *t = NULL;
    assert_ok(chat_template_open(path, &t, &err));
    expect(t, 1, false, expected, strlen(expected));
    chat_template_close(t);
}

static void put(const char *folder, const char *name, const char *text)
{
    write_file(folder, name, text, strlen(text));
}

static void test_folder(void **state)
{
    (void)state;
    char folder[256];
    make_folder(folder);
    open_fails(folder, STATUS_NOT_FOUND, "no chat template");
    open_fails("/nonexistent/model", STATUS_NOT_FOUND, "");
    put(folder, "tokenizer_config.json", "{\"chat_template\": null, \"bos_token\": \"<b>\"}");
    open_fails(folder, STATUS_NOT_FOUND, "no chat template");
    put(folder, "tokenizer_config.json", "{\"chat_template\": 3}");
    open_fails(folder, STATUS_UNSUPPORTED, "chat_template.jinja");
    put(folder, "tokenizer_config.json", "{");
    open_fails(folder, STATUS_BAD_MODEL, "tokenizer_config.json");
    put(folder, "tokenizer_config.json",
        "{\"chat_template\": " PLAIN_JSON ",\"bos_token\": \"<b>\"}");
    open_fails(folder, STATUS_UNSUPPORTED, "eos_token");
    put(folder, "special_tokens_map.json", "{\"eos_token\": {\"content\": \"<e>\"}}");
    open_gives(folder, "<b>s<|im_start|><|im_end|><e>");
    put(folder, "chat_template.jinja", "{{ eos_token }}" MARKS "\n");
    open_gives(folder, "<e>");
    put(folder, "chat_template.jinja", "{{ tools }}" MARKS);
    open_fails(folder, STATUS_UNSUPPORTED, "'tools'");
    remove_tree(folder);
}

static void put_gguf(const char *folder, const char *template, uint32_t eos)
{
    struct bytes b = {0};
    gguf_preamble(&b, 3, 0, 3 + (template != NULL));
    gguf_key_array(&b, "tokenizer.ggml.tokens", 8, 2);
    put_string(&b, "<b>");
    put_string(&b, "<e>");
    gguf_key_u32(&b, "tokenizer.ggml.bos_token_id", 0);
    gguf_key_u32(&b, "tokenizer.ggml.eos_token_id", eos);
    if (template != NULL) {
        gguf_key_string(&b, "tokenizer.chat_template", template);
    }
    put_padding(&b, 32);
    write_file(folder, "m.gguf", b.data, b.len);
    bytes_free(&b);
}

static void test_gguf(void **state)
{
    (void)state;
    char folder[256];
    char file[300];
    make_folder(folder);
    snprintf(file, sizeof file, "%s/m.gguf", folder);
    put_gguf(folder, "{{ bos_token }}{{ eos_token }}" MARKS, 1);
    open_gives(file, "<b><e>");
    open_gives(folder, "<b><e>");
    put_gguf(folder, "{{ bos_token }}{{ eos_token }}" MARKS, 2);
    open_fails(folder, STATUS_BAD_MODEL, "eos_token_id");
    put_gguf(folder, "{{ date_string }}" MARKS, 1);
    open_fails(file, STATUS_UNSUPPORTED, "'date_string'");
    put_gguf(folder, NULL, 1);
    open_fails(file, STATUS_NOT_FOUND, "no chat template");
    remove_tree(folder);
}

/* Refuses each allocation in turn: NO_MEMORY, nothing leaked (the sanitizers look), out as before.
 */
static void test_memory(void **state)
{
    (void)state;
    static const char text[] = PLAIN "{% set x = messages[0].content + 'y' %}{{ x ~ eos_token }}";
    struct error err = ERROR_INIT;
    struct strbuf out = {0};
    strbuf_puts(&out, "kept");
    enum status st = STATUS_NO_MEMORY;
    for (uint64_t n = 1; st == STATUS_NO_MEMORY; n++) {
        struct chat_template *t = NULL;
        mem_fail_at(n, false);
        st = chat_template_from_text(text, sizeof text - 1, "<s>", "</s>", &t, &err);
        st = st == STATUS_OK ? chat_template_render(t, chat, 3, true, &out, &err) : st;
        mem_fail_at(0, false);
        chat_template_close(t);
        assert_true(st == STATUS_OK || st == STATUS_NO_MEMORY);
        if (st != STATUS_OK) {
            assert_string_equal(strbuf_text(&out), "kept");
            strbuf_deinit(&out); /* a refusal would stay in it */
            strbuf_puts(&out, "kept");
        }
    }
    assert_contains(strbuf_text(&out), "sy</s>");
    strbuf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_render), cmocka_unit_test(test_order_of_roles),
        cmocka_unit_test(test_limits), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_folder), cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
