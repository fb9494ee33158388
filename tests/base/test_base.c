/* test_base.c - status, memory, strings, UTF-8, random numbers, files. */
#include "test.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/monotime.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "base/utf8.h"

static void test_error_text(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    assert_int_equal(error_set(&err, STATUS_BAD_DATA, 7, "key \"%s\"", "a\x1b[31mb"),
                     STATUS_BAD_DATA);
    assert_string_equal(err.message, "key \"a?[31mb\""); /* no terminal escapes from a file */
    assert_int_equal(err.position, 7);
    error_prefix(&err, "file %d", 3);
    assert_string_equal(err.message, "file 3: key \"a?[31mb\"");
    assert_int_equal(error_set(NULL, STATUS_IO, -1, "x"), STATUS_IO);

    /* Cut at a whole character: 511 bytes are left, the 2-byte character at 510 must go. */
    char text[600];
    memset(text, 'a', sizeof text);
    memcpy(text + 510, "\xC3\xA9", 2);
    text[599] = '\0';
    error_set(&err, STATUS_IO, -1, "%s", text);
    assert_int_equal(strlen(err.message), 510);
    assert_true(utf8_is_valid(err.message, strlen(err.message)));
}

static void test_status_table(void **state)
{
    (void)state;
    assert_string_equal(status_name(STATUS_USAGE), "USAGE");
    assert_int_equal(status_exit_code(STATUS_OK), 0);
    assert_int_equal(status_exit_code(STATUS_USAGE), 2);
    assert_int_equal(status_exit_code(STATUS_NOT_FOUND), 3);
    assert_int_equal(status_exit_code(STATUS_INTERRUPTED), 130);
    for (int s = 0; s < STATUS_COUNT; s++) {
        assert_true(status_text((enum status)s)[0] != '\0');
    }
}

static void test_mem_limits(void **state)
{
    (void)state;
    assert_null(mem_alloc(SIZE_MAX / 2, 3));
    assert_null(mem_alloc(0, 8));
    assert_null(mem_resize(NULL, SIZE_MAX, 2));
    assert_null(mem_strndup("x", SIZE_MAX));
    char *p = mem_alloc_aligned(64, 100);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 64, 0);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(p[i], 0);
    }
    mem_free(p);
}

static void test_mem_failure_hook(void **state)
{
    (void)state;
    mem_fail_at(2, false);
    void *a = mem_alloc(1, 8);
    void *b = mem_alloc(1, 8);
    void *c = mem_alloc(1, 8);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    mem_free(a);
    mem_free(c);
    mem_fail_at(1, true);
    assert_null(mem_alloc(1, 8));
    assert_null(mem_alloc(1, 8));
    mem_fail_at(0, false);
}

static char p_was_given;

static void *allocate_freely(void *arg)
{
    (void)arg;
    void *p = mem_in_step() ? NULL : mem_alloc(1, 8);
    mem_free(p);
    return p == NULL ? NULL : &p_was_given;
}

static void test_guard_is_of_one_thread(void **state)
{
    (void)state;
    mem_step_begin();
    mem_step_begin();
    mem_step_end();
    assert_true(mem_in_step());
    pthread_t other;
    void *given = NULL;
    assert_int_equal(pthread_create(&other, NULL, allocate_freely, NULL), 0);
    assert_int_equal(pthread_join(other, &given), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL); /* cmocka's handler would report on its own */
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        if (freopen("/dev/null", "w", stderr) == NULL) {
            _exit(3);
        }
        mem_free(mem_alloc(1, 8));
        _exit(0);
    }
    mem_step_end();
    assert_false(mem_in_step());
    assert_ptr_equal(given, &p_was_given);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void test_arena(void **state)
{
    (void)state;
    struct arena a = {.chunk_bytes = 128};
    char *first = arena_alloc(&a, 1, 100);
    char *big = arena_alloc(&a, 1, 1000);
    char *text = arena_strndup(&a, "hello world", 5);
    assert_non_null(first);
    assert_non_null(big);
    assert_string_equal(text, "hello");
    assert_int_equal((uintptr_t)big % 16, 0);
    assert_null(arena_alloc(&a, SIZE_MAX, 2));
    arena_deinit(&a);
    assert_null(a.head);
}

