/*
 * chat_template.c - finds a model's chat template, and which family's it is. The template's own
 * text is then run (jinja_int.h), so nothing here says what a prompt looks like.
 *
 * A family is told by texts that its templates write. Only templates of known families are taken:
 * they are what is tested against Jinja, and what ends an answer is known for them.
 */
#include "model/chat_template.h"

#include <string.h>

#include "base/fs.h"
#include "model/files.h"
#include "model/gguf.h"
#include "model/jinja_int.h"
#include "model/jsontext.h"

#define COUNT_OF(a)      (sizeof(a) / sizeof(a)[0])
#define MAX_CONFIG_BYTES ((size_t)16 << 20) /* tokenizer_config.json; Llama 3's is 50 KiB */

struct chat_template {
    const char *name;
    char *bos_token;
    char *eos_token;
    struct jinja program;
};

static const struct family {
    const char *name;
    const char *marks[3]; /* written by all its templates; together by no other's */
    bool uses_eos;
} families[] = {
    {"chatml", {"<|im_start|>", "<|im_end|>"}, false},
    {"zephyr", {"<|user|>", "<|assistant|>", "<|system|>"}, true},
    {"llama-2", {"[INST]", "[/INST]", "<<SYS>>"}, true},
    {"llama-3", {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}, false},
};

static enum status no_memory(struct error *err)
{
    return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a chat template");
}

static enum status recognise(struct chat_template *t, struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(families); i++) {
        const struct family *f = &families[i];
        bool found = !f->uses_eos || t->program.names[JINJA_EOS_TOKEN].is_read;
        for (size_t m = 0; m < COUNT_OF(f->marks) && f->marks[m] != NULL; m++) {
            found = found && jinja_spells(&t->program, f->marks[m]);
        }
        if (found && t->name != NULL) {
            return error_set(err, STATUS_UNSUPPORTED, -1, "the marks of two families: %s and %s",
                             t->name, f->name);
        }
        t->name = found ? f->name : t->name;
    }
    return t->name != NULL
               ? STATUS_OK
               : error_set(err, STATUS_UNSUPPORTED, -1, "none of the marks of a known family");
}

/* A token that the template writes must have a text: Jinja would write nothing, or fail. */
static enum status check_tokens(const struct chat_template *t, struct error *err)
{
    bool no_bos = t->program.names[JINJA_BOS_TOKEN].is_read && t->bos_token[0] == '\0';
    bool no_eos = t->program.names[JINJA_EOS_TOKEN].is_read && t->eos_token[0] == '\0';
    return no_bos || no_eos
               ? error_set(err, STATUS_UNSUPPORTED, -1, "%s, which the model does not name",
                           no_bos ? "bos_token" : "eos_token")
               : STATUS_OK;
}

/* Runs the template over the usual orders of roles, so that what it cannot do shows here and not
 * in the middle of a service. One that refuses them all is of no use. */
static enum status try_out(const struct chat_template *t, struct error *err)
{
    static const struct chat_message messages[] = {
        {CHAT_SYSTEM, "s", 1}, {CHAT_USER, "u", 1}, {CHAT_ASSISTANT, "a", 1}, {CHAT_USER, "u", 1}};
    static const struct {
        size_t from, to;
    } parts[] = {{1, 2}, {0, 2}, {1, 4}, {0, 4}, {0, 3}, {1, 3}};
    struct strbuf out = {0};
    enum status st = STATUS_USAGE;
    bool worked = false;
    for (size_t i = 0; i < 2 * COUNT_OF(parts); i++) {
        size_t from = parts[i / 2].from;
        st =
            chat_template_render(t, &messages[from], parts[i / 2].to - from, i % 2 != 0, &out, err);
        worked = worked || st == STATUS_OK;
        if (st != STATUS_OK && st != STATUS_USAGE) {
            break;
        }
    }
    strbuf_deinit(&out);
    if (st == STATUS_OK || st == STATUS_USAGE) {
        st = worked ? STATUS_OK
                    : error_set(err, STATUS_UNSUPPORTED, -1, "it refuses every conversation");
    }
    return st;
}

