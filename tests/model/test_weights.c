/* Weights by role: every layout (Conv1D, fused QKV, permuted GGUF rows, shards) gives the same
 * logical rows; every fault of a file's tensors is named; files that shrink or are damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/tiny_models.h"

/* ---- what a logical weight must hold ---- */

/* rows x columns of a file tensor from output `first` on; transposed: the file is [inputs,
 * outputs]. */
static void check_weight(const struct weights *w, enum weight_role role, bool bias,
                         const char *name, uint64_t rows, uint64_t columns, uint64_t first,
                         uint64_t file_outputs, bool transposed)
{
    struct weight_info info;
    assert_true(weights_find(w, role, 0, bias, &info));
    assert_true(info.rows == rows && info.columns == columns);
    float *out = malloc(rows * columns * sizeof *out);
    /* In two pieces, the second first: any order and partition gives the same. */
    uint64_t cut = rows / 2;
    struct error err = ERROR_INIT;
    assert_int_equal(
        weights_read_rows(w, role, 0, bias, cut, rows - cut, out + cut * columns, &err), STATUS_OK);
    assert_int_equal(weights_read_rows(w, role, 0, bias, 0, cut, out, &err), STATUS_OK);
    for (uint64_t r = 0; r < rows; r++) {
        for (uint64_t c = 0; c < columns; c++) {
            uint64_t at = (first + r) * columns + c;
            if (bias) {
                at = first + c;
            } else if (transposed) {
                at = c * file_outputs + first + r;
            }
            if (out[r * columns + c] != value_of(name, at)) {
                fail_msg("%s: row %llu column %llu is %g, not %g", name, (unsigned long long)r,
                         (unsigned long long)c, (double)out[r * columns + c],
                         (double)value_of(name, at));
            }
        }
    }
    free(out);
}

static void check_gpt2(const struct weights *w, bool transposed)
{
    static const char qkv[] = "transformer.h.0.attn.c_attn.";
    static const enum weight_role parts[] = {ROLE_Q, ROLE_K, ROLE_V};
    check_weight(w, ROLE_EMBED, false, "transformer.wte.weight", 11, 8, 0, 0, false);
    check_weight(w, ROLE_POSITION, false, "transformer.wpe.weight", 6, 8, 0, 0, false);
    check_weight(w, ROLE_FINAL_NORM, false, "transformer.ln_f.weight", 1, 8, 0, 0, false);
    check_weight(w, ROLE_FINAL_NORM, true, "transformer.ln_f.bias", 1, 8, 0, 0, false);
    check_weight(w, ROLE_MLP_NORM, true, "transformer.h.0.ln_2.bias", 1, 8, 0, 0, false);
    for (uint64_t i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "%sweight", qkv);
        check_weight(w, parts[i], false, name, 8, 8, 8 * i, 24, transposed);
        snprintf(name, sizeof name, "%sbias", qkv);
        check_weight(w, parts[i], true, name, 1, 8, 8 * i, 24, false);
    }
    check_weight(w, ROLE_O, false, "transformer.h.0.attn.c_proj.weight", 8, 8, 0, 8, transposed);
    check_weight(w, ROLE_UP, false, "transformer.h.0.mlp.c_fc.weight", 12, 8, 0, 12, transposed);
    check_weight(w, ROLE_UP, true, "transformer.h.0.mlp.c_fc.bias", 1, 12, 0, 12, false);
    check_weight(w, ROLE_DOWN, false, "transformer.h.0.mlp.c_proj.weight", 8, 12, 0, 8, transposed);
    static const enum weight_role absent[] = {ROLE_HEAD, ROLE_QKV, ROLE_GATE};
    for (int i = 0; i < 3; i++) {
        assert_false(weights_find(w, absent[i], 0, false, NULL));
    }
    assert_false(weights_find(w, ROLE_EMBED, 0, true, NULL));
}

