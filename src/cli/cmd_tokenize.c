/* cmd_tokenize.c - `llmsched tokenize`: text to ids by the model's own tokenizer. */
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/common.h"

/* Text larger than this is not meant for one prompt. */
#define TOKENIZE_MAX_BYTES ((size_t)256 << 20)

static enum status read_text(const char *file, const struct text_list *words, struct strbuf *out,
                             struct error *err)
{
    if (file != NULL && strcmp(file, "-") != 0) {
        char *text;
        size_t len;
        enum status s = fs_read_file(file, TOKENIZE_MAX_BYTES, &text, &len, err);
        if (s == STATUS_OK) {
            strbuf_append(out, text, len);
            mem_free(text);
        }
        return s;
    }
    for (size_t i = 0; i < words->n && file == NULL; i++) {
        strbuf_puts(out, i > 0 ? " " : "");
        strbuf_puts(out, words->items[i]);
    }
    if (words->n == 0 || file != NULL) {
        char part[4096];
        size_t n;
        while ((n = fread(part, 1, sizeof part, stdin)) > 0 && out->len < TOKENIZE_MAX_BYTES) {
            strbuf_append(out, part, n);
        }
    }
    return out->failed ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for the text") : STATUS_OK;
}

static int tokenize(const struct model_flags *flags, const char *text, size_t len)
{
    struct error err = ERROR_INIT;
    struct hub_env env = hub_env_from_environment();
    struct model_options options = model_options_from(flags, &env, NULL);
    struct model_parts files;
    struct token_ids ids = {0};
    enum status s = model_parts_open(&options, false, &files, &err);
    if (s != STATUS_OK) {
        return fail(s, &err);
    }
    s = tokenizer_encode(files.tokenizer, text, len, true, &ids, &err);
    for (size_t i = 0; i < ids.n && s == STATUS_OK; i++) {
        printf("%s%d", i > 0 ? " " : "", ids.ids[i]);
    }
    if (s == STATUS_OK) {
        putchar('\n');
    }
    token_ids_deinit(&ids);
    model_parts_close(&files);
    return s == STATUS_OK ? 0 : fail(s, &err);
}

static int run(int argc, char **argv)
{
    struct model_flags flags = MODEL_FLAGS_INIT;
    const char *file = NULL;
    const struct option_spec specs[] = {
        MODEL_OPTION(flags),
        {.name = "--file",
         .letter = 'f',
         .kind = OPTION_TEXT,
         .target = &file,
         .value = "FILE",
         .help =
             "the text's file, - for standard input (default: the arguments, else standard input)"},
    };
    struct error err = ERROR_INIT;
    struct text_list words = {0};
    struct strbuf text = {0};
    bool help;
    enum status s = options_parse(specs, COUNT_OF(specs), argc, argv, &words, &help, &err);
    if (s == STATUS_OK && !help) {
        s = read_text(file, &words, &text, &err);
    }
    int code;
    if (s != STATUS_OK) {
        code = fail(s, &err);
    } else if (help) {
        options_print_help(&command_tokenize, specs, COUNT_OF(specs));
        code = 0;
    } else {
        code = tokenize(&flags, strbuf_text(&text), text.len);
    }
    strbuf_deinit(&text);
    text_list_deinit(&words);
    return code;
}

const struct command command_tokenize = {
    .name = "tokenize",
    .summary = "Print the token ids of a text.",
    .usage = "[TEXT] [OPTIONS]",
    .examples = "  llmsched tokenize \"The capital of France is\"\n"
                "  llmsched tokenize --model gpt2 --file book.txt\n",
    .run = run,
};
