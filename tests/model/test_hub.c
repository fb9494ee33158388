/*
 * test_hub.c - the parts of the hub that need no server: names, look-up in fabricated folders, the
 * list of files, the choice, checksums. test_hub_pull.py has the rest.
 */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "model/hub_int.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

static char folder[PATH_MAX];

static const char *in_folder(const char *name)
{
    static char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* Makes the folders above name, then the file. */
static void put(const char *name, const char *text)
{
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s", in_folder(name));
    *strrchr(path, '/') = '\0';
    assert_int_equal(fs_make_dirs(path, NULL), STATUS_OK);
    assert_int_equal(fs_write_atomic(in_folder(name), text, strlen(text), NULL), STATUS_OK);
}

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test_hub.XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    char command[PATH_MAX + 16];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool id;
        bool name;
        bool revision;
    } cases[] = {
        {"gpt2", true, true, true},
        {"openai/gpt2", true, false, true},
        {"TinyLlama/TinyLlama-1.1B-Chat-v1.0", true, false, true},
        {"main", true, true, true},
        {"refs/pr/1", false, false, true},
        {"", false, false, false},
        {"/", false, false, false},
        {"a/", false, false, false},
        {"/a", false, false, false},
        {"a//b", false, false, false},
        {"a/b/c", false, false, true},
        {"..", false, false, false},
        {"a/..", false, false, false},
        {"../a", false, false, false},
        {"a..b", false, true, true},
        {".hidden", false, false, false},
        {"-flag", false, true, true},
        {"a--b", false, true, true},
        {"a b", false, true, true},
        {"a\\b", false, false, false},
        {"a\nb", false, false, false},
        {"a\x7f", false, false, false},
        {"g\xc3\xa9", false, true, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        print_message("'%s'\n", cases[i].text);
        assert_int_equal(hub_is_id(cases[i].text), cases[i].id);
        assert_int_equal(hub_is_plain_name(cases[i].text), cases[i].name);
        assert_int_equal(hub_is_revision(cases[i].text), cases[i].revision);
    }
    char text[HUB_MAX_NAME_BYTES + 2];
    memset(text, 'a', sizeof text);
    text[HUB_MAX_NAME_BYTES] = '\0';
    assert_true(hub_is_plain_name(text));
    assert_true(hub_is_id(text));
    text[HUB_MAX_NAME_BYTES] = 'a';
    text[HUB_MAX_NAME_BYTES + 1] = '\0';
    assert_false(hub_is_plain_name(text));
    assert_false(hub_is_id(text));
}