static void test_utf8_table(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        size_t sequence; /* well-formed length, 0: none */
        size_t invalid;  /* bytes of the first U+FFFD */
    } rows[] = {
        {"a", 1, 1, 0},
        {"\xC3\xA9", 2, 2, 0},
        {"\xE2\x82\xAC", 3, 3, 0},
        {"\xF0\x9F\x98\x80", 4, 4, 0},
        {"\xF4\x8F\xBF\xBF", 4, 4, 0}, /* U+10FFFF */
        {"\x80", 1, 0, 1},             /* continuation alone */
        {"\xC0\x80", 2, 0, 1},         /* overlong NUL */
        {"\xC1\xBF", 2, 0, 1},
        {"\xE0\x80\x80", 3, 0, 1}, /* overlong */
        {"\xE0\x9F\xBF", 3, 0, 1},
        {"\xED\xA0\x80", 3, 0, 1}, /* surrogate */
        {"\xF0\x80\x80\x80", 4, 0, 1},
        {"\xF4\x90\x80\x80", 4, 0, 1}, /* above U+10FFFF */
        {"\xF5\x80\x80\x80", 4, 0, 1},
        {"\xE2\x82", 2, 0, 2}, /* cut short: one replacement for both bytes */
        {"\xF0\x9F\x98", 3, 0, 3},
        {"\xE2\x82"
         "a",
         3, 0, 2},
        {"\xC3", 1, 0, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t got = utf8_sequence(rows[i].bytes, rows[i].n);
        if (got != rows[i].sequence) {
            fail_msg("row %zu: sequence %zu, expected %zu", i, got, rows[i].sequence);
        }
        if (got == 0) {
            assert_int_equal(utf8_invalid_run(rows[i].bytes, rows[i].n), rows[i].invalid);
        }
        bool prefix =
            rows[i].sequence == 0 && rows[i].invalid == rows[i].n &&
            ((unsigned char)rows[i].bytes[0] >= 0xC2 && (unsigned char)rows[i].bytes[0] <= 0xF4);
        assert_int_equal(utf8_is_prefix(rows[i].bytes, rows[i].n), prefix);
    }
}

/* Every scalar value there and back; every surrogate refused. */
static void test_utf8_all(void **state)
{
    (void)state;
    char out[4];
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        size_t n = utf8_encode(c, out);
        bool surrogate = c >= 0xD800 && c <= 0xDFFF;
        size_t len = utf8_sequence(out, n);
        if (surrogate ? len != 0 : (len != n || utf8_decode(out, n) != c)) {
            fail_msg("U+%04X: encoded to %zu, read as %zu", c, n, len);
        }
    }
}

static void test_json_string(void **state)
{
    (void)state;
    struct strbuf b = {0};
    const char text[] = "a\"b\\c\n\x01\x7F\xC3\xA9\xFFz\xE2\x82";
    strbuf_json_string(&b, text, sizeof text - 1);
    assert_string_equal(b.data,
                        "\"a\\\"b\\\\c\\u000a\\u0001\\u007f\xC3\xA9\xEF\xBF\xBDz\xEF\xBF\xBD\"");
    for (int c = 0x01; c < 0x80;
         c++) { /* every byte, alone, before, behind and between plain ones */
        char in[8];
        char out[16];
        char want[32];
        bool escaped = c < 0x20 || c == 0x7F;
        snprintf(out, sizeof out, escaped ? "\\u%04x" : c == '"' || c == '\\' ? "\\%c" : "%c", c);
        for (int at = 0; at < 4; at++) {
            const char *before = at & 1 ? "xy" : "";
            const char *behind = at & 2 ? "z" : "";
            snprintf(in, sizeof in, "%s%c%s", before, c, behind);
            snprintf(want, sizeof want, "\"%s%s%s\"", before, out, behind);
            strbuf_clear(&b);
            strbuf_json_string(&b, in, strlen(in));
            assert_string_equal(b.data, want);
        }
    }
    strbuf_deinit(&b);
    mem_fail_at(1, true);
    strbuf_printf(&b, "%d", 5);
    mem_fail_at(0, false);
    assert_true(b.failed);
    assert_string_equal(strbuf_text(&b), "");
    strbuf_deinit(&b);
}