static void check_llama(const struct weights *w, bool tied)
{
    const char *l = "model.layers.0.";
    const struct {
        enum weight_role role;
        const char *name;
        uint64_t rows, columns;
    } all[] = {{ROLE_ATTN_NORM, "input_layernorm", 1, 8},
               {ROLE_Q, "self_attn.q_proj", 24, 8},
               {ROLE_K, "self_attn.k_proj", 12, 8},
               {ROLE_V, "self_attn.v_proj", 12, 8},
               {ROLE_O, "self_attn.o_proj", 8, 24},
               {ROLE_MLP_NORM, "post_attention_layernorm", 1, 8},
               {ROLE_GATE, "mlp.gate_proj", 12, 8},
               {ROLE_UP, "mlp.up_proj", 12, 8},
               {ROLE_DOWN, "mlp.down_proj", 8, 12}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char name[96];
        snprintf(name, sizeof name, "%s%s.weight", l, all[i].name);
        check_weight(w, all[i].role, false, name, all[i].rows, all[i].columns, 0, 0, false);
        assert_false(weights_find(w, all[i].role, 0, true, NULL));
    }
    check_weight(w, ROLE_EMBED, false, "model.embed_tokens.weight", 11, 8, 0, 0, false);
    check_weight(w, ROLE_FINAL_NORM, false, "model.norm.weight", 1, 8, 0, 0, false);
    assert_false(weights_find(w, ROLE_POSITION, 0, false, NULL));
    if (tied) {
        assert_false(weights_find(w, ROLE_HEAD, 0, false, NULL));
    } else {
        check_weight(w, ROLE_HEAD, false, "lm_head.weight", 11, 8, 0, 0, false);
    }
}

static void test_safetensors(void **state)
{
    (void)state;
    static const char *const dtypes[] = {"F32", "F16", "BF16"};
    char folder[256];
    make_folder(folder);
    for (int i = 0; i < 6; i++) {
        struct error err = ERROR_INIT;
        struct weights *w = NULL;
        bool strip = i >= 3;
        write_model(folder, "model.safetensors", &gpt2, 0, count_of(&gpt2), dtypes[i % 3], strip);
        assert_int_equal(open_model(folder, gpt2.config, &w, &err), STATUS_OK);
        check_gpt2(w, true);
        struct weights_summary s;
        weights_summarise(w, &s);
        assert_string_equal(s.format, "safetensors");
        char want[32];
        snprintf(want, sizeof want, "%s x 16", dtypes[i % 3]);
        assert_string_equal(s.dtypes, want);
        assert_true(s.n_files == 1 && s.n_tensors == 16 && s.bytes == (i % 3 == 0 ? 2736 : 1368));
        weights_close(w);
        write_model(folder, "model.safetensors", &llama, 0, count_of(&llama), dtypes[i % 3], strip);
        assert_int_equal(open_model(folder, llama.config, &w, &err), STATUS_OK);
        check_llama(w, false);
        weights_close(w);
    }
    remove_tree(folder);
}

/* ---- faults of the tensors ---- */

struct edit {
    const char *name; /* the tensor to change; NULL: add */
    struct tensor to; /* its new form; name NULL: removed */
    enum status status;
    const char *message;
};

