/* cmd_selftest.c - `llmsched selftest client`: the error of the measuring client. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/selftest_client.h"
#include "cli/common.h"

struct selftest_flags {
    uint64_t streams;
    uint64_t tokens_per_s;
    double seconds;
    bool json;
};

static int selftest_client(const struct selftest_flags *f)
{
    struct error err = ERROR_INIT;
    char program[4096];
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);
    if (len < 0) {
        error_set(&err, STATUS_IO, -1, "/proc/self/exe: %s", strerror(errno));
        return fail(STATUS_IO, &err);
    }
    program[len] = '\0';
    stop_install();
    struct selftest_config config = {.program = program,
                                     .streams = (uint32_t)f->streams,
                                     .tokens_per_s = (uint32_t)f->tokens_per_s,
                                     .seconds = f->seconds,
                                     .stop = stop_flag()};
    struct selftest_result result;
    enum status s = selftest_client_run(&config, &result, &err);
    if (s == STATUS_INTERRUPTED) {
        return stop_exit_code();
    }
    if (s != STATUS_OK) {
        return fail(s, &err);
    }
    struct strbuf text = {0};
    if (f->json) {
        selftest_print_json(&result, &text);
    } else {
        selftest_print_text(&result, &text);
    }
    fputs(strbuf_text(&text), stdout);
    strbuf_deinit(&text);
    if (result.is_void) {
        error_set(&err, STATUS_INVALID, -1, "the self-test is void%s%s",
                  result.failed > 0 ? ": " : ": the server was late against its own timetable",
                  result.failed > 0 ? result.first_failure : "");
        return fail(STATUS_INVALID, &err);
    }
    return 0;
}

static int run(int argc, char **argv)
{
    struct selftest_flags f = {.streams = 1000, .tokens_per_s = 100, .seconds = 10.0};
    const struct option_spec specs[] = {
        {.name = "--streams",
         .kind = OPTION_UINT,
         .target = &f.streams,
         .min = 1,
         .max = SELFTEST_MAX_STREAMS,
         .value = "N",
         .help = "streams at once, a connection each (default: 1000)"},
        {.name = "--tokens-per-second",
         .kind = OPTION_UINT,
         .target = &f.tokens_per_s,
         .min = 1,
         .max = 10000,
         .value = "N",
         .help = "of each stream (default: 100)"},
        {.name = "--seconds",
         .kind = OPTION_REAL,
         .target = &f.seconds,
         .min = 0.01,
         .max = 3600,
         .value = "S",
         .help = "length of a stream (default: 10)"},
        {.name = "--json", .kind = OPTION_FLAG, .target = &f.json, .help = "JSON on stdout"},
    };
    struct error err = ERROR_INIT;
    struct text_list words = {0};
    bool help;
    enum status s = options_parse(specs, COUNT_OF(specs), argc, argv, &words, &help, &err);
    if (s == STATUS_OK && !help && (words.n != 1 || strcmp(words.items[0], "client") != 0)) {
        s = error_set(&err, STATUS_USAGE, -1, "selftest takes `client`; --help shows examples");
    }
    int code = 0;
    if (s != STATUS_OK) {
        code = fail(s, &err);
    } else if (help) {
        options_print_help(&command_selftest, specs, COUNT_OF(specs));
    } else {
        code = selftest_client(&f);
    }
    text_list_deinit(&words);
    return code;
}

const struct command command_selftest = {
    .name = "selftest",
    .summary = "Measure the error of the measuring client itself.",
    .usage = "client [OPTIONS]",
    .examples = "  llmsched selftest client\n"
                "  llmsched selftest client --streams 100 --seconds 3 --json\n"
                "Exit code 6: void, because the server was late or a stream failed.\n",
    .run = run,
};