static void test_rng(void **state)
{
    (void)state;
    /* Pure: the same key and counter give the same bits; neighbours differ in about half of them.
     */
    double flipped = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(rng_at(7, i), rng_at(7, i));
        flipped += __builtin_popcountll(rng_at(7, i) ^ rng_at(7, i + 1));
        flipped += __builtin_popcountll(rng_at(i, 3) ^ rng_at(i + 1, 3));
    }
    flipped /= 2000;
    assert_true(flipped > 31 && flipped < 33);

    struct rng r = rng_stream(1, 2);
    uint64_t counts[7] = {0};
    double sum = 0, squares = 0;
    for (int i = 0; i < 70000; i++) {
        counts[rng_below(&r, 7)]++;
        uint64_t between = rng_between(&r, 4, 64);
        assert_true(between >= 4 && between <= 64);
        double z = rng_normal(&r);
        sum += z;
        squares += z * z;
    }
    for (int i = 0; i < 7; i++) { /* 10,000 expected, standard deviation 93 */
        assert_true(counts[i] > 9500 && counts[i] < 10500);
    }
    assert_true(fabs(sum / 70000) < 0.02);
    assert_true(fabs(squares / 70000 - 1) < 0.03);
    assert_true(rng_unit(UINT64_MAX) < 1.0);
    assert_true(rng_unit(0) == 0.0);

    /* The choices of one request, and the first ones of neighbouring seeds, draw differently. */
    double shared = 0;
    for (uint64_t seed = 0; seed < 1000; seed++) {
        uint64_t key = sample_key_of_choice(seed, 0);
        assert_true(key == seed);
        uint64_t other = sample_key_of_choice(seed, 1);
        assert_true(other != key && other != sample_key_of_choice(seed, 2));
        shared += 64 - __builtin_popcountll(rng_at(key, 5) ^ rng_at(other, 5));
    }
    assert_true(shared / 1000 > 31 && shared / 1000 < 33);
}

static void test_time(void **state)
{
    (void)state;
    assert_int_equal(monotime_from_seconds(0.5), 500000000ULL);
    assert_int_equal(monotime_from_seconds(-1), 0);
    assert_int_equal(monotime_from_seconds((double)NAN), 0);
    assert_int_equal(monotime_from_seconds(1e300), TIME_NEVER - 1);
    uint64_t a = monotime_now_ns();
    assert_true(monotime_now_ns() >= a);
}

static char *temp_folder(void)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/llmsched-test-XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

static void test_files(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    char *folder = temp_folder();
    char *deep = fs_join(folder, "a/b/c");
    assert_ok(fs_make_dirs(deep, &err));
    assert_true(fs_is_dir(deep));
    char *path = fs_join(deep, "f.txt");
    assert_ok(fs_write_atomic(path, "hello", 5, &err));
    assert_ok(fs_write_atomic(path, "hello again", 11, &err));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    mode_t mask = umask(0);
    umask(mask);
    assert_int_equal(st.st_mode & 0777, 0666 & ~mask); /* not mkstemp's 0600 */
    char *data;
    size_t len;
    assert_ok(fs_read_file(path, 11, &data, &len, &err));
    assert_int_equal(len, 11);
    assert_string_equal(data, "hello again");
    mem_free(data);
    assert_status(fs_read_file(path, 10, &data, &len, &err), STATUS_BAD_DATA);
    assert_contains(err.message, "11 bytes");
    assert_status(fs_read_file(deep, 10, &data, &len, &err), STATUS_BAD_DATA);
    assert_status(fs_read_file("/nonexistent/x", 10, &data, &len, &err), STATUS_NOT_FOUND);
    assert_status(fs_write_atomic("/nonexistent/x", "x", 1, &err), STATUS_IO);
    assert_status(fs_make_dirs(path, &err), STATUS_IO);
    assert_contains(err.message, "in the way");

    int fd = open(path, O_RDWR);
    char out[16];
    assert_ok(fs_pread_exact(fd, path, out, 5, 6, &err));
    assert_memory_equal(out, "again", 5);
    assert_status(fs_pread_exact(fd, path, out, 6, 6, &err), STATUS_BAD_DATA);
    assert_int_equal(err.position, 11);
    assert_ok(fs_append_sync(fd, path, "!", 1, &err));
    close(fd);
    fd = open("/dev/full", O_RDWR);
    if (fd >= 0) {
        assert_status(fs_append_sync(fd, "/dev/full", "!", 1, &err), STATUS_IO);
        close(fd);
    }
    unlink(path);
    mem_free(path);
    for (int i = 0; i < 3; i++) {
        rmdir(deep);
        *strrchr(deep, '/') = '\0';
    }
    assert_int_equal(rmdir(folder), 0);
    mem_free(deep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_text),
        cmocka_unit_test(test_status_table),
        cmocka_unit_test(test_mem_limits),
        cmocka_unit_test(test_mem_failure_hook),
        cmocka_unit_test(test_guard_is_of_one_thread),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_utf8_table),
        cmocka_unit_test(test_utf8_all),
        cmocka_unit_test(test_json_string),
        cmocka_unit_test(test_rng),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