enum status chat_template_from_text(const char *text, size_t len, const char *bos_token,
                                    const char *eos_token, struct chat_template **out,
                                    struct error *err)
{
    struct chat_template *t = mem_alloc(1, sizeof *t);
    if (t == NULL) {
        return no_memory(err);
    }
    t->bos_token = mem_strdup(bos_token);
    t->eos_token = mem_strdup(eos_token);
    enum status st = t->bos_token != NULL && t->eos_token != NULL
                         ? jinja_parse(text, len, &t->program, err)
                         : no_memory(err);
    st = st == STATUS_OK ? recognise(t, err) : st;
    st = st == STATUS_OK ? check_tokens(t, err) : st;
    st = st == STATUS_OK ? try_out(t, err) : st;
    if (st != STATUS_OK) {
        if (st == STATUS_UNSUPPORTED) {
            error_prefix(err,
                         "the model's chat template is not one of ChatML (SmolLM2), Zephyr and "
                         "TinyLlama, Llama 2, Llama 3 in their plain form");
        }
        chat_template_close(t);
        return st;
    }
    *out = t;
    return STATUS_OK;
}

void chat_template_close(struct chat_template *t)
{
    if (t != NULL) {
        jinja_deinit(&t->program);
        mem_free(t->bos_token);
        mem_free(t->eos_token);
        mem_free(t);
    }
}

const char *chat_template_name(const struct chat_template *t)
{
    return t->name;
}

enum status chat_template_render(const struct chat_template *t, const struct chat_message *messages,
                                 size_t n, bool add_generation_prompt, struct strbuf *out,
                                 struct error *err)
{
    struct jinja_input in = {.messages = messages,
                             .n = n,
                             .bos_token = t->bos_token,
                             .eos_token = t->eos_token,
                             .add_generation_prompt = add_generation_prompt};
    struct strbuf text = {0};
    if (n == 0) {
        return error_set(err, STATUS_USAGE, -1, "a chat needs at least one message");
    }
    enum status st = jinja_run(&t->program, &in, &text, err);
    if (st == STATUS_OK) {
        strbuf_append(out, strbuf_text(&text), text.len);
        st = out->failed ? no_memory(err) : STATUS_OK;
    }
    strbuf_deinit(&text);
    return st;
}

/* --- where it is kept ----------------------------------------------------------------------- */

/* The text of a token by the id under `key`; "" when the file does not name one. */
static enum status gguf_token(const struct gguf *g, const char *key, struct gguf_string *out,
                              struct error *err)
{
    uint64_t id = 0;
    uint64_t count = 0;
    const struct gguf_string *tokens = NULL;
    struct error ignored = ERROR_INIT;
    *out = (struct gguf_string){"", 0};
    enum status st = gguf_get_u64(g, key, &id, &ignored);
    if (st == STATUS_NOT_FOUND) {
        return STATUS_OK;
    }
    if (st != STATUS_OK) {
        return error_set(err, st, ignored.position, "%s", ignored.message);
    }
    st = gguf_get_strings(g, "tokenizer.ggml.tokens", &tokens, &count, err);
    if (st == STATUS_OK && id >= count) {
        return error_set(err, STATUS_BAD_MODEL, -1, "%s: %s is beyond the vocabulary", gguf_path(g),
                         key);
    }
    if (st == STATUS_OK) {
        *out = tokens[id];
    }
    return st;
}

static enum status open_gguf(const char *path, struct chat_template **out, struct error *err)
{
    struct gguf *g = NULL;
    struct gguf_string text = {0};
    struct gguf_string tokens[2];
    char *copies[2] = {NULL, NULL};
    enum status st = gguf_open(path, &g, err);
    if (st != STATUS_OK) {
        return st;
    }
    st = gguf_get_string(g, "tokenizer.chat_template", &text, err);
    if (st == STATUS_NOT_FOUND) {
        error_set(err, st, -1, "%s: the model has no chat template", path);
    }
    static const char *const keys[2] = {"tokenizer.ggml.bos_token_id",
                                        "tokenizer.ggml.eos_token_id"};
    for (int i = 0; i < 2 && st == STATUS_OK; i++) {
        st = gguf_token(g, keys[i], &tokens[i], err);
        if (st == STATUS_OK) {
            copies[i] = mem_strndup(tokens[i].text, tokens[i].len);
            st = copies[i] != NULL ? STATUS_OK : no_memory(err);
        }
    }
    if (st == STATUS_OK) {
        st = chat_template_from_text(text.text, text.len, copies[0], copies[1], out, err);
        if (st == STATUS_UNSUPPORTED) {
            error_prefix(err, "%s", path);
        }
    }
    mem_free(copies[0]);
    mem_free(copies[1]);
    gguf_close(g);
    return st;
}