static void test_faults(void **state)
{
    (void)state;
    const struct edit edits[] = {
        {"model.norm.weight", {0}, STATUS_BAD_MODEL, "tensor 'model.norm.weight' is missing"},
        {"lm_head.weight", {0}, STATUS_BAD_MODEL, "tensor 'lm_head.weight' is missing"},
        {"model.embed_tokens.weight", {0}, STATUS_BAD_MODEL, "is missing"},
        {"model.layers.0.mlp.gate_proj.weight",
         {0},
         STATUS_BAD_MODEL,
         "gate_proj.weight' is missing"},
        {"model.norm.weight",
         {"model.norm.weight", 1, {7, 0}},
         STATUS_BAD_MODEL,
         "has shape [7] (rank 1); the config asks for [8]"},
        {"model.norm.weight", {"model.norm.weight", 0, {0, 0}}, STATUS_BAD_MODEL, "(rank 0)"},
        {"model.norm.weight", {"model.norm.weight", 2, {1, 8}}, STATUS_BAD_MODEL, "(rank 2)"},
        {"model.embed_tokens.weight",
         {"model.embed_tokens.weight", 2, {10, 8}},
         STATUS_BAD_MODEL,
         "has shape [10, 8] (rank 2); the config asks for [11, 8]"},
        {"model.embed_tokens.weight",
         {"model.embed_tokens.weight", 2, {8, 11}},
         STATUS_BAD_MODEL,
         "has shape [8, 11]"},
        {"model.layers.0.mlp.up_proj.weight",
         {"model.layers.0.mlp.up_proj.weight", 1, {96, 0}},
         STATUS_BAD_MODEL,
         "asks for [12, 8]"},
        {NULL,
         {"model.layers.0.self_attn.q_norm.weight", 1, {6, 0}},
         STATUS_BAD_MODEL,
         "'model.layers.0.self_attn.q_norm.weight' is unknown to architecture llama"},
        {NULL,
         {"model.layers.1.input_layernorm.weight", 1, {8, 0}},
         STATUS_BAD_MODEL,
         "(config: 1 layers"},
        {NULL, {"model.norm.bias", 1, {8, 0}}, STATUS_BAD_MODEL, "'model.norm.bias' is unknown"},
        {NULL, {"model.extra.weight", 1, {8, 0}}, STATUS_BAD_MODEL, "is unknown"},
        {NULL, {"model.layers.0.self_attn.rotary_emb.inv_freq", 1, {3, 0}}, STATUS_OK, NULL},
        {NULL, {"model.layers.0.self_attn.q_proj.bias", 1, {24, 0}}, STATUS_OK, NULL},
        {NULL,
         {"model.layers.0.self_attn.q_proj.bias", 1, {23, 0}},
         STATUS_BAD_MODEL,
         "asks for [24]"},
    };
    char folder[256];
    make_folder(folder);
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
        struct model m = llama;
        size_t n = count_of(&m);
        size_t at = 0;
        while (at < n && (edits[i].name == NULL || strcmp(m.t[at].name, edits[i].name) != 0)) {
            at++;
        }
        if (edits[i].to.name == NULL) {
            m.t[at] = m.t[n - 1];
            m.t[n - 1].name = NULL;
        } else {
            m.t[at] = edits[i].to;
        }
        write_model(folder, "model.safetensors", &m, 0, count_of(&m), "F32", false);
        struct weights *w = NULL;
        struct error err = ERROR_INIT;
        enum status s = open_model(folder, m.config, &w, &err);
        if (s != edits[i].status ||
            (s != STATUS_OK && strstr(err.message, edits[i].message) == NULL)) {
            fail_msg("case %zu: status %s, message: %s", i, status_name(s), err.message);
        }
        if (s == STATUS_OK) {
            bool biased = edits[i].to.name != NULL && strstr(edits[i].to.name, ".bias") != NULL;
            assert_true(weights_find(w, ROLE_Q, 0, true, NULL) == biased);
        }
        weights_close(w);
    }
    /* Types: not float, not ours. */
    struct weights *w = NULL;
    struct error err = ERROR_INIT;
    write_model(folder, "model.safetensors", &llama, 0, count_of(&llama), "I16", false);
    assert_int_equal(open_model(folder, llama.config, &w, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "has type I16; readable: F32, F16, BF16"));
    write_file(folder, "model.safetensors", "\2\0\0\0\0\0\0\0{}", 10);
    assert_int_equal(open_model(folder, llama.config, &w, &err), STATUS_BAD_MODEL);
    assert_non_null(strstr(err.message, "holds no tensors"));
    remove_tree(folder);
}

static void test_ignored(void **state)
{
    (void)state;
    char folder[256];
    make_folder(folder);
    struct error err = ERROR_INIT;
    struct weights *w = NULL;
    /* GPT-2 checkpoints saved their causal masks. */
    struct model m = gpt2;
    size_t n = count_of(&m);
    m.t[n] = (struct tensor){"transformer.h.0.attn.bias", 2, {6, 6}};
    m.t[n + 1] = (struct tensor){"transformer.h.0.attn.masked_bias", 0, {0, 0}};
    m.t[n + 2] = (struct tensor){"lm_head.weight", 2, {11, 8}}; /* tied, and saved again */
    write_model(folder, "model.safetensors", &m, 0, n + 3, "F32", false);
    assert_int_equal(open_model(folder, m.config, &w, &err), STATUS_OK);
    check_gpt2(w, true);
    weights_close(w);
    w = NULL;
    /* Llama, tied: with and without the head's copy. */
    char tied[512];
    snprintf(tied, sizeof tied, "%.*s,\"tie_word_embeddings\":true}", (int)strlen(llama.config) - 1,
             llama.config);
    for (size_t head = 0; head < 2; head++) {
        write_model(folder, "model.safetensors", &llama, 0, count_of(&llama) - 1 + head, "F32",
                    false);
        assert_int_equal(open_model(folder, tied, &w, &err), STATUS_OK);
        check_llama(w, true);
        weights_close(w);
        w = NULL;
    }
    /* A bias that the family always has must be there. */
    m = gpt2;
    m.t[5] = m.t[n - 1];
    write_model(folder, "model.safetensors", &m, 0, n - 1, "F32", false);
    assert_int_equal(open_model(folder, m.config, &w, &err), STATUS_BAD_MODEL);
    assert_non_null(strstr(err.message, "'transformer.h.0.attn.c_attn.bias' is missing"));
    remove_tree(folder);
}

