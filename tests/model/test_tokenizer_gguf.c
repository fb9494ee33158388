/*
 * test_tokenizer_gguf.c - tokenizers inside GGUF files: llama.cpp's vocabularies with its expected
 * ids, and the real SmolLM2. Files that are not at hand are skipped, and said so.
 */
#include "tokenizer_test.h"

static void expect_ids(const struct tokenizer *t, const char *text, size_t len, const char *wanted)
{
    struct strbuf got = {0};
    ids_as_text(t, text, len, false, &got);
    if (strcmp(strbuf_text(&got), wanted) != 0) {
        fail_msg("\"%.*s\":\n got    %s\n wanted %s", (int)len, text, strbuf_text(&got), wanted);
    }
    strbuf_deinit(&got);
}

/* Every string of NAME.gguf.inp against its line of NAME.gguf.out. */
static void check_vocabulary(const char *name)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    const char *env = getenv("LLMSCHED_TEST_TOKENIZERS");
    char *folder = env != NULL ? mem_strdup(env) : fs_join(SOURCE_DIR, "../shared/tokenizers");
    char *path = fs_join(folder, name);
    if (!fs_is_file(path)) {
        print_message("skipped: no %s (set LLMSCHED_TEST_TOKENIZERS to the folder that has it)\n",
                      path);
        mem_free(folder);
        mem_free(path);
        skip();
    }
    struct strbuf inp = {0};
    struct strbuf out = {0};
    strbuf_printf(&inp, "%s.inp", path);
    strbuf_printf(&out, "%s.out", path);
    struct tokenizer *t = open_or_fail(path);
    size_t len = 0;
    size_t out_len = 0;
    char *texts = slurp(inp.data, &len);
    char *ids = slurp(out.data, &out_len);
    const char *text = texts;
    uint32_t n = 0;
    for (char *line = ids; text != NULL; n++) {
        const char *end = strstr(text, mark);
        char *line_end = strchr(line, '\n');
        if (line_end != NULL) {
            *line_end = '\0';
        }
        size_t text_len = end != NULL ? (size_t)(end - text) : strlen(text);
        expect_ids(t, text, text_len, line[0] == ' ' ? line + 1 : line);
        text = end != NULL ? end + strlen(mark) : NULL;
        line = line_end != NULL ? line_end + 1 : line + strlen(line);
    }
    print_message("%s: %u strings agree with llama.cpp (%s)\n", name, n, tokenizer_describe(t));
    assert_int_equal(n, 47);
    tokenizer_close(t);
    strbuf_deinit(&inp);
    strbuf_deinit(&out);
    mem_free(texts);
    mem_free(ids);
    mem_free(folder);
    mem_free(path);
}

static void test_llama_cpp_gpt2(void **state)
{
    (void)state;
    check_vocabulary("ggml-vocab-gpt-2.gguf");
}

static void test_llama_cpp_spm(void **state)
{
    (void)state;
    check_vocabulary("ggml-vocab-llama-spm.gguf");
}

static void test_smollm2(void **state)
{
    (void)state;
    const char *env = getenv("LLMSCHED_TEST_MODEL");
    const char *path = env != NULL ? env : SOURCE_DIR "/models/SmolLM2-135M-Instruct";
    if (!fs_is_dir(path) && !fs_is_file(path)) {
        print_message("skipped: no %s (run `make model`, or set LLMSCHED_TEST_MODEL)\n", path);
        skip();
    }
    struct tokenizer *t = open_or_fail(path);
    static const char text[] = "The capital of France is";
    expect_ids(t, text, sizeof text - 1, "504 3575 282 4649 314");
    assert_int_equal(tokenizer_vocab_size(t), 49152);
    assert_int_equal(tokenizer_id_of(t, "<|im_start|>", 12), 1);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama_cpp_gpt2),
        cmocka_unit_test(test_llama_cpp_spm),
        cmocka_unit_test(test_smollm2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
