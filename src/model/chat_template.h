/*
 * chat_template.h - messages into the text of a prompt, for the chat formats we know.
 *
 * A model's template is a program in a language of its own (Jinja). The template's own text is run,
 * by an interpreter of the small part of Jinja that the families ChatML, Zephyr, Llama 2 and
 * Llama 3 need; a template that uses anything else (tools, dates, macros), or is of no known
 * family, is refused when it is opened, with the reason and its place, never guessed. What is
 * rendered is therefore byte for byte what Transformers' apply_chat_template gives.
 * Immutable after opening: any number of threads may render.
 */
#ifndef LLMSCHED_MODEL_CHAT_TEMPLATE_H
#define LLMSCHED_MODEL_CHAT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/strbuf.h"

struct chat_template;
struct tokenizer;

enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT };

struct chat_message {
    enum chat_role role;
    const char *text;
    size_t len;
};

/* The template of the model at `path` (folder or .gguf): chat_template.jinja, chat_template of
 * tokenizer_config.json, or tokenizer.chat_template of the GGUF. Errors: NOT_FOUND (the model has
 * none), UNSUPPORTED (not recognised, says what would be), BAD_MODEL, IO, NO_MEMORY. */
enum status chat_template_open(const char *path, struct chat_template **out,
                               struct error *err) MUST_USE;
/* The same from the template's text and the special tokens it may name ("" where there is none; a
 * template that names that one is then refused). */
enum status chat_template_from_text(const char *text, size_t len, const char *bos_token,
                                    const char *eos_token, struct chat_template **out,
                                    struct error *err) MUST_USE;
void chat_template_close(struct chat_template *t);

/* "chatml", "zephyr", "llama-2", "llama-3" */
const char *chat_template_name(const struct chat_template *t);

/* Appends the prompt's text, special tokens spelt out: encode it with add_special off.
 * A message that spells a special token is not changed: encoding finds the token, as it does in
 * Transformers and vLLM. *out is unchanged on error.
 * Errors: USAGE (no message, an order of roles that the template refuses: names the message),
 * UNSUPPORTED (an operation that only these messages lead to), NO_MEMORY. */
enum status chat_template_render(const struct chat_template *t, const struct chat_message *messages,
                                 size_t n, bool add_generation_prompt, struct strbuf *out,
                                 struct error *err) MUST_USE;

#endif