/* ---- shards ---- */

static void write_index(const char *folder, const struct model *m, size_t cut, const char *first,
                        const char *second, const char *drop, const char *add)
{
    struct bytes b = {0};
    const char *head = "{\"metadata\":{\"total_size\":1e30},\"weight_map\":{";
    bytes_put(&b, head, strlen(head));
    bool any = false;
    for (size_t i = 0; i < count_of(m); i++) {
        if (drop != NULL && strcmp(m->t[i].name, drop) == 0) {
            continue;
        }
        char entry[256];
        int n = snprintf(entry, sizeof entry, "%s\"%s\":\"%s\"", any ? "," : "", m->t[i].name,
                         i < cut ? first : second);
        bytes_put(&b, entry, (size_t)n);
        any = true;
    }
    if (add != NULL) {
        bytes_put(&b, ",", 1);
        bytes_put(&b, add, strlen(add));
    }
    bytes_put(&b, "}}", 2);
    write_file(folder, "model.safetensors.index.json", b.data, b.len);
    bytes_free(&b);
}

static void test_shards(void **state)
{
    (void)state;
    const char *a = "model-00001-of-00002.safetensors";
    const char *b = "model-00002-of-00002.safetensors";
    const struct {
        size_t cut; /* of the index; the files are cut at 5 */
        const char *first, *second, *drop, *add;
        enum status status;
        const char *message;
    } cases[] = {
        {5, a, b, NULL, NULL, STATUS_OK, NULL},
        {5, "../x.safetensors", b, NULL, NULL, STATUS_BAD_MODEL, "not a plain file name"},
        {5, "/etc/x.safetensors", b, NULL, NULL, STATUS_BAD_MODEL, "not a plain file name"},
        {5, "sub/x.safetensors", b, NULL, NULL, STATUS_BAD_MODEL, "not a plain file name"},
        {5, "..", b, NULL, NULL, STATUS_BAD_MODEL, "not a plain file name"},
        {5, "", b, NULL, NULL, STATUS_BAD_MODEL, "not a plain file name"},
        {5, ".safetensors", b, NULL, NULL, STATUS_BAD_MODEL, "not a plain file name"},
        {5, "x\\\\y.safetensors", b, NULL, NULL, STATUS_BAD_MODEL, "not a plain file name"},
        {5, "pytorch_model.bin", b, NULL, NULL, STATUS_BAD_MODEL, "not a plain file name"},
        {5, "gone.safetensors", b, NULL, NULL, STATUS_NOT_FOUND, "names this shard; it is missing"},
        {5, "out.safetensors", b, NULL, NULL, STATUS_BAD_MODEL, "a link out of the model's folder"},
        {4, a, b, NULL, NULL, STATUS_BAD_MODEL,
         "stands in model-00001-of-00002.safetensors; the "
         "index says model-00002"},
        {5, a, b, "model.norm.weight", NULL, STATUS_BAD_MODEL, "the index says nothing"},
        {5, a, b, NULL, "\"ghost\":\"model-00001-of-00002.safetensors\"", STATUS_BAD_MODEL,
         "'weight_map' has 13 tensors, the shards hold 12"},
        {5, a, b, NULL, "\"ghost\":7", STATUS_BAD_MODEL, "tensor 'ghost' names '(no string)'"},
        {5, a, b, NULL, "\"lm_head.weight\":\"x.safetensors\"", STATUS_BAD_MODEL, "duplicate"},
    };
    char folder[256];
    char outside[256];
    make_folder(folder);
    make_folder(outside);
    write_model(folder, a, &llama, 0, 5, "F32", false);
    write_model(folder, b, &llama, 5, 12, "BF16", false);
    write_model(outside, "x", &llama, 0, 5, "F32", false);
    char from[512];
    char to[512];
    snprintf(from, sizeof from, "%s/x", outside);
    snprintf(to, sizeof to, "%s/out.safetensors", folder);
    assert_int_equal(symlink(from, to), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_index(folder, &llama, cases[i].cut, cases[i].first, cases[i].second, cases[i].drop,
                    cases[i].add);
        struct weights *w = NULL;
        struct error err = ERROR_INIT;
        enum status s = open_model(folder, llama.config, &w, &err);
        if (s != cases[i].status ||
            (s != STATUS_OK && strstr(err.message, cases[i].message) == NULL)) {
            fail_msg("case %zu: status %s, message: %s", i, status_name(s), err.message);
        }
        if (s == STATUS_OK) {
            check_llama(w, false);
            struct weights_summary sum;
            weights_summarise(w, &sum);
            assert_true(sum.n_files == 2);
            assert_string_equal(sum.dtypes, "F32 x 5, BF16 x 7");
        }
        weights_close(w);
    }
    const char *texts[] = {"{\"weight_map\":{}}", "{\"weight_map\":[]}", "{}", "[]",
                           "{\"weight_map\":"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct weights *w = NULL;
        write_file(folder, "model.safetensors.index.json", texts[i], strlen(texts[i]));
        assert_int_equal(open_model(folder, llama.config, &w, NULL), STATUS_BAD_MODEL);
    }
    remove_tree(folder);
    remove_tree(outside);
}

