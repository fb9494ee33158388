/* app_tokens.c - see app_int.h: /tokenize, /detokenize, texts of single tokens. */
#include "serve/app_int.h"

/* ---- texts of single tokens ---- */

enum status token_texts_init(struct token_texts *t, const struct tokenizer *tokenizer, uint32_t n,
                             struct error *err)
{
    t->offsets = mem_alloc((size_t)n + 1, sizeof *t->offsets);
    for (uint32_t id = 0; id < n && t->offsets != NULL; id++) {
        tokenizer_append_token(tokenizer, (int32_t)id, &t->bytes);
        t->offsets[id + 1] = (uint32_t)t->bytes.len;
    }
    if (t->offsets == NULL || t->bytes.failed || t->bytes.len > UINT32_MAX) {
        token_texts_deinit(t);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the texts of %u tokens", n);
    }
    t->n = n;
    return STATUS_OK;
}

void token_texts_deinit(struct token_texts *t)
{
    strbuf_deinit(&t->bytes);
    mem_free(t->offsets);
    *t = (struct token_texts){0};
}

struct api_text token_text(const struct token_texts *t, int32_t id)
{
    if (id < 0 || (uint32_t)id >= t->n) {
        return (struct api_text){.data = "", .len = 0};
    }
    return (struct api_text){.data = strbuf_text(&t->bytes) + t->offsets[id],
                             .len = t->offsets[id + 1] - t->offsets[id]};
}

/* ---- /tokenize ---- */

/* The tokens as the vocabulary spells them, as vLLM does; NULL: refused. */
static struct api_text *spell(const struct app *a, const struct token_ids *ids)
{
    struct api_text *strs = mem_alloc(ids->n, sizeof *strs);
    for (size_t i = 0; i < ids->n && strs != NULL; i++) {
        strs[i].data = tokenizer_token(a->config.tokenizer, ids->ids[i], &strs[i].len);
        if (strs[i].data == NULL) {
            strs[i] = token_text(&a->texts, ids->ids[i]);
        }
    }
    return strs;
}

static bool tokenize(struct app *a, const struct api_request *r, struct token_ids *ids,
                     struct api_errors *errors)
{
    app_warn_unknown(a, r);
    if (!api_request_check_model(r, a->config.served_names, a->config.n_served_names, errors)) {
        return false;
    }
    if (r->n_messages == 0) {
        return app_encode(a, r, &r->prompts[0], ids, errors);
    }
    struct strbuf text = {0};
    bool ok = app_render(a, r, &text, errors);
    struct api_prompt prompt = {.text = {.data = strbuf_text(&text), .len = text.len}};
    ok = ok && app_encode(a, r, &prompt, ids, errors);
    strbuf_deinit(&text);
    return ok;
}

void app_tokenize(struct app *a, const struct call *call)
{
    struct api_errors errors;
    struct api_request r;
    struct api_limits limits = {.n_vocab = a->config.n_vocab};
    if (api_request_parse(API_TOKENIZE, call->body, call->body_len, &limits, &r, &errors) !=
        STATUS_OK) {
        app_answer_errors(call->x, call->request_id, &errors);
        return;
    }
    struct token_ids ids = {0};
    if (tokenize(a, &r, &ids, &errors)) {
        struct strbuf out = {0};
        struct api_text *strs = r.return_token_strs && ids.n > 0 ? spell(a, &ids) : NULL;
        out.failed = r.return_token_strs && ids.n > 0 && strs == NULL;
        api_write_tokenize(&out, ids.ids, (uint32_t)ids.n, strs, a->context);
        app_answer(call->x, call->request_id, 200, &out);
        mem_free(strs);
        strbuf_deinit(&out);
    } else {
        app_answer_errors(call->x, call->request_id, &errors);
    }
    token_ids_deinit(&ids);
    api_request_deinit(&r);
}

void app_detokenize(struct app *a, const struct call *call)
{
    struct api_errors errors;
    struct api_request r;
    struct api_limits limits = {.n_vocab = a->config.n_vocab};
    if (api_request_parse(API_DETOKENIZE, call->body, call->body_len, &limits, &r, &errors) !=
        STATUS_OK) {
        app_answer_errors(call->x, call->request_id, &errors);
        return;
    }
    app_warn_unknown(a, &r);
    if (api_request_check_model(&r, a->config.served_names, a->config.n_served_names, &errors)) {
        struct strbuf text = {0};
        struct strbuf out = {0};
        tokenizer_decode(a->config.tokenizer, r.tokens, r.n_tokens, true, &text);
        out.failed = text.failed;
        api_write_detokenize(&out, strbuf_text(&text), text.len);
        app_answer(call->x, call->request_id, 200, &out);
        strbuf_deinit(&text);
        strbuf_deinit(&out);
    } else {
        app_answer_errors(call->x, call->request_id, &errors);
    }
    api_request_deinit(&r);
}