/* A file of the folder that need not be there: *text is NULL then. */
static enum status read_optional(const char *folder, const char *name, size_t max_bytes,
                                 char **text, size_t *len, struct error *err)
{
    char *path = fs_join(folder, name);
    if (path == NULL) {
        return no_memory(err);
    }
    enum status st = fs_is_file(path) ? fs_read_file(path, max_bytes, text, len, err) : STATUS_OK;
    mem_free(path);
    return st;
}

static enum status read_json(const char *folder, const char *name, json_t **out, struct error *err)
{
    static const struct json_limits limits = {
        .max_depth = 64, .max_values = 1u << 20, .integers_as_real = true};
    char *text = NULL;
    size_t len = 0;
    enum status st = read_optional(folder, name, MAX_CONFIG_BYTES, &text, &len, err);
    if (st == STATUS_OK && text != NULL) {
        st = json_text_parse(text, len, &limits, name, 0, out, err);
        if (st != STATUS_OK) {
            error_prefix(err, "%s", folder);
        }
    }
    mem_free(text);
    return st;
}

/* "text" or {"content": "text"}, in the first file that has it; else "". */
static const char *token_text(json_t *const files[2], const char *key)
{
    for (int i = 0; i < 2; i++) {
        const json_t *value = json_object_get(files[i], key);
        value = json_is_object(value) ? json_object_get(value, "content") : value;
        if (json_is_string(value)) {
            return json_string_value(value);
        }
    }
    return "";
}

/* own: the text of chat_template.jinja, or NULL. NOT_FOUND when neither has a template. */
static enum status from_configs(const char *folder, const char *own, size_t own_len,
                                json_t *const files[2], struct chat_template **out,
                                struct error *err)
{
    const json_t *given = json_object_get(files[0], "chat_template");
    const char *text = own != NULL ? own : json_string_value(given);
    size_t len = own != NULL ? own_len : json_string_length(given);
    if (text == NULL && given != NULL && !json_is_null(given)) {
        return error_set(err, STATUS_UNSUPPORTED, -1,
                         "%s: tokenizer_config.json: chat_template is not one text; put the one to "
                         "use into chat_template.jinja",
                         folder);
    }
    if (text == NULL) {
        return error_set(err, STATUS_NOT_FOUND, -1, "%s: the model has no chat template", folder);
    }
    enum status st = chat_template_from_text(text, len, token_text(files, "bos_token"),
                                             token_text(files, "eos_token"), out, err);
    if (st == STATUS_UNSUPPORTED) {
        error_prefix(err, "%s", folder);
    }
    return st;
}

static enum status open_folder(const char *folder, struct chat_template **out, struct error *err)
{
    json_t *files[2] = {NULL, NULL};
    char *own = NULL;
    size_t len = 0;
    enum status st = read_optional(folder, "chat_template.jinja", JINJA_MAX_BYTES, &own, &len, err);
    st = st == STATUS_OK ? read_json(folder, "tokenizer_config.json", &files[0], err) : st;
    st = st == STATUS_OK ? read_json(folder, "special_tokens_map.json", &files[1], err) : st;
    st = st == STATUS_OK ? from_configs(folder, own, len, files, out, err) : st;
    mem_free(own);
    json_decref(files[0]);
    json_decref(files[1]);
    return st;
}

enum status chat_template_open(const char *path, struct chat_template **out, struct error *err)
{
    if (!fs_is_dir(path)) {
        return open_gguf(path, out, err);
    }
    enum status st = open_folder(path, out, err);
    if (st != STATUS_NOT_FOUND) {
        return st;
    }
    /* The tokenizer of a folder with a .gguf alone is in there, and so is the template. */
    struct model_files files = {0};
    struct error ignored = ERROR_INIT;
    if (model_files_find(path, &files, &ignored) == STATUS_OK) {
        st = files.format == MODEL_FORMAT_GGUF ? open_gguf(files.file, out, err) : st;
        model_files_deinit(&files);
    }
    return st;
}