/* 513 names: refused before any of them is opened; 512: the first is looked for. */
static void test_shard_limit(void **state)
{
    (void)state;
    char folder[256];
    make_folder(folder);
    for (int n = 512; n <= 513; n++) {
        struct bytes b = {0};
        bytes_put(&b, "{\"weight_map\":{", 15);
        for (int i = 0; i < n; i++) {
            char entry[64];
            int len = snprintf(entry, sizeof entry, "%s\"t%d\":\"s%d.safetensors\"",
                               i > 0 ? "," : "", i, i);
            bytes_put(&b, entry, (size_t)len);
        }
        bytes_put(&b, "}}", 2);
        write_file(folder, "model.safetensors.index.json", b.data, b.len);
        bytes_free(&b);
        struct weights *w = NULL;
        struct error err = ERROR_INIT;
        enum status s = open_model(folder, llama.config, &w, &err);
        assert_int_equal(s, n == 512 ? STATUS_NOT_FOUND : STATUS_BAD_MODEL);
        assert_true(n == 512 || strstr(err.message, "more than 512 shards") != NULL);
    }
    remove_tree(folder);
}

/* The layout of the Hugging Face cache: snapshots/<commit>/file -> ../../blobs/<hash>. */
static void test_cache_links(void **state)
{
    (void)state;
    char root[256];
    make_folder(root);
    char path[512];
    snprintf(path, sizeof path, "%s/blobs", root);
    assert_int_equal(mkdir(path, 0777), 0);
    write_model(path, "aa", &llama, 0, 5, "F32", false);
    write_model(path, "bb", &llama, 5, 12, "F32", false);
    snprintf(path, sizeof path, "%s/snapshots", root);
    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(path, sizeof path, "%s/snapshots/c0", root);
    assert_int_equal(mkdir(path, 0777), 0);
    write_index(path, &llama, 5, "a.safetensors", "b.safetensors", NULL, NULL);
    char link[600];
    snprintf(link, sizeof link, "%s/a.safetensors", path);
    assert_int_equal(symlink("../../blobs/aa", link), 0);
    snprintf(link, sizeof link, "%s/b.safetensors", path);
    assert_int_equal(symlink("../../blobs/bb", link), 0);
    struct weights *w = NULL;
    struct error err = ERROR_INIT;
    assert_int_equal(open_model(path, llama.config, &w, &err), STATUS_OK);
    check_llama(w, false);
    weights_close(w);
    remove_tree(root);
}

/* ---- GGUF ---- */