static void test_cache_root(void **state)
{
    (void)state;
    static const struct {
        struct hub_env env;
        const char *root; /* NULL: USAGE */
    } cases[] = {
        {{.hf_hub_cache = "/c", .hf_home = "/h", .home = "/u"}, "/c"},
        {{.hf_home = "/h", .xdg_cache_home = "/x", .home = "/u"}, "/h/hub"},
        {{.hf_home = "~/h", .home = "/u"}, "/u/h/hub"},
        {{.hf_hub_cache = "~/c", .home = "/u"}, "/u/c"},
        {{.xdg_cache_home = "/x", .home = "/u"}, "/x/huggingface/hub"},
        {{.home = "/u"}, "/u/.cache/huggingface/hub"},
        {{.hf_hub_cache = "", .hf_home = "", .xdg_cache_home = "", .home = "/u"},
         "/u/.cache/huggingface/hub"},
        {{.home = ""}, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *root = NULL;
        enum status s = hub_cache_root(&cases[i].env, &root, NULL);
        if (cases[i].root == NULL) {
            assert_int_equal(s, STATUS_USAGE);
            assert_null(root);
        } else {
            assert_int_equal(s, STATUS_OK);
            assert_string_equal(root, cases[i].root);
        }
        mem_free(root);
    }
}

static void expect_found(const char *model, const struct hub_env *env, const char *where)
{
    struct error err = ERROR_INIT;
    char *path = NULL;
    enum status s = hub_locate(model, env, &path, &err);
    if (s != STATUS_OK) {
        fail_msg("%s: %s", model, err.message);
    }
    assert_string_equal(path, where);
    mem_free(path);
}

static void expect_missing(const char *model, const struct hub_env *env, const char *words)
{
    struct error err = ERROR_INIT;
    char *path = NULL;
    assert_int_equal(hub_locate(model, env, &path, &err), STATUS_NOT_FOUND);
    assert_null(path);
    if (strstr(err.message, words) == NULL || strstr(err.message, "make model") == NULL ||
        strstr(err.message, "llmsched pull") == NULL) {
        fail_msg("'%s' is not in: %s", words, err.message);
    }
}

static void test_locate(void **state)
{
    (void)state;
    char models[2 * PATH_MAX];
    char cache[2 * PATH_MAX];
    snprintf(models, sizeof models, "%s", in_folder("models"));
    snprintf(cache, sizeof cache, "%s", in_folder("cache"));
    struct hub_env env = {.models_dir = models, .hf_hub_cache = cache};

    expect_missing("org/tiny", &env, "models--org--tiny");
    expect_missing("no/such/folder", &env, "no such folder");
    expect_missing("missing.gguf", &env, "no such folder");
    expect_missing("a/../b", &env, "no such folder");
    char *path = NULL;
    assert_int_equal(hub_locate("", &env, &path, NULL), STATUS_USAGE);

    /* As given. */
    put("plain/config.json", "{}");
    put("x.gguf", "GGUF");
    char given[2 * PATH_MAX];
    snprintf(given, sizeof given, "%s", in_folder("plain"));
    expect_found(given, &env, given);
    snprintf(given, sizeof given, "%s", in_folder("x.gguf"));
    expect_found(given, &env, given);

    /* The cache: an unfinished snapshot, one without a ref, then a whole one. */
    put("cache/models--org--tiny/snapshots/" COMMIT "/config.json", "{}");
    expect_missing("org/tiny", &env, "refs/main");
    put("cache/models--org--tiny/refs/main", COMMIT "\n");
    expect_missing("org/tiny", &env, "no whole model there");
    put("cache/models--org--tiny/.no_exist/" COMMIT "/config.json", "");
    expect_missing("org/tiny", &env, "the hub has no config.json");
    assert_int_equal(
        symlink("../../blobs/abc",
                in_folder("cache/models--org--tiny/snapshots/" COMMIT "/model.safetensors")),
        0);
    expect_missing("org/tiny", &env, "the hub has no config.json"); /* the link leads nowhere */
    put("cache/models--org--tiny/blobs/abc", "weights");
    snprintf(given, sizeof given, "%s", in_folder("cache/models--org--tiny/snapshots/" COMMIT));
    expect_found("org/tiny", &env, given);
    put("cache/models--org--tiny/refs/main", "../../../../etc");
    expect_missing("org/tiny", &env, "holds no commit id");

    /* models/name, then models/org/name, which is looked at first. */
    put("models/tiny/tiny.gguf", "GGUF");
    snprintf(given, sizeof given, "%s", in_folder("models/tiny"));
    expect_found("org/tiny", &env, given);
    expect_found("tiny", &env, given);
    put("models/org/tiny/config.json", "{}");
    expect_found("org/tiny", &env, given); /* without weights it does not count */
    put("models/org/tiny/model.safetensors", "w");
    snprintf(given, sizeof given, "%s", in_folder("models/org/tiny"));
    expect_found("org/tiny", &env, given);
}

static void test_locate_without_memory(void **state)
{
    (void)state;
    struct hub_env env = {.models_dir = in_folder("m"), .hf_hub_cache = "/nonexistent"};
    unsigned refused = 0;
    for (uint64_t n = 1; n < 100; n++) {
        char *path = NULL;
        struct error err = ERROR_INIT;
        mem_fail_at(n, true);
        enum status s = hub_locate("org/tiny", &env, &path, &err);
        mem_fail_at(0, false);
        assert_null(path);
        if (s == STATUS_NOT_FOUND) {
            break;
        }
        assert_int_equal(s, STATUS_NO_MEMORY);
        refused++;
    }
    assert_true(refused >= 5);
}

static const char tree[] =
    "[{\"type\":\"directory\",\"oid\":\"x\",\"size\":0,\"path\":\"onnx\"},"
    "{\"type\":\"file\",\"oid\":\"1111111111111111111111111111111111111111\",\"size\":12,"
    "\"path\":\"config.json\"},"
    "{\"type\":\"file\",\"oid\":\"2222222222222222222222222222222222222222\",\"size\":99,"
    "\"lfs\":{\"oid\":\"3333333333333333333333333333333333333333333333333333333333333333\","
    "\"size\":99,\"pointerSize\":134},\"path\":\"model.safetensors\"},"
    "{\"type\":\"file\",\"size\":1,\"path\":\".gitattributes\"}]";

static void test_list(void **state)
{
    (void)state;
    struct hub_list list = {0};
    struct error err = ERROR_INIT;
    assert_int_equal(hub_list_parse(tree, strlen(tree), &list, &err), STATUS_OK);
    assert_int_equal(list.n, 2);
    assert_string_equal(list.files[0].name, "config.json");
    assert_int_equal(list.files[0].size_bytes, 12);
    assert_int_equal(strlen(list.files[0].hash), 40);
    assert_string_equal(list.files[1].name, "model.safetensors");
    assert_int_equal(list.files[1].hash[0], '3');
    assert_int_equal(strlen(list.files[1].hash), 64);
    hub_list_deinit(&list);

    /* Cut at every byte: an orderly error, from a buffer that ends where the text does. */
    for (size_t n = 0; n < strlen(tree); n++) {
        char *cut = mem_alloc(n + 1, 1);
        assert_non_null(cut);
        memcpy(cut, tree, n);
        char *exact = n == 0 ? cut : mem_resize(cut, n, 1);
        assert_non_null(exact);
        assert_int_equal(hub_list_parse(exact, n, &list, &err), STATUS_BAD_DATA);
        mem_free(exact);
        hub_list_deinit(&list);
    }
}

static void test_choose(void **state)
{
    (void)state;
    /* Names, separated by spaces; '+' marks those that must be chosen. */
    static const struct {
        const char *files;
        enum status status;
    } cases[] = {
        {"+config.json +model.safetensors pytorch_model.bin m.gguf +tokenizer.model", STATUS_OK},
        {"+model.safetensors model-00001-of-00002.safetensors model.safetensors.index.json "
         "consolidated.safetensors +merges.txt +chat_template.jinja code.py x.pkl",
         STATUS_OK},
        {"+model-00001-of-00002.safetensors +model-00002-of-00002.safetensors "
         "+model.safetensors.index.json consolidated.safetensors",
         STATUS_OK},
        {"+other.safetensors +config.json", STATUS_OK},
        {"model.safetensors.index.json x.safetensors", STATUS_BAD_DATA},
        {"+any-name.gguf +config.json", STATUS_OK},
        {"m-Q4_K_M.gguf m-Q4_0.gguf +m.Q4_1.gguf m-F32.gguf", STATUS_OK},
        {"m-bf16.gguf +m_f16.gguf", STATUS_OK},
        {"+m-bf16.gguf m-xf16.gguf", STATUS_OK},
        {"m-Q2_K.gguf m-Q3_K_S.gguf", STATUS_UNSUPPORTED},
        {"pytorch_model.bin config.json", STATUS_UNSUPPORTED},
        {"", STATUS_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char names[512];
        snprintf(names, sizeof names, "%s", cases[i].files);
        struct hub_file files[16] = {{0}};
        bool wanted[16] = {false};
        struct hub_list list = {.files = files};
        char *rest = NULL;
        for (char *n = strtok_r(names, " ", &rest); n != NULL; n = strtok_r(NULL, " ", &rest)) {
            wanted[list.n] = n[0] == '+';
            files[list.n].name = n[0] == '+' ? n + 1 : n;
            list.n++;
        }
        struct error err = ERROR_INIT;
        enum status s = hub_list_choose(&list, "org/x", &err);
        if (s != cases[i].status) {
            fail_msg("%s: status %s: %s", cases[i].files, status_name(s), err.message);
        }
        for (size_t k = 0; s == STATUS_OK && k < list.n; k++) {
            if (files[k].chosen != wanted[k]) {
                fail_msg("%s: %s chosen: %d", cases[i].files, files[k].name, files[k].chosen);
            }
        }
    }
}

static void test_hash(void **state)
{
    (void)state;
    /* sha256sum; git hash-object */
    static const struct {
        const char *text;
        const char *sha256;
        const char *git;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
         "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
         "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put("hash", cases[i].text);
        int fd = open(in_folder("hash"), O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        char hex[HUB_HASH_HEX + 1] = "";
        size_t n = strlen(cases[i].text);
        assert_int_equal(hub_store_hash(fd, "hash", n, 64, NULL, hex, NULL), STATUS_OK);
        assert_string_equal(hex, cases[i].sha256);
        assert_int_equal(hub_store_hash(fd, "hash", n, 40, NULL, hex, NULL), STATUS_OK);
        assert_string_equal(hex, cases[i].git);
        assert_int_equal(hub_store_hash(fd, "hash", n + 1, 64, NULL, hex, NULL), STATUS_BAD_DATA);
        close(fd);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_cache_root),
        cmocka_unit_test_setup_teardown(test_locate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_locate_without_memory, setup, teardown),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_choose),
        cmocka_unit_test_setup_teardown(test_hash, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
