/* What a row over HTTP asks for and reads: labels and endpoints, bodies, names of models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "bench/remote_row.h"
#include "bench/scheduler_spec.h"

static void test_spec(void **state)
{
    (void)state;
    static const struct {
        const char *text, *label, *endpoint;
    } cases[] = {
        {"vllm", "vllm", ""},
        {"remote=vllm", "remote", ""},
        {"vllm:endpoint=http://h:8000/v1/completions", "vllm", "http://h:8000/v1/completions"},
        {"a=vllm:endpoint=https://[::1]:1/x=y:z", "a", "https://[::1]:1/x=y:z"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct scheduler_spec spec;
        struct error err = ERROR_INIT;
        if (scheduler_spec_parse(cases[i].text, &spec, &err) != STATUS_OK) {
            fail_msg("%s: %s", cases[i].text, err.message);
        }
        assert_true(scheduler_spec_is_remote(&spec));
        assert_string_equal(spec.label, cases[i].label);
        assert_string_equal(spec.endpoint, cases[i].endpoint);
        assert_string_equal(scheduler_spec_kind(&spec), "vllm");
        assert_int_equal(scheduler_spec_check(&spec, 1, &err), STATUS_OK);
    }
    char longest[SCHEDULER_ENDPOINT_MAX + 32];
    for (int over = 0; over < 2; over++) {
        strcpy(longest, "vllm:endpoint=");
        size_t n = SCHEDULER_ENDPOINT_MAX - 1 + (size_t)over;
        memset(longest + strlen(longest), 'x', n);
        longest[strlen("vllm:endpoint=") + n] = '\0';
        struct scheduler_spec spec;
        assert_int_equal(scheduler_spec_parse(longest, &spec, NULL),
                         over ? STATUS_USAGE : STATUS_OK);
    }
}

static void test_bad_spec(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "vllm:", "vllm:endpoint", "vllm:endpoint=", "vllm:batch_size=3", "=vllm", "vlm"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct scheduler_spec spec;
        struct error err = ERROR_INIT;
        if (scheduler_spec_parse(cases[i], &spec, &err) != STATUS_USAGE) {
            fail_msg("%s is taken", cases[i]);
        }
        assert_true(err.message[0] != '\0');
    }
}

static void test_set(void **state)
{
    (void)state;
    struct scheduler_spec specs[3];
    assert_int_equal(scheduler_spec_parse("a=vllm", &specs[0], NULL), STATUS_OK);
    assert_int_equal(scheduler_spec_parse("b=vllm", &specs[1], NULL), STATUS_OK);
    assert_int_equal(scheduler_spec_parse("naive", &specs[2], NULL), STATUS_OK);
    assert_int_equal(scheduler_spec_set(specs, 3, "vllm.endpoint=http://x.y:1", NULL), STATUS_OK);
    assert_int_equal(scheduler_spec_set(specs, 3, "b.endpoint=http://z", NULL), STATUS_OK);
    assert_string_equal(specs[0].endpoint, "http://x.y:1");
    assert_string_equal(specs[1].endpoint, "http://z");
    assert_int_equal(scheduler_spec_set(specs, 3, "a.batch_size=3", NULL), STATUS_USAGE);
    assert_int_equal(scheduler_spec_set(specs, 3, "naive.endpoint=http://z", NULL), STATUS_USAGE);
}

static json_t *body_of(const struct remote_row *row, const struct request *request,
                       const char *prompt, size_t len)
{
    struct strbuf text = {0};
    remote_body(row, request, prompt, len, &text);
    json_error_t why;
    json_t *object = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, &why);
    if (object == NULL) {
        fail_msg("%s: %s", why.text, text.data);
    }
    strbuf_deinit(&text);
    return object;
}

static void test_body(void **state)
{
    (void)state;
    struct remote_row row = {.identity = {.model = "a \"b\""}};
    struct request request = {.max_new_tokens = 7,
                              .sample_key = INT64_MAX,
                              .sampling = {.temperature = 0.7F, .top_k = 50, .top_p = 0.95F},
                              .ignore_eos = true};
    json_t *b = body_of(&row, &request, "x\"\n\xFF\xC3\xA9", 6);
    assert_string_equal(json_string_value(json_object_get(b, "model")), "a \"b\"");
    assert_string_equal(json_string_value(json_object_get(b, "prompt")),
                        "x\"\n\xEF\xBF\xBD\xC3\xA9");
    assert_int_equal(json_integer_value(json_object_get(b, "max_tokens")), 7);
    assert_true(json_real_value(json_object_get(b, "temperature")) == 0.7);
    assert_true(json_real_value(json_object_get(b, "top_p")) == 0.95);
    assert_int_equal(json_integer_value(json_object_get(b, "top_k")), 50);
    assert_int_equal(json_integer_value(json_object_get(b, "seed")), INT64_MAX);
    assert_true(json_is_true(json_object_get(b, "ignore_eos")));
    assert_true(json_is_true(json_object_get(b, "stream")));
    assert_true(json_is_true(json_object_get(b, "return_token_ids")));
    assert_true(
        json_is_true(json_object_get(json_object_get(b, "stream_options"), "include_usage")));
    json_decref(b);
    row.refused = CALL_TOP_K | CALL_SEED | CALL_IGNORE_EOS | CALL_STREAM_OPTIONS | CALL_TOKEN_IDS;
    b = body_of(&row, &request, "x", 1);
    assert_int_equal(json_object_size(b), 6);
    json_decref(b);
    row.refused = 0;
    request.sampling.top_k = 0; /* off */
    request.sampling.temperature = 0.0F;
    request.ignore_eos = false;
    b = body_of(&row, &request, "", 0);
    assert_null(json_object_get(b, "top_k"));
    assert_null(json_object_get(b, "ignore_eos"));
    assert_true(json_number_value(json_object_get(b, "temperature")) == 0.0);
    json_decref(b);
}