static const struct {
    const char *hf;
    const char *gguf;
} gguf_names[] = {
    {"model.embed_tokens.", "token_embd."},
    {"model.norm.", "output_norm."},
    {"lm_head.", "output."},
    {"model.layers.0.input_layernorm.", "blk.0.attn_norm."},
    {"model.layers.0.self_attn.q_proj.", "blk.0.attn_q."},
    {"model.layers.0.self_attn.k_proj.", "blk.0.attn_k."},
    {"model.layers.0.self_attn.v_proj.", "blk.0.attn_v."},
    {"model.layers.0.self_attn.o_proj.", "blk.0.attn_output."},
    {"model.layers.0.post_attention_layernorm.", "blk.0.ffn_norm."},
    {"model.layers.0.mlp.gate_proj.", "blk.0.ffn_gate."},
    {"model.layers.0.mlp.up_proj.", "blk.0.ffn_up."},
    {"model.layers.0.mlp.down_proj.", "blk.0.ffn_down."},
    {"transformer.wte.", "token_embd."},
    {"transformer.wpe.", "position_embd."},
    {"transformer.ln_f.", "output_norm."},
    {"transformer.h.0.ln_1.", "blk.0.attn_norm."},
    {"transformer.h.0.attn.c_attn.", "blk.0.attn_qkv."},
    {"transformer.h.0.attn.c_proj.", "blk.0.attn_output."},
    {"transformer.h.0.ln_2.", "blk.0.ffn_norm."},
    {"transformer.h.0.mlp.c_fc.", "blk.0.ffn_up."},
    {"transformer.h.0.mlp.c_proj.", "blk.0.ffn_down."},
};

static void gguf_name_of(const char *hf, char out[64])
{
    for (size_t i = 0; i < sizeof gguf_names / sizeof gguf_names[0]; i++) {
        size_t n = strlen(gguf_names[i].hf);
        if (strncmp(hf, gguf_names[i].hf, n) == 0) {
            snprintf(out, 64, "%s%s", gguf_names[i].gguf, hf + n);
            return;
        }
    }
    snprintf(out, 64, "%s", hf);
}

/* The data as llama.cpp's converter writes it: Conv1D transposed; rows of Q and K regrouped by
 * reshape(heads, 2, D / 2).swapaxes(1, 2). The model's head size is 6. */
static void put_gguf_data(struct bytes *b, const struct tensor *t)
{
    bool conv1d = strncmp(t->name, "transformer.h.", 14) == 0 && t->rank == 2;
    bool permuted = strstr(t->name, "q_proj") != NULL || strstr(t->name, "k_proj") != NULL;
    size_t rows = conv1d ? t->dims[1] : t->dims[0];
    size_t columns = t->rank == 1 ? 1 : conv1d ? t->dims[0] : t->dims[1];
    for (size_t r = 0; r < rows; r++) {
        size_t source = r;
        if (permuted) {
            size_t head = r / 6;
            size_t pair = r % 6 / 2;
            size_t half = r % 2;
            source = head * 6 + half * 3 + pair;
        }
        for (size_t c = 0; c < columns; c++) {
            put_f32(b, value_of(t->name, conv1d ? c * rows + source : source * columns + c));
        }
    }
}

static void write_gguf(const char *folder, const struct model *m, uint32_t type)
{
    struct bytes b = {0};
    size_t n = count_of(m);
    gguf_preamble(&b, 3, n, 0);
    uint64_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        const struct tensor *t = &m->t[i];
        char name[64];
        gguf_name_of(t->name, name);
        assert_true(t->rank <= 2);
        bool conv1d = strncmp(t->name, "transformer.h.", 14) == 0;
        uint64_t dims[5] = {t->rank == 1 || conv1d ? t->dims[0] : t->dims[1],
                            conv1d ? t->dims[1] : t->dims[0]};
        gguf_tensor_entry(&b, name, t->rank, dims, type, offset);
        offset += (elements_of(t) * 4 + 31) / 32 * 32;
    }
    for (size_t i = 0; i < n; i++) {
        put_padding(&b, 32);
        put_gguf_data(&b, &m->t[i]);
    }
    put_padding(&b, 32);
    write_file(folder, "m.gguf", b.data, b.len);
    bytes_free(&b);
}

