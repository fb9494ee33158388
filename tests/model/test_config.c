/* config.json of all families and both generations, GGUF keys, built-in shapes: values, defaults,
 * and every refusal by name. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/mem.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/model_builders.h"

static const char gpt2[] =
    "{\"model_type\":\"gpt2\",\"vocab_size\":97,\"n_embd\":32,\"n_layer\":2,\"n_head\":4,"
    "\"n_positions\":64,\"bos_token_id\":1,\"eos_token_id\":2}";

static const char gpt_neo[] =
    "{\"model_type\":\"gpt_neo\",\"vocab_size\":97,\"hidden_size\":32,\"num_layers\":4,"
    "\"num_heads\":4,\"max_position_embeddings\":64,\"window_size\":8,"
    "\"attention_types\":[[[\"global\",\"local\"],2]],\"intermediate_size\":null}";

static const char llama[] =
    "{\"model_type\":\"llama\",\"vocab_size\":97,\"hidden_size\":32,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"intermediate_size\":48,"
    "\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\"}";

static enum status read_text(const char *text, struct model_config *c, struct error *err)
{
    return config_from_json(text, strlen(text), "config.json", c, err);
}

/* The base with one key set to a JSON value (NULL: removed). Owner: the caller (free). */
static char *with_key(const char *base, const char *key, const char *value)
{
    json_t *root = json_loads(base, 0, NULL);
    assert_non_null(root);
    if (value == NULL) {
        json_object_del(root, key);
    } else {
        json_t *v = json_loads(value, JSON_DECODE_ANY, NULL);
        assert_non_null(v);
        json_object_set_new(root, key, v);
    }
    char *text = json_dumps(root, 0);
    json_decref(root);
    return text;
}

/* ---- refusals and defaults, one key at a time ---- */

struct key_case {
    const char *base;
    const char *key;
    const char *value; /* NULL: the key is removed */
    enum status status;
    const char *message; /* part of it */
};

