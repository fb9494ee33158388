/* env_file.c - see env_file.h. */
#include "cli/env_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dotenv.h"
#include "base/fs.h"
#include "base/mem.h"
#include "cli/common.h"

#define ENV_FILE ".env"

/* scheduler/start_server.sh has the same list. */
static const char *const prefixes[] = {
    "LLM_",    "LLMSCHED_", "VLLM_",        "GPU_MEMORY_UTIL",
    "OPENAI_", "HF_",       "HUGGINGFACE_", "TRANSFORMERS_",
};

static struct known {
    const char *name;
    bool secret;
    bool from_file;
} known[] = {
    {.name = "LLM_MODEL"},
    {.name = "VLLM_ENDPOINT"},
    {.name = "VLLM_HOST"},
    {.name = "VLLM_PORT"},
    {.name = "GPU_MEMORY_UTIL"},
    {.name = "OPENAI_API_KEY", .secret = true},
    {.name = "LLMSCHED_API_KEY", .secret = true},
    {.name = "LLMSCHED_ISA"},
    {.name = "HF_ENDPOINT"},
    {.name = "HF_TOKEN", .secret = true},
    {.name = "HF_TOKEN_PATH"},
    {.name = "HF_HUB_CACHE"},
    {.name = "HF_HOME"},
    {.name = "HF_HUB_OFFLINE"},
};

static bool is_ours(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(prefixes); i++) {
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) {
            return true;
        }
    }
    return false;
}

static enum status apply(const struct dotenv_pair *p, struct error *err)
{
    if (!is_ours(p->name) || getenv(p->name) != NULL) {
        return STATUS_OK;
    }
    if (setenv(p->name, p->value, 0) != 0) {
        return error_set(err, STATUS_NO_MEMORY, -1, "%s: %s: %s", ENV_FILE, p->name,
                         strerror(errno));
    }
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        if (strcmp(known[i].name, p->name) == 0) {
            known[i].from_file = true;
        }
    }
    return STATUS_OK;
}

enum status env_file_apply(struct error *err)
{
    if (!fs_is_file(
            ENV_FILE)) { /* absent, or a folder: some people keep a virtual environment there */
        return STATUS_OK;
    }
    char *text;
    size_t n;
    enum status s = fs_read_file(ENV_FILE, DOTENV_MAX_BYTES, &text, &n, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct dotenv d;
    s = dotenv_parse(text, n, ENV_FILE, &d, err);
    mem_free(text);
    if (s != STATUS_OK) {
        return s;
    }
    for (size_t i = 0; i < d.n && s == STATUS_OK; i++) {
        s = apply(&d.pairs[i], err);
    }
    dotenv_deinit(&d);
    return s;
}

void env_file_print(void)
{
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        const struct known *k = &known[i];
        const char *value = getenv(k->name);
        const char *whence = value == NULL ? "-" : k->from_file ? ENV_FILE : "environment";
        bool hide = k->secret && value != NULL && value[0] != '\0';
        printf("%-17s %-12s %s\n", k->name, whence,
               value == NULL ? "" : (hide ? "(not shown)" : value));
    }
}