static void test_gguf(void **state)
{
    (void)state;
    char folder[256];
    make_folder(folder);
    struct weights *w = NULL;
    struct error err = ERROR_INIT;
    write_gguf(folder, &gpt2, 0);
    assert_int_equal(open_model(folder, gpt2.config, &w, &err), STATUS_OK);
    check_gpt2(w, true); /* back to the checkpoint's numbers, so by the checkpoint's layout */
    struct weights_summary s;
    weights_summarise(w, &s);
    assert_string_equal(s.format, "gguf");
    weights_close(w);
    write_gguf(folder, &llama, 0);
    assert_int_equal(open_model(folder, llama.config, &w, &err), STATUS_OK);
    check_llama(w, false);
    weights_close(w);
    w = NULL;
    /* Biases of Q and K are permuted like their rows. */
    struct model m = llama;
    size_t n = count_of(&m);
    m.t[n] = (struct tensor){"model.layers.0.self_attn.q_proj.bias", 1, {24, 0}};
    m.t[n + 1] = (struct tensor){"rope_freqs.weight", 1, {3, 0}}; /* config_from_gguf's part */
    write_gguf(folder, &m, 0);
    assert_int_equal(open_model(folder, m.config, &w, &err), STATUS_OK);
    check_weight(w, ROLE_Q, true, "model.layers.0.self_attn.q_proj.bias", 1, 24, 0, 0, false);
    weights_close(w);
    w = NULL;
    m.t[n] = (struct tensor){"blk.0.attn_q_norm.weight", 1, {6, 0}};
    write_gguf(folder, &m, 0);
    assert_int_equal(open_model(folder, m.config, &w, &err), STATUS_BAD_MODEL);
    assert_non_null(strstr(err.message, "'blk.0.attn_q_norm.weight' is unknown"));
    write_gguf(folder, &llama, 26);
    assert_int_equal(open_model(folder, llama.config, &w, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "has type I32; readable: F32, F16, BF16, Q8_0"));
    const char *neo = "{\"model_type\":\"gpt_neo\",\"vocab_size\":11,\"hidden_size\":8,"
                      "\"num_layers\":1,\"num_heads\":2,\"max_position_embeddings\":6,"
                      "\"attention_types\":[[[\"global\"],1]]}";
    assert_int_equal(open_model(folder, neo, &w, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "no GGUF layout is known for gpt_neo"));
    struct bytes b = {0};
    gguf_preamble(&b, 3, 0, 0);
    write_file(folder, "m.gguf", b.data, b.len);
    assert_int_equal(open_model(folder, llama.config, &w, &err), STATUS_BAD_MODEL);
    bytes_free(&b);
    remove_tree(folder);
}

/* ---- which file a path stands for ---- */

static void test_paths(void **state)
{
    (void)state;
    char folder[256];
    make_folder(folder);
    struct weights *w = NULL;
    struct error err = ERROR_INIT;
    assert_int_equal(open_model(folder, llama.config, &w, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "no *.safetensors and no *.gguf"));
    assert_int_equal(open_model("/nonexistent", llama.config, &w, &err), STATUS_NOT_FOUND);
    write_gguf(folder, &llama, 0);
    char path[512];
    snprintf(path, sizeof path, "%s/m.gguf", folder);
    assert_int_equal(open_model(path, llama.config, &w, &err), STATUS_OK);
    weights_close(w);
    w = NULL;
    /* One file of another name; two without an index; model.safetensors before the index. */
    write_model(folder, "x.safetensors", &llama, 0, 12, "F32", false);
    assert_int_equal(open_model(folder, llama.config, &w, &err), STATUS_OK);
    struct weights_summary s;
    weights_summarise(w, &s);
    assert_string_equal(s.format, "safetensors");
    weights_close(w);
    w = NULL;
    write_model(folder, "y.safetensors", &llama, 0, 12, "F32", false);
    assert_int_equal(open_model(folder, llama.config, &w, &err), STATUS_BAD_MODEL);
    assert_non_null(strstr(err.message, "2 files end in .safetensors; shards need their"));
    write_file(folder, "model.safetensors.index.json", "nonsense", 8);
    assert_int_equal(open_model(folder, llama.config, &w, &err), STATUS_BAD_MODEL);
    write_model(folder, "model.safetensors", &llama, 0, 12, "F32", false);
    assert_int_equal(open_model(folder, llama.config, &w, &err), STATUS_OK);
    weights_close(w);
    remove_tree(folder);
}

/* ---- files that shrink, refused allocations ---- */