static const struct key_case key_cases[] = {
    /* every family: what must be there, and types */
    {gpt2, "model_type", NULL, STATUS_BAD_MODEL, "'model_type' is missing"},
    {gpt2, "model_type", "7", STATUS_BAD_MODEL, "'model_type' is not a string"},
    {gpt2, "model_type", "\"mamba\"", STATUS_UNSUPPORTED, "known: gpt2, gpt_neo, llama"},
    {gpt2, "vocab_size", NULL, STATUS_BAD_MODEL, "'vocab_size' is missing"},
    {gpt2, "vocab_size", "null", STATUS_BAD_MODEL, "'vocab_size' is missing"},
    {gpt2, "vocab_size", "0", STATUS_BAD_MODEL, "vocabulary is 0"},
    {gpt2, "vocab_size", "-1", STATUS_BAD_MODEL, "'vocab_size' is not an integer"},
    {gpt2, "vocab_size", "97.5", STATUS_BAD_MODEL, "'vocab_size' is not an integer"},
    {gpt2, "vocab_size", "\"97\"", STATUS_BAD_MODEL, "'vocab_size' is not an integer"},
    {gpt2, "vocab_size", "true", STATUS_BAD_MODEL, "'vocab_size' is not an integer"},
    {gpt2, "vocab_size", "4294967296", STATUS_BAD_MODEL, "'vocab_size' is not an integer"},
    {gpt2, "vocab_size", "4194304", STATUS_OK, NULL},
    {gpt2, "vocab_size", "4194305", STATUS_BAD_MODEL, "vocabulary is 4194305"},
    {gpt2, "n_embd", NULL, STATUS_BAD_MODEL, "'n_embd' is missing"},
    {gpt2, "n_embd", "4294967292", STATUS_BAD_MODEL, "far too many"},
    {gpt2, "n_embd", "34", STATUS_BAD_MODEL, "34 channels cannot be split over 4"},
    {gpt2, "n_embd", "131072", STATUS_BAD_MODEL, "head size is 32768"},
    {gpt2, "n_layer", NULL, STATUS_BAD_MODEL, "'n_layer' is missing"},
    {gpt2, "n_layer", "0", STATUS_BAD_MODEL, "layers is 0"},
    {gpt2, "n_layer", "512", STATUS_OK, NULL},
    {gpt2, "n_layer", "513", STATUS_BAD_MODEL, "layers is 513"},
    {gpt2, "n_head", NULL, STATUS_BAD_MODEL, "'n_head' is missing"},
    {gpt2, "n_head", "0", STATUS_BAD_MODEL, "cannot be split over 0"},
    {gpt2, "n_head", "4294967295", STATUS_BAD_MODEL, "cannot be split"},
    {gpt2, "n_positions", NULL, STATUS_BAD_MODEL, "'n_ctx' is missing"},
    {gpt2, "n_positions", "16777217", STATUS_BAD_MODEL, "context length is 16777217"},
    {gpt2, "n_inner", "1048577", STATUS_BAD_MODEL, "feed-forward size is 1048577"},
    {gpt2, "layer_norm_epsilon", "0", STATUS_BAD_MODEL, "epsilon 0"},
    {gpt2, "layer_norm_epsilon", "-1e-5", STATUS_BAD_MODEL, "epsilon"},
    {gpt2, "layer_norm_epsilon", "2", STATUS_BAD_MODEL, "epsilon 2"},
    {gpt2, "layer_norm_epsilon", "1e-50", STATUS_BAD_MODEL, "epsilon 0"},
    {gpt2, "layer_norm_epsilon", "1e300", STATUS_BAD_MODEL, "within the range of f32"},
    {gpt2, "layer_norm_epsilon", "\"x\"", STATUS_BAD_MODEL, "'layer_norm_epsilon' is not"},
    {gpt2, "activation_function", "\"gelu\"", STATUS_OK, NULL},
    {gpt2, "activation_function", "\"quick_gelu\"", STATUS_UNSUPPORTED, "'quick_gelu'"},
    {gpt2, "activation_function", "1", STATUS_BAD_MODEL, "'activation_function' is not"},
    {gpt2, "scale_attn_weights", "true", STATUS_OK, NULL},
    {gpt2, "scale_attn_weights", "false", STATUS_UNSUPPORTED, "'scale_attn_weights': false"},
    {gpt2, "scale_attn_by_inverse_layer_idx", "true", STATUS_UNSUPPORTED,
     "'scale_attn_by_inverse_layer_idx': true"},
    {gpt2, "add_cross_attention", "true", STATUS_UNSUPPORTED, "'add_cross_attention': true"},
    {gpt2, "add_cross_attention", "0", STATUS_BAD_MODEL, "'add_cross_attention' is not true"},
    {gpt2, "quantization_config", "{}", STATUS_UNSUPPORTED, "'quantization_config'"},
    {gpt2, "tie_word_embeddings", "1", STATUS_BAD_MODEL, "'tie_word_embeddings' is not true"},
    /* ids */
    {gpt2, "bos_token_id", "96", STATUS_OK, NULL},
    {gpt2, "bos_token_id", "97", STATUS_BAD_MODEL, "bos id 97"},
    {gpt2, "bos_token_id", "-2", STATUS_BAD_MODEL, "'bos_token_id' is not a token id"},
    {gpt2, "eos_token_id", "97", STATUS_BAD_MODEL, "eos id 97"},
    {gpt2, "eos_token_id", "[2,97]", STATUS_BAD_MODEL, "eos id 97"},
    {gpt2, "eos_token_id", "[2,[3]]", STATUS_BAD_MODEL, "'eos_token_id' is not a token id"},
    {gpt2, "eos_token_id", "\"2\"", STATUS_BAD_MODEL, "'eos_token_id' is not a token id"},
    {gpt2, "eos_token_id", "[1,2,3,4,5,6,7,8]", STATUS_OK, NULL},
    {gpt2, "eos_token_id", "[1,2,3,4,5,6,7,8,9]", STATUS_BAD_MODEL, "more than 8"},
    {gpt2, "eos_token_id", "[1,1,1,1,1,1,1,1,1]", STATUS_OK, NULL},
    /* what HF writes and jansson would refuse without JSON_DECODE_INT_AS_REAL */
    {gpt2, "model_max_length", "1e30", STATUS_OK, NULL},
    /* gpt_neo */
    {gpt_neo, "attention_types", NULL, STATUS_BAD_MODEL, "'attention_types' is missing"},
    {gpt_neo, "attention_types", "7", STATUS_BAD_MODEL, "'attention_types' is not a list"},
    {gpt_neo, "attention_types", "[[[\"global\"],3]]", STATUS_BAD_MODEL, "lists 3 of 4 layers"},
    {gpt_neo, "attention_types", "[[[\"global\"],5]]", STATUS_BAD_MODEL, "more than 4 layers"},
    {gpt_neo, "attention_types", "[[[\"global\"],1e9]]", STATUS_BAD_MODEL, "repetitions"},
    {gpt_neo, "attention_types", "[[[],4]]", STATUS_BAD_MODEL, "repetitions"},
    {gpt_neo, "attention_types", "[[\"global\",4]]", STATUS_BAD_MODEL, "repetitions"},
    {gpt_neo, "attention_types", "[[[\"wide\"],4]]", STATUS_BAD_MODEL, "\"global\" and \"local\""},
    {gpt_neo, "attention_types", "[[[\"local\"],4]]", STATUS_OK, NULL},
    {gpt_neo, "window_size", "0", STATUS_BAD_MODEL, "window is 0"},
    {gpt_neo, "num_layers", "4294967295", STATUS_BAD_MODEL, "limit is 512"},
    {gpt_neo, "hidden_size", NULL, STATUS_BAD_MODEL, "'hidden_size' is missing"},
    {gpt_neo, "max_position_embeddings", NULL, STATUS_BAD_MODEL, "'max_position_embeddings'"},
    /* llama */
    {llama, "hidden_size", NULL, STATUS_BAD_MODEL, "'hidden_size' is missing"},
    {llama, "num_hidden_layers", NULL, STATUS_BAD_MODEL, "'num_hidden_layers' is missing"},
    {llama, "num_attention_heads", NULL, STATUS_BAD_MODEL, "'num_attention_heads' is missing"},
    {llama, "intermediate_size", NULL, STATUS_BAD_MODEL, "'intermediate_size' is missing"},
    {llama, "num_key_value_heads", "3", STATUS_BAD_MODEL, "not a multiple of 3"},
    {llama, "num_key_value_heads", "0", STATUS_BAD_MODEL, "key/value heads is 0"},
    {llama, "num_key_value_heads", "8", STATUS_BAD_MODEL, "not a multiple of 8"},
    {llama, "head_dim", "10", STATUS_OK, NULL},
    {llama, "head_dim", "0", STATUS_BAD_MODEL, "head size is 0"},
    {llama, "head_dim", "7", STATUS_BAD_MODEL, "head size 7 is odd"},
    {llama, "head_dim", "1024", STATUS_OK, NULL},
    {llama, "head_dim", "1026", STATUS_BAD_MODEL, "head size is 1026"},
    {llama, "head_dim", "1073741824", STATUS_BAD_MODEL, "head size"}, /* x 4 heads wraps to 0 */
    {llama, "hidden_act", "\"gelu_pytorch_tanh\"", STATUS_OK, NULL},
    {llama, "attention_bias", "\"yes\"", STATUS_BAD_MODEL, "'attention_bias' is not"},
    {llama, "rope_theta", "1", STATUS_BAD_MODEL, "rope theta 1"},
    {llama, "rope_theta", "-5", STATUS_BAD_MODEL, "rope theta -5"},
    {llama, "rope_theta", "1e39", STATUS_BAD_MODEL, "'rope_theta' is not"},
    {llama, "partial_rotary_factor", "0.5", STATUS_UNSUPPORTED, "'partial_rotary_factor': 0.5"},
    {llama, "rope_scaling", "null", STATUS_OK, NULL},
    {llama, "rope_scaling", "5", STATUS_BAD_MODEL, "'rope_scaling' is not an object"},
    {llama, "rope_scaling", "{\"type\":\"dynamic\",\"factor\":2.0}", STATUS_UNSUPPORTED,
     "rope type 'dynamic'"},
    {llama, "rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":2.0}", STATUS_UNSUPPORTED,
     "known: default, linear, llama3"},
    {llama, "rope_scaling", "{\"rope_type\":\"longrope\"}", STATUS_UNSUPPORTED, "'longrope'"},
    {llama, "rope_scaling", "{\"rope_type\":7}", STATUS_BAD_MODEL, "'rope_type' is not"},
    {llama, "rope_scaling", "{\"factor\":2.0}", STATUS_UNSUPPORTED, "(none given)"},
    {llama, "rope_scaling", "{\"type\":\"linear\"}", STATUS_BAD_MODEL, "'factor' is missing"},
    {llama, "rope_scaling", "{\"type\":\"linear\",\"factor\":0.5}", STATUS_BAD_MODEL,
     "rope factor 0.5"},
    {llama, "rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8}", STATUS_BAD_MODEL,
     "'low_freq_factor' is missing"},
    {llama, "rope_scaling",
     "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
     "\"original_max_position_embeddings\":8192}",
     STATUS_BAD_MODEL, "needs 0 < low_freq_factor"},
    {llama, "rope_scaling",
     "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
     "\"original_max_position_embeddings\":0}",
     STATUS_BAD_MODEL, "original context"},
    {llama, "rope_parameters", "{\"rope_type\":\"yarn\",\"rope_theta\":5.0}", STATUS_UNSUPPORTED,
     "'rope_parameters': rope type 'yarn'"},
    {llama, "rope_parameters", "{\"full_attention\":{\"rope_type\":\"default\"}}",
     STATUS_UNSUPPORTED, "(none given)"},
    {llama, "rope_parameters", "{\"rope_type\":\"default\",\"partial_rotary_factor\":0.25}",
     STATUS_UNSUPPORTED, "partial_rotary_factor 0.25"},
};