static void test_fields(void **state)
{
    (void)state;
    static const struct {
        const char *message;
        unsigned fields;
        const char *names;
    } cases[] = {
        {"", 0, ""},
        {"Unrecognized request argument supplied: top_k", CALL_TOP_K, "top_k"},
        {"[{'loc': ('body', 'ignore_eos')}, {'loc': ('body', 'seed')}]",
         CALL_IGNORE_EOS | CALL_SEED, "seed, ignore_eos"},
        {"stream_options: extra", CALL_STREAM_OPTIONS, "stream_options"},
        {"return_token_ids: extra", CALL_TOKEN_IDS, "return_token_ids"},
        {"model is too hot", 0, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(remote_fields_named(cases[i].message), cases[i].fields);
        struct strbuf text = {0};
        remote_fields_print(cases[i].fields, &text);
        assert_string_equal(strbuf_text(&text), cases[i].names);
        strbuf_deinit(&text);
    }
}

static void test_same_model(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool same;
    } cases[] = {
        {"gpt2", "gpt2", true},
        {"HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct", true},
        {"smollm2-135m-instruct", "/models/SmolLM2-135M-Instruct/", true},
        {"models/a.gguf", "a", true},
        {"gpt2", "gpt2-medium", false},
        {"org/gpt2", "gpt2/x", false},
        {"", "", false},
        {"/", "/", false},
        {".gguf", ".gguf", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (remote_same_model(cases[i].a, cases[i].b) != cases[i].same ||
            remote_same_model(cases[i].b, cases[i].a) != cases[i].same) {
            fail_msg("%s and %s", cases[i].a, cases[i].b);
        }
    }
}

static void test_dtype(void **state)
{
    (void)state;
    static const struct {
        const char *config, *dtype; /* NULL: not said */
    } cases[] = {
        {"", NULL},
        {"block_size=\"16\",cache_dtype=\"float16\"", NULL},
        {"cache_dtype=\"auto\",dtype=\"torch.bfloat16\"", "bf16"},
        {"dtype=\"float32\",x=\"1\"", "f32"},
        {"dtype=\"half\"", "f16"},
        {"dtype=\"auto\"", NULL},
        {"dtype=\"\"", NULL},
        {"dtype=\"fp8_e4m3\"", "fp8_e4m3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char out[16] = "?";
        bool said = remote_dtype(cases[i].config, out, sizeof out);
        if (said != (cases[i].dtype != NULL) || (said && strcmp(out, cases[i].dtype) != 0)) {
            fail_msg("%s: %s", cases[i].config, out);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spec),   cmocka_unit_test(test_bad_spec),
        cmocka_unit_test(test_set),    cmocka_unit_test(test_body),
        cmocka_unit_test(test_fields), cmocka_unit_test(test_same_model),
        cmocka_unit_test(test_dtype),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
