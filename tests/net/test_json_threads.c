/* test_json_threads.c - the very first JSON of a process, on several threads at once: both readers,
 * all with our memory. A program of its own, because jansson is set up once in a process. */
#include "test.h"

#include <pthread.h>

#include "base/mem.h"
#include "model/jsontext.h"
#include "net/api_request.h"

#define N_THREADS 8
#define N_ROUNDS  200

static pthread_barrier_t start;

static bool read_file_json(void)
{
    static const char text[] = "{\"a\":[1,{\"b\":\"c\"}]}";
    static const struct json_limits limits = {.max_depth = 9, .max_values = 99};
    json_t *root = NULL;
    struct error err = ERROR_INIT;
    enum status s = json_text_parse(text, sizeof text - 1, &limits, "x", 0, &root, &err);
    bool good = s == STATUS_OK && json_array_size(json_object_get(root, "a")) == 2;
    json_decref(root);
    return good;
}

static bool read_request(void)
{
    static const char text[] = "{\"prompt\":[1,2],\"logit_bias\":{\"5\":1.5},\"seed\":7}";
    static const struct api_limits limits = {.n_vocab = 9};
    struct api_request request;
    struct api_errors errors;
    if (api_request_parse(API_COMPLETIONS, text, sizeof text - 1, &limits, &request, &errors) !=
        STATUS_OK) {
        return false;
    }
    bool good = request.n_logit_bias == 1 && request.logit_bias[0].id == 5;
    api_request_deinit(&request);
    return good;
}

/* Returns arg when all was read right. */
static void *read_many(void *arg)
{
    const uint32_t *index = arg;
    bool good = true;
    pthread_barrier_wait(&start);
    for (uint32_t i = 0; i < N_ROUNDS && good; i++) {
        good = (i + *index) % 2 == 0 ? read_file_json() : read_request();
    }
    return good ? arg : NULL;
}

static void all_threads_read_right_from_the_first(void **state)
{
    (void)state;
    pthread_t threads[N_THREADS];
    uint32_t index[N_THREADS];
    assert_int_equal(pthread_barrier_init(&start, NULL, N_THREADS), 0);
    for (uint32_t i = 0; i < N_THREADS; i++) {
        index[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, read_many, &index[i]), 0);
    }
    for (uint32_t i = 0; i < N_THREADS; i++) {
        void *got = NULL;
        assert_int_equal(pthread_join(threads[i], &got), 0);
        assert_ptr_equal(got, &index[i]);
    }
    pthread_barrier_destroy(&start);
    /* jansson's memory is ours, on this thread too. */
    uint64_t before = mem_alloc_count();
    json_decref(json_object());
    assert_true(mem_alloc_count() > before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_threads_read_right_from_the_first)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
