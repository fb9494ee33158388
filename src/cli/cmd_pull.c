/* cmd_pull.c - `llmsched pull ID`: a model from the hub into the local cache. */
#include <stdio.h>

#include "base/mem.h"
#include "cli/common.h"

static int pull(const char *id, const char *revision, bool quiet)
{
    struct error err = ERROR_INIT;
    struct progress_bar bar;
    progress_bar_init(&bar, quiet);
    struct progress progress = progress_bar_hook(&bar);
    struct hub_env env = hub_env_from_environment();
    char *path = NULL;
    stop_install();
    enum status s = hub_pull(id, revision, &env, &progress, stop_flag(), &path, &err);
    progress_bar_clear(&bar);
    if (s != STATUS_OK) {
        int code = fail(s, &err);
        return s == STATUS_INTERRUPTED ? stop_exit_code() : code;
    }
    printf("%s\n", path);
    mem_free(path);
    return 0;
}

static int run(int argc, char **argv)
{
    const char *revision = "main";
    bool quiet = false;
    const struct option_spec specs[] = {
        {.name = "--revision",
         .kind = OPTION_TEXT,
         .target = &revision,
         .value = "REV",
         .help = "branch, tag or commit (default: main)"},
        {.name = "--quiet",
         .letter = 'q',
         .kind = OPTION_FLAG,
         .target = &quiet,
         .help = "no progress"},
    };
    struct error err = ERROR_INIT;
    struct text_list ids = {0};
    bool help;
    enum status s = options_parse(specs, COUNT_OF(specs), argc, argv, &ids, &help, &err);
    int code;
    if (s == STATUS_OK && help) {
        options_print_help(&command_pull, specs, COUNT_OF(specs));
        code = 0;
    } else if (s == STATUS_OK && ids.n != 1) {
        s = error_set(&err, STATUS_USAGE, -1, "pull takes one model id, as in llmsched pull gpt2");
        code = fail(s, &err);
    } else {
        code = s == STATUS_OK ? pull(ids.items[0], revision, quiet) : fail(s, &err);
    }
    text_list_deinit(&ids);
    return code;
}

const struct command command_pull = {
    .name = "pull",
    .summary = "Download a model from the Hugging Face hub.",
    .usage = "ID [OPTIONS]",
    .examples = "  llmsched pull gpt2\n"
                "  HF_TOKEN=... llmsched pull meta-llama/Llama-3.2-1B\n",
    .run = run,
};