static void test_keys(void **state)
{
    (void)state;
    size_t n = sizeof key_cases / sizeof key_cases[0];
    for (size_t i = 0; i < n; i++) {
        const struct key_case *k = &key_cases[i];
        char *text = with_key(k->base, k->key, k->value);
        static struct model_config c;
        memset(&c, 0x5A, sizeof c);
        struct error err = ERROR_INIT;
        enum status s = read_text(text, &c, &err);
        bool named = s == STATUS_OK || (strncmp(err.message, "config.json: ", 13) == 0 &&
                                        strstr(err.message, k->message) != NULL);
        if (s != k->status || !named) {
            fail_msg("%s = %s: status %s, message: %s", k->key, k->value == NULL ? "-" : k->value,
                     status_name(s), err.message);
        }
        /* Outputs are untouched on error. */
        assert_true(s == STATUS_OK || c.n_layers == 0x5A5A5A5A);
        free(text);
    }
    print_message("%zu keys\n", n);
}

/* ---- raw texts ---- */

static void test_texts(void **state)
{
    (void)state;
    const struct {
        const char *text;
        const char *message;
    } cases[] = {
        {"", "byte 0"},
        {"[]", "not a JSON object"},
        {"{\"model_type\":\"gpt2\"", "byte 20"},
        {"{\"a\": NaN}", "key 'a' is not a finite number"},
        {"{\"b\": 1, \"layer_norm_epsilon\" : -Infinity}", "key 'layer_norm_epsilon' is not"},
        {"{\"b\": {\"c\": [1, Infinity]}}", "key 'c' is not a finite number"},
        {"{\"NaN\": \"Infinity\", \"d\": NaN}", "key 'd' is not a finite number"},
        {"{\"NaN\": 1, \"d\": +1}", "invalid token near '+'"},
        {"{\"a\":1,\"a\":1}", "duplicate"},
        {"{\"a\":1}{", "end of file expected"},
        {"{\"a\":01}", "byte"},
        {"{\"a\":1e999}", "real number overflow"},
        {"{\"a\":\"\\u0000\\ud800\"}", "byte"},
        {"{\"a\":\"\xC0\xAF\"}", "unable to decode"},
        {"{\"a\":'x'}", "byte 6"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static struct model_config c;
        struct error err = ERROR_INIT;
        enum status s = read_text(cases[i].text, &c, &err);
        if (s != STATUS_BAD_MODEL || strstr(err.message, cases[i].message) == NULL) {
            fail_msg("%s: status %s, message: %s", cases[i].text, status_name(s), err.message);
        }
    }
}

static void test_depth(void **state)
{
    (void)state;
    char text[512];
    for (int depth = 31; depth <= 32; depth++) {
        snprintf(text, sizeof text, "%s", llama);
        char *p = text + strlen(text) - 1;
        p += sprintf(p, ",\"x\":");
        for (int i = 0; i < depth; i++) {
            *p++ = '[';
        }
        for (int i = 0; i < depth; i++) {
            *p++ = ']';
        }
        memcpy(p, "}", 2);
        static struct model_config c;
        struct error err = ERROR_INIT;
        enum status s = read_text(text, &c, &err);
        assert_int_equal(s, depth == 31 ? STATUS_OK : STATUS_BAD_MODEL);
        assert_true(depth == 31 || strstr(err.message, "nested too deeply") != NULL);
    }
}

/* Sizes of the text and numbers of its values, at the limit and beyond. */
static void test_size(void **state)
{
    (void)state;
    char folder[256];
    make_folder(folder);
    size_t limit = (size_t)16 << 20;
    char *text = malloc(limit + 1);
    memset(text, ' ', limit + 1);
    memcpy(text, llama, strlen(llama));
    static struct model_config c;
    struct error err = ERROR_INIT;
    for (size_t extra = 0; extra < 2; extra++) {
        write_file(folder, "config.json", text, limit + extra);
        assert_int_equal(config_open(folder, &c, &err), extra == 0 ? STATUS_OK : STATUS_BAD_DATA);
    }
    assert_non_null(strstr(err.message, "more than the limit"));
    /* The base has one brace and 9 commas; one more comma and one bracket begin the list. */
    for (size_t extra = 0; extra < 2; extra++) {
        size_t commas = 1000000 - 12 + extra;
        size_t n = strlen(llama) - 1;
        n += (size_t)snprintf(text + n, 32, ",\"x\":[0");
        for (size_t i = 0; i < commas; i++) {
            memcpy(text + n, ",0", 2);
            n += 2;
        }
        memcpy(text + n, "]}", 2);
        enum status s = config_from_json(text, n + 2, "t", &c, &err);
        assert_int_equal(s, extra == 0 ? STATUS_OK : STATUS_BAD_MODEL);
    }
    assert_non_null(strstr(err.message, "too large; the limit is 1000000"));
    free(text);
    remove_tree(folder);
}

static void test_truncation(void **state)
{
    (void)state;
    static const char *const texts[] = {gpt2, gpt_neo, llama};
    for (int t = 0; t < 3; t++) {
        size_t len = strlen(texts[t]);
        for (size_t n = 0; n < len; n++) {
            static struct model_config c;
            char *copy = malloc(n + (n == 0));
            memcpy(copy, texts[t], n);
            struct error err = ERROR_INIT;
            assert_int_equal(config_from_json(copy, n, "t", &c, &err), STATUS_BAD_MODEL);
            free(copy);
        }
    }
}

/* ---- values ---- */

static void test_gpt2(void **state)
{
    (void)state;
    static struct model_config c;
    assert_int_equal(read_text(gpt2, &c, NULL), STATUS_OK);
    assert_string_equal(c.arch->name, "gpt2");
    assert_true(c.n_layers == 2 && c.n_channels == 32 && c.n_heads == 4 && c.n_kv_heads == 4);
    assert_true(c.head_size == 8 && c.n_ffn == 128 && c.n_vocab == 97 && c.n_ctx == 64);
    assert_true(c.activation == ACT_GELU_TANH && c.norm_eps == 1e-5F && c.tied);
    assert_true(c.bos_id == 1 && c.n_eos == 1 && c.eos_ids[0] == 2);
    /* Transformers: sum(p.numel()) of this configuration. */
    assert_true(config_parameter_count(&c) == 30624);
    char *text = with_key(gpt2, "n_inner", "50");
    assert_int_equal(read_text(text, &c, NULL), STATUS_OK);
    assert_true(c.n_ffn == 50);
    free(text);
    text = with_key(gpt2, "n_positions", NULL);
    char *older = with_key(text, "n_ctx", "33");
    assert_int_equal(read_text(older, &c, NULL), STATUS_OK);
    assert_true(c.n_ctx == 33);
    free(older);
    free(text);
    text = with_key(gpt2, "activation_function", "\"relu\"");
    assert_int_equal(read_text(text, &c, NULL), STATUS_OK);
    assert_true(c.activation == ACT_RELU);
    free(text);
}

static void test_gpt_neo(void **state)
{
    (void)state;
    static struct model_config c;
    assert_int_equal(read_text(gpt_neo, &c, NULL), STATUS_OK);
    assert_true(c.n_layers == 4 && c.window == 8 && c.n_ffn == 128 && c.tied);
    assert_memory_equal(c.layer_is_local, "\0\1\0\1", 4);
    assert_true(c.bos_id == -1 && c.n_eos == 0);
    assert_true(!c.arch->scale_attention);
    assert_true(config_parameter_count(&c) == 55648);
    /* attention_types decides over attention_layers; without it the list is read. */
    char *both = with_key(gpt_neo, "attention_layers", "[\"local\",\"local\",\"local\",\"local\"]");
    assert_int_equal(read_text(both, &c, NULL), STATUS_OK);
    assert_memory_equal(c.layer_is_local, "\0\1\0\1", 4);
    char *list = with_key(both, "attention_types", NULL);
    assert_int_equal(read_text(list, &c, NULL), STATUS_OK);
    assert_memory_equal(c.layer_is_local, "\1\1\1\1", 4);
    char *window = with_key(gpt_neo, "window_size", NULL);
    assert_int_equal(read_text(window, &c, NULL), STATUS_OK);
    assert_true(c.window == 256);
    free(both);
    free(list);
    free(window);
}

static void test_llama(void **state)
{
    (void)state;
    static struct model_config c;
    assert_int_equal(read_text(llama, &c, NULL), STATUS_OK);
    assert_true(c.n_heads == 4 && c.n_kv_heads == 2 && c.head_size == 8 && c.n_ffn == 48);
    assert_true(c.norm_eps == 1e-5F && c.rope_theta == 10000.0F && c.rope_scaling == ROPE_PLAIN);
    assert_true(!c.tied && !c.attention_bias && !c.mlp_bias && c.activation == ACT_SILU);
    assert_true(config_parameter_count(&c) == 21728);
    char *text = with_key(llama, "num_key_value_heads", "null");
    assert_int_equal(read_text(text, &c, NULL), STATUS_OK);
    assert_true(c.n_kv_heads == 4);
    free(text);
    text = with_key(llama, "rms_norm_eps", NULL);
    assert_int_equal(read_text(text, &c, NULL), STATUS_OK);
    assert_true(c.norm_eps == 1e-6F);
    free(text);
    text = with_key(llama, "eos_token_id", "[2, 5, -1]");
    assert_int_equal(read_text(text, &c, NULL), STATUS_OK);
    assert_true(c.n_eos == 2 && c.eos_ids[1] == 5);
    free(text);
}

#define LLAMA3                                                                                     \
    "\"rope_type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.5,\"high_freq_factor\":4.5,"   \
    "\"original_max_position_embeddings\":8192"

/* The same model in the words of Transformers 4 and 5. */
static void test_generations(void **state)
{
    (void)state;
    const struct {
        const char *old_theta, *old_scaling, *parameters;
        enum rope_scaling scaling;
        float theta, factor;
    } cases[] = {
        {"500000.0", "null", "{\"rope_type\":\"default\",\"rope_theta\":500000.0}", ROPE_PLAIN,
         5e5F, 1.0F},
        {"500000", "{\"type\":\"linear\",\"factor\":2}",
         "{\"rope_type\":\"linear\",\"factor\":2.0,\"rope_theta\":500000.0}", ROPE_LINEAR, 5e5F,
         2.0F},
        {"500000", "{" LLAMA3 "}", "{" LLAMA3 ",\"rope_theta\":500000.0}", ROPE_LLAMA3, 5e5F,
         32.0F},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *a = with_key(llama, "rope_theta", cases[i].old_theta);
        char *old = with_key(a, "rope_scaling", cases[i].old_scaling);
        char *new = with_key(llama, "rope_parameters", cases[i].parameters);
        static struct model_config c[2];
        assert_int_equal(read_text(old, &c[0], NULL), STATUS_OK);
        assert_int_equal(read_text(new, &c[1], NULL), STATUS_OK);
        for (int g = 0; g < 2; g++) {
            assert_true(c[g].rope_scaling == cases[i].scaling);
            assert_true(c[g].rope_theta == cases[i].theta && c[g].rope_factor == cases[i].factor);
            assert_true(c[g].rope_scaling != ROPE_LLAMA3 ||
                        (c[g].rope_low_freq_factor == 1.5F && c[g].rope_high_freq_factor == 4.5F &&
                         c[g].rope_original_ctx == 8192));
        }
        free(a);
        free(old);
        free(new);
    }
    /* A map of theta alone is plain. */
    char *theta = with_key(llama, "rope_parameters", "{\"rope_theta\":7000.0}");
    static struct model_config c;
    assert_int_equal(read_text(theta, &c, NULL), STATUS_OK);
    assert_true(c.rope_theta == 7000.0F && c.rope_scaling == ROPE_PLAIN);
    free(theta);
}

static void test_builtin(void **state)
{
    (void)state;
    const struct {
        const char *id;
        uint64_t parameters; /* as published */
    } shapes[] = {{"gpt2", 124439808},
                  {"gpt2-medium", 354823168},
                  {"gpt2-large", 774030080},
                  {"TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1100048384}};
    static struct model_config c;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        assert_int_equal(config_builtin(shapes[i].id, &c, NULL), STATUS_OK);
        assert_true(config_parameter_count(&c) == shapes[i].parameters);
    }
    struct error err = ERROR_INIT;
    assert_int_equal(config_builtin("gpt5", &c, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "gpt2-medium, gpt2-large, TinyLlama/"));
}

/* ---- GGUF keys ---- */

struct gguf_edit {
    const char *drop; /* a key left out */
    const char *arch;
    const char *extra_u32; /* a key added */
    uint32_t extra;
    uint64_t rows; /* of the embedding; 0: 97 */
};

static void write_gguf(struct bytes *b, const struct gguf_edit *e)
{
    static const struct {
        const char *key;
        uint32_t value;
    } keys[] = {{"llama.block_count", 2},           {"llama.context_length", 64},
                {"llama.embedding_length", 32},     {"llama.feed_forward_length", 48},
                {"llama.attention.head_count", 4},  {"llama.attention.head_count_kv", 2},
                {"tokenizer.ggml.bos_token_id", 1}, {"tokenizer.ggml.eos_token_id", 2}};
    struct bytes body = {0};
    uint64_t n = 2;
    gguf_key_string(&body, "general.architecture", e->arch != NULL ? e->arch : "llama");
    gguf_key_f32(&body, "llama.rope.freq_base", 5e5F);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        bool replaced = e->extra_u32 != NULL && strcmp(keys[i].key, e->extra_u32) == 0;
        if (!replaced && (e->drop == NULL || strcmp(keys[i].key, e->drop) != 0)) {
            gguf_key_u32(&body, keys[i].key, keys[i].value);
            n++;
        }
    }
    if (e->extra_u32 != NULL) {
        gguf_key_u32(&body, e->extra_u32, e->extra);
        n++;
    }
    const uint64_t dims[] = {32, e->rows != 0 ? e->rows : 97};
    gguf_preamble(b, 3, 1, n);
    bytes_put(b, body.data, body.len);
    gguf_tensor_entry(b, "token_embd.weight", 2, dims, 0, 0);
    put_padding(b, 32);
    put_zeros(b, (size_t)(dims[0] * dims[1] * 4));
    bytes_free(&body);
}

static void test_gguf(void **state)
{
    (void)state;
    const struct {
        struct gguf_edit edit;
        enum status status;
        const char *message;
    } cases[] = {
        {{0}, STATUS_OK, NULL},
        {{.arch = "mamba"}, STATUS_UNSUPPORTED, "known in GGUF files: gpt2, llama"},
        {{.drop = "llama.block_count"}, STATUS_BAD_MODEL, "'llama.block_count' is missing"},
        {{.drop = "llama.context_length"}, STATUS_BAD_MODEL, "'llama.context_length'"},
        {{.drop = "llama.embedding_length"}, STATUS_BAD_MODEL, "'llama.embedding_length'"},
        {{.drop = "llama.feed_forward_length"}, STATUS_BAD_MODEL, "'llama.feed_forward_length'"},
        {{.drop = "llama.attention.head_count"}, STATUS_BAD_MODEL, "'llama.attention.head_count'"},
        {{.drop = "llama.attention.head_count_kv"}, STATUS_OK, NULL},
        {{.drop = "tokenizer.ggml.eos_token_id"}, STATUS_OK, NULL},
        /* PR 25821: a block count above the arrays' size wrote past them */
        {{.extra_u32 = "llama.block_count", .extra = 513}, STATUS_BAD_MODEL, "layers is 513"},
        {{.extra_u32 = "llama.attention.head_count", .extra = 0}, STATUS_BAD_MODEL, "over 0"},
        {{.extra_u32 = "llama.attention.head_count", .extra = 5}, STATUS_BAD_MODEL, "over 5"},
        {{.extra_u32 = "llama.attention.head_count_kv", .extra = 3}, STATUS_BAD_MODEL, "of 3"},
        {{.extra_u32 = "llama.attention.key_length", .extra = 1U << 30},
         STATUS_BAD_MODEL,
         "head size"},
        {{.extra_u32 = "llama.attention.value_length", .extra = 4},
         STATUS_UNSUPPORTED,
         "different sizes (8, 4)"},
        {{.extra_u32 = "llama.rope.dimension_count", .extra = 4}, STATUS_UNSUPPORTED, "4 of 8"},
        {{.extra_u32 = "llama.expert_count", .extra = 8}, STATUS_UNSUPPORTED, "8 experts"},
        {{.extra_u32 = "llama.expert_count", .extra = 0}, STATUS_OK, NULL},
        {{.extra_u32 = "llama.attention.sliding_window", .extra = 64},
         STATUS_UNSUPPORTED,
         "'llama.attention.sliding_window' is not supported"},
        {{.extra_u32 = "llama.logit_scale", .extra = 1}, STATUS_UNSUPPORTED, "logit_scale"},
        {{.extra_u32 = "llama.vocab_size", .extra = 97}, STATUS_OK, NULL},
        /* PR 14145: ids beyond the table's rows */
        {{.extra_u32 = "llama.vocab_size", .extra = 98}, STATUS_BAD_MODEL, "vocabulary of 98"},
        {{.extra_u32 = "tokenizer.ggml.eos_token_id", .extra = 97}, STATUS_BAD_MODEL, "eos id 97"},
        {{.extra_u32 = "tokenizer.ggml.bos_token_id", .extra = 97}, STATUS_BAD_MODEL, "bos id 97"},
        {{.extra_u32 = "tokenizer.ggml.eot_token_id", .extra = UINT32_MAX},
         STATUS_BAD_MODEL,
         "no token id"},
        {{.extra_u32 = "llama.rope.scaling.type", .extra = 1}, STATUS_BAD_MODEL, "not a string"},
        {{.extra_u32 = "llama.attention.layer_norm_rms_epsilon", .extra = 1},
         STATUS_BAD_MODEL,
         "not a float"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bytes b = {0};
        write_gguf(&b, &cases[i].edit);
        struct gguf *g = NULL;
        assert_int_equal(gguf_parse(b.data, b.len, b.len, "t.gguf", &g, NULL), STATUS_OK);
        static struct model_config c;
        struct error err = ERROR_INIT;
        enum status s = config_from_gguf(g, &c, &err);
        if (s != cases[i].status ||
            (s != STATUS_OK && strstr(err.message, cases[i].message) == NULL)) {
            fail_msg("case %zu: status %s, message: %s", i, status_name(s), err.message);
        }
        if (i == 0) {
            assert_true(c.n_layers == 2 && c.n_kv_heads == 2 && c.head_size == 8 && c.tied);
            assert_true(c.n_vocab == 97 && c.rope_theta == 5e5F && c.bos_id == 1);
            assert_true(c.n_eos == 1 && c.eos_ids[0] == 2);
        }
        gguf_close(g);
        bytes_free(&b);
    }
}

/* llama3 scaling in GGUF is a tensor of divisors. */
static void test_gguf_rope_tensor(void **state)
{
    (void)state;
    char folder[256];
    make_folder(folder);
    char path[512];
    snprintf(path, sizeof path, "%s/t.gguf", folder);
    for (int variant = 0; variant < 3; variant++) {
        struct bytes b = {0};
        gguf_preamble(&b, 3, 2, 7);
        gguf_key_string(&b, "general.architecture", "llama");
        gguf_key_f32(&b, "llama.rope.freq_base", 5e5F);
        gguf_key_u32(&b, "llama.block_count", 1);
        gguf_key_u32(&b, "llama.context_length", 131072);
        gguf_key_u32(&b, "llama.embedding_length", 128);
        gguf_key_u32(&b, "llama.feed_forward_length", 48);
        gguf_key_u32(&b, "llama.attention.head_count", 1);
        const uint64_t dims[] = {128, 2};
        const uint64_t pairs[] = {64};
        gguf_tensor_entry(&b, "token_embd.weight", 2, dims, 0, 0);
        gguf_tensor_entry(&b, "rope_freqs.weight", 1, pairs, 0, 1024);
        put_padding(&b, 32);
        put_zeros(&b, 1024);
        for (int i = 0; i < 64; i++) {
            /* As convert_hf_to_gguf computes them for Llama 3.2: factor 32, low 1, high 4, 8192. */
            float freq = 1.0F / powf(5e5F, (float)(2 * i) / 128.0F);
            float wavelen = 2.0F * 3.14159265F / freq;
            float divisor = 1.0F;
            if (wavelen > 8192.0F) {
                divisor = 32.0F;
            } else if (wavelen > 2048.0F) {
                float smooth = (8192.0F / wavelen - 1.0F) / 3.0F;
                divisor = 1.0F / ((1.0F - smooth) / 32.0F + smooth);
            }
            put_f32(&b, variant == 0 ? 1.0F : divisor + (variant == 2 && i == 33 ? 0.1F : 0.0F));
        }
        write_file(folder, "t.gguf", b.data, b.len);
        static struct model_config c;
        struct error err = ERROR_INIT;
        enum status s = config_open(path, &c, &err);
        if (variant == 2) {
            assert_int_equal(s, STATUS_UNSUPPORTED);
            assert_non_null(strstr(err.message, "rotary factors other than llama3's"));
        } else {
            assert_int_equal(s, STATUS_OK);
            assert_true(c.rope_scaling == (variant == 0 ? ROPE_PLAIN : ROPE_LLAMA3));
            assert_true(variant == 0 || (c.rope_factor == 32.0F && c.rope_original_ctx == 8192));
        }
        bytes_free(&b);
    }
    remove_tree(folder);
}

/* ---- folders ---- */

static void test_open(void **state)
{
    (void)state;
    char folder[256];
    make_folder(folder);
    static struct model_config c;
    struct error err = ERROR_INIT;
    assert_int_equal(config_open(folder, &c, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "no config.json"));
    assert_int_equal(config_open("/nonexistent", &c, &err), STATUS_NOT_FOUND);
    write_file(folder, "config.json", gpt2, strlen(gpt2));
    assert_int_equal(config_open(folder, &c, &err), STATUS_OK);
    assert_true(c.n_eos == 1);
    const char *more = "{\"eos_token_id\":[7,2,9],\"temperature\":0.6}";
    write_file(folder, "generation_config.json", more, strlen(more));
    assert_int_equal(config_open(folder, &c, &err), STATUS_OK);
    assert_true(c.n_eos == 3 && c.eos_ids[0] == 2 && c.eos_ids[1] == 7 && c.eos_ids[2] == 9);
    const char *beyond = "{\"eos_token_id\":97}";
    write_file(folder, "generation_config.json", beyond, strlen(beyond));
    assert_int_equal(config_open(folder, &c, &err), STATUS_BAD_MODEL);
    assert_non_null(strstr(err.message, "generation_config.json: eos id 97"));
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(config_open(path, &c, &err), STATUS_OK);
    assert_true(c.n_eos == 1);
    /* Weights from a .gguf: its keys count, not config.json. Two of them: which? */
    struct bytes b = {0};
    write_gguf(&b, &(struct gguf_edit){0});
    write_file(folder, "a.gguf", b.data, b.len);
    assert_int_equal(config_open(folder, &c, &err), STATUS_OK);
    assert_string_equal(c.arch->name, "llama");
    write_file(folder, "b.gguf", b.data, b.len);
    assert_int_equal(config_open(folder, &c, &err), STATUS_BAD_MODEL);
    assert_non_null(strstr(err.message, "2 files end in .gguf; give the path"));
    write_file(folder, "model.bin", b.data, b.len);
    snprintf(path, sizeof path, "%s/model.bin", folder);
    assert_int_equal(config_open(path, &c, &err), STATUS_UNSUPPORTED);
    bytes_free(&b);
    remove_tree(folder);
}

static void test_refused_allocations(void **state)
{
    (void)state;
    char folder[256];
    make_folder(folder);
    struct bytes b = {0};
    write_gguf(&b, &(struct gguf_edit){0});
    for (int kind = 0; kind < 2; kind++) {
        char path[512];
        if (kind == 0) {
            const char *more = "{\"eos_token_id\":[7,2,9]}";
            write_file(folder, "config.json", gpt_neo, strlen(gpt_neo));
            write_file(folder, "generation_config.json", more, strlen(more));
            snprintf(path, sizeof path, "%s", folder);
        } else {
            write_file(folder, "a.gguf", b.data, b.len);
            snprintf(path, sizeof path, "%s/a.gguf", folder);
        }
        uint64_t k = 1;
        for (;; k++) {
            static struct model_config c;
            struct error err = ERROR_INIT;
            mem_fail_at(k, k % 2 == 0);
            enum status s = config_open(path, &c, &err);
            mem_fail_at(0, false);
            if (s == STATUS_OK) {
                break;
            }
            if (s != STATUS_NO_MEMORY) {
                fail_msg("allocation %llu: %s", (unsigned long long)k, err.message);
            }
        }
        assert_true(k > 5);
        print_message("%llu allocations refused\n", (unsigned long long)(k - 1));
    }
    bytes_free(&b);
    remove_tree(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_depth),       cmocka_unit_test(test_size),
        cmocka_unit_test(test_truncation),  cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_gpt_neo),     cmocka_unit_test(test_llama),
        cmocka_unit_test(test_generations), cmocka_unit_test(test_builtin),
        cmocka_unit_test(test_gguf),        cmocka_unit_test(test_gguf_rope_tensor),
        cmocka_unit_test(test_open),        cmocka_unit_test(test_refused_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