static void test_shrinking_file(void **state)
{
    (void)state;
    char folder[256];
    make_folder(folder);
    char path[512];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    write_model(folder, "model.safetensors", &llama, 0, 12, "F16", false);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    struct weights *w = NULL;
    struct error err = ERROR_INIT;
    assert_int_equal(open_model(folder, llama.config, &w, &err), STATUS_OK);
    /* The last tensor is the head: cut into its last row. */
    assert_int_equal(truncate(path, st.st_size - 1), 0);
    float row[8];
    assert_int_equal(weights_read_rows(w, ROLE_HEAD, 0, false, 9, 1, row, &err), STATUS_OK);
    assert_int_equal(weights_read_rows(w, ROLE_HEAD, 0, false, 10, 1, row, &err), STATUS_BAD_DATA);
    assert_non_null(strstr(err.message, path));
    weights_close(w);
    remove_tree(folder);
}

/* A damaged header: refused, or every weight can be read; never a crash or a read outside. */
static void test_damage(void **state)
{
    (void)state;
    char folder[256];
    make_folder(folder);
    char path[512];
    int opened = 0;
    for (int kind = 0; kind < 2; kind++) {
        if (kind == 0) {
            write_model(folder, "model.safetensors", &llama, 0, 12, "F16", false);
            snprintf(path, sizeof path, "%s/model.safetensors", folder);
        } else {
            unlink(path);
            write_gguf(folder, &llama, 0);
            snprintf(path, sizeof path, "%s/m.gguf", folder);
        }
        struct rng r = rng_stream(3, (uint64_t)kind);
        int fd = open(path, O_RDWR);
        assert_true(fd >= 0);
        for (int i = 0; i < 3000; i++) {
            off_t at = (off_t)rng_below(&r, 1000);
            uint8_t old;
            uint8_t new = (uint8_t)rng_next(&r);
            assert_true(pread(fd, &old, 1, at) == 1 && pwrite(fd, &new, 1, at) == 1);
            struct weights *w = NULL;
            struct error err = ERROR_INIT;
            if (open_model(folder, llama.config, &w, &err) == STATUS_OK) {
                static float out[24 * 24];
                opened++;
                for (uint32_t role = 0; role < ROLE_COUNT; role++) {
                    struct weight_info info;
                    if (weights_find(w, (enum weight_role)role, 0, false, &info)) {
                        assert_int_equal(weights_read_rows(w, (enum weight_role)role, 0, false, 0,
                                                           info.rows, out, &err),
                                         STATUS_OK);
                    }
                }
                weights_close(w);
            }
            assert_true(pwrite(fd, &old, 1, at) == 1);
        }
        close(fd);
    }
    assert_true(opened > 0 && opened < 3000);
    print_message("6000 damages, %d opened\n", opened);
    remove_tree(folder);
}

static void test_refused_allocations(void **state)
{
    (void)state;
    char folder[256];
    make_folder(folder);
    for (int kind = 0; kind < 3; kind++) {
        const struct model *m = kind == 2 ? &gpt2 : &llama;
        if (kind == 0) {
            write_gguf(folder, m, 0);
        } else if (kind == 1) {
            write_model(folder, "a.safetensors", m, 0, 5, "F32", false);
            write_model(folder, "b.safetensors", m, 5, 12, "F32", false);
            write_index(folder, m, 5, "a.safetensors", "b.safetensors", NULL, NULL);
        } else {
            write_model(folder, "model.safetensors", m, 0, count_of(m), "F16", false);
        }
        static struct model_config c;
        assert_int_equal(config_from_json(m->config, strlen(m->config), "c", &c, NULL), STATUS_OK);
        uint64_t k = 1;
        for (;; k++) {
            struct weights *w = NULL;
            struct error err = ERROR_INIT;
            mem_fail_at(k, k % 2 == 0);
            enum status s = weights_open(folder, &c, &w, &err);
            float rows[8 * 8];
            if (s == STATUS_OK) {
                s = weights_read_rows(w, ROLE_O, 0, false, 0, 2, rows, &err);
            }
            mem_fail_at(0, false);
            weights_close(w);
            if (s == STATUS_OK) {
                break;
            }
            if (s != STATUS_NO_MEMORY) {
                fail_msg("kind %d, allocation %llu: %s", kind, (unsigned long long)k, err.message);
            }
        }
        assert_true(k > 6);
        print_message("%llu allocations refused\n", (unsigned long long)(k - 1));
    }
    remove_tree(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_ignored),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_shard_limit),
        cmocka_unit_test(test_cache_links),
        cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_shrinking_file),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_refused_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
