/* API requests: every field of the tables at its limits and beyond, its type, null; what is
 * answered; and hostile bodies. */
#include "test.h"

#include <jansson.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "model/jsontext.h"
#include "net/api_request.h"

#define N_VOCAB 1000U
static const struct api_limits limits = {.n_vocab = N_VOCAB};

/* param NULL: the body is good. `part` is found in the message of the first error. For completions
 * and chat a body without prompt or messages stands for its members: {"prompt":"x",...}. */
struct bad_or_good {
    enum api_endpoint endpoint;
    const char *body;
    const char *param;
    const char *part;
};

#define C API_COMPLETIONS
#define H API_CHAT
#define T API_TOKENIZE
#define D API_DETOKENIZE

static const struct bad_or_good prompt_cases[] = {
    {C, "{\"prompt\":\"x\"}", NULL, NULL},
    {C, "{}", "prompt", "is missing"},
    {C, "{\"prompt\":null}", "prompt", "null"},
    {C, "{\"prompt\":\"\"}", "prompt", "is empty"},
    {C, "{\"prompt\":[]}", "prompt", "is empty"},
    {C, "{\"prompt\":5}", "prompt", "must be a string, a list"},
    {C, "{\"prompt\":true}", "prompt", "not true"},
    {C, "{\"prompt\":{\"a\":1}}", "prompt", "not {\"a\":1}"},
    {C, "{\"prompt\":[\"a\",\"b\"]}", NULL, NULL},
    {C, "{\"prompt\":[\"a\",\"\"]}", "prompt[1]", "is empty"},
    {C, "{\"prompt\":[\"a\",1]}", "prompt[1]", "same kind"},
    {C, "{\"prompt\":[1,\"a\"]}", "prompt[1]", "a token id"},
    {C, "{\"prompt\":[1,2,999]}", NULL, NULL},
    {C, "{\"prompt\":[0]}", NULL, NULL},
    {C, "{\"prompt\":[1,1000]}", "prompt[1]", "out of vocabulary"},
    {C, "{\"prompt\":[-1]}", "prompt[0]", "negative"},
    {C, "{\"prompt\":[2147483648]}", "prompt[0]", "out of vocabulary"},
    {C, "{\"prompt\":[1.5]}", "prompt[0]", "a token id"},
    {C, "{\"prompt\":[true]}", "prompt[0]", "a token id"},
    {C, "{\"prompt\":[null]}", "prompt[0]", "a token id"},
    {C, "{\"prompt\":[[1,2],[3]]}", NULL, NULL},
    {C, "{\"prompt\":[[1],[]]}", "prompt[1]", "must be"},
    {C, "{\"prompt\":[[1],[-2]]}", "prompt[1][0]", "negative"},
    {C, "{\"prompt\":[[1],[[2]]]}", "prompt[1][0]", "a token id"},
    {C, "{\"prompt\":[[\"a\"]]}", "prompt[0][0]", "a token id"},
    {C, "{\"prompt\":[[1],\"a\"]}", "prompt[1]", "same kind"},
    {C, "{\"prompt\":[{}]}", "prompt[0]", "a token id"},
};

/* Members, put behind "prompt":"x". */
static const struct bad_or_good completion_cases[] = {
    {C, "\"max_tokens\":1", NULL, NULL},
    {C, "\"max_tokens\":2147483647", NULL, NULL},
    {C, "\"max_tokens\":2147483648", "max_tokens", "0 to 2147483647"},
    {C, "\"max_tokens\":-1", "max_tokens", "not -1"},
    {C, "\"max_tokens\":0", "max_tokens", "echo"},
    {C, "\"max_tokens\":0,\"echo\":true", NULL, NULL},
    {C, "\"max_tokens\":null", NULL, NULL},
    {C, "\"max_tokens\":\"16\"", "max_tokens", "an integer, not \"16\""},
    {C, "\"max_tokens\":16.0", NULL, NULL},
    {C, "\"max_tokens\":16.5", "max_tokens", "an integer"},
    {C, "\"max_tokens\":1e300", "max_tokens", "an integer"},
    {C, "\"max_tokens\":true", "max_tokens", "an integer"},
    {C, "\"max_tokens\":[1]", "max_tokens", "an integer"},
    {C, "\"min_tokens\":16", NULL, NULL},
    {C, "\"min_tokens\":17", "min_tokens", "above max_tokens, 16"},
    {C, "\"min_tokens\":-1", "min_tokens", "0 to"},
    {C, "\"min_tokens\":null", "min_tokens", "null"},
    {C, "\"n\":1", NULL, NULL},
    {C, "\"n\":128", NULL, NULL},
    {C, "\"n\":129", "n", "1 to 128"},
    {C, "\"n\":0", "n", "1 to 128"},
    {C, "\"n\":-5", "n", "1 to 128"},
    {C, "\"n\":null", NULL, NULL},
    {C, "\"n\":2,\"best_of\":2", NULL, NULL},
    {C, "\"n\":2,\"best_of\":3", "best_of", "not supported"},
    {C, "\"best_of\":1", NULL, NULL},
    {C, "\"best_of\":0", "best_of", "1 to"},
    {C, "\"best_of\":null", NULL, NULL},
    {C, "\"logprobs\":0", NULL, NULL},
    {C, "\"logprobs\":20", NULL, NULL},
    {C, "\"logprobs\":21", "logprobs", "0 to 20"},
    {C, "\"logprobs\":21,\"stream\":true", "logprobs", "0 to 20"},
    {C, "\"logprobs\":-1", "logprobs", "0 to 20"},
    {C, "\"logprobs\":true", "logprobs", "an integer"},
    {C, "\"logprobs\":null", NULL, NULL},
    {C, "\"echo\":true", NULL, NULL},
    {C, "\"echo\":1", "echo", "true or false"},
    {C, "\"echo\":null", NULL, NULL},
    {C, "\"suffix\":\"tail\"", "suffix", "not supported"},
    {C, "\"suffix\":null", NULL, NULL},
    {C, "\"prompt_embeds\":\"AAAA\"", "prompt_embeds", "not supported"},
    {C, "\"prompt_logprobs\":1", "prompt_logprobs", "not supported"},
    {C, "\"tools\":[{}]", NULL, NULL}, /* unknown here: a chat field */
};

/* Members that both generating endpoints read alike. */
static const struct bad_or_good shared_cases[] = {
    {C, "\"model\":\"m\"", NULL, NULL},
    {C, "\"model\":7", "model", "a string"},
    {C, "\"model\":null", NULL, NULL},
    {C, "\"temperature\":0", NULL, NULL},
    {C, "\"temperature\":2", NULL, NULL},
    {C, "\"temperature\":2.01", "temperature", "0 to 2"},
    {C, "\"temperature\":-0.1", "temperature", "0 to 2"},
    {C, "\"temperature\":\"0.5\"", "temperature", "a number"},
    {C, "\"temperature\":null", NULL, NULL},
    {C, "\"temperature\":true", "temperature", "a number"},
    {C, "\"top_p\":1", NULL, NULL},
    {C, "\"top_p\":0.0001", NULL, NULL},
    {C, "\"top_p\":0", "top_p", "above 0 to 1"},
    {C, "\"top_p\":1.1", "top_p", "above 0 to 1"},
    {C, "\"top_k\":-1", NULL, NULL},
    {C, "\"top_k\":0", NULL, NULL},
    {C, "\"top_k\":40", NULL, NULL},
    {C, "\"top_k\":-2", "top_k", "-1 to"},
    {C, "\"top_k\":4000000000", "top_k", "-1 to"},
    {C, "\"min_p\":1", NULL, NULL},
    {C, "\"min_p\":-0.5", "min_p", "0 to 1"},
    {C, "\"repetition_penalty\":1.2", NULL, NULL},
    {C, "\"repetition_penalty\":0", "repetition_penalty", "above 0"},
    {C, "\"repetition_penalty\":101", "repetition_penalty", "above 0 to 100"},
    {C, "\"frequency_penalty\":-2", NULL, NULL},
    {C, "\"frequency_penalty\":2.5", "frequency_penalty", "-2 to 2"},
    {C, "\"presence_penalty\":2", NULL, NULL},
    {C, "\"presence_penalty\":-2.5", "presence_penalty", "-2 to 2"},
    {C, "\"seed\":9223372036854775807", NULL, NULL},
    {C, "\"seed\":-9223372036854775808", NULL, NULL},
    {C, "\"seed\":9223372036854775808", "", "not valid JSON"},
    {C, "\"seed\":0.5", "seed", "an integer"},
    {C, "\"seed\":null", NULL, NULL},
    {C, "\"priority\":-3", NULL, NULL},
    {C, "\"priority\":3000000000", "priority", "2147483647"},
    {C, "\"ignore_eos\":true", NULL, NULL},
    {C, "\"ignore_eos\":\"yes\"", "ignore_eos", "true or false"},
    {C, "\"ignore_eos\":null", "ignore_eos", "null"},
    {C, "\"stream\":true", NULL, NULL},
    {C, "\"stream\":0", "stream", "true or false"},
    {C, "\"stream\":null", NULL, NULL},
    {C, "\"stream_options\":{}", NULL, NULL},
    {C, "\"stream_options\":null", NULL, NULL},
    {C, "\"stream_options\":{\"include_usage\":null}", "stream_options", "stream"},
    {C, "\"stream_options\":{\"include_usage\":true}", "stream_options", "stream"},
    {C, "\"stream\":true,\"stream_options\":{\"include_usage\":true}", NULL, NULL},
    {C, "\"stream\":true,\"stream_options\":{\"include_usage\":null}", NULL, NULL},
    {C, "\"stream\":true,\"stream_options\":{\"include_usage\":1}", "stream_options.include_usage",
     "true or false"},
    {C, "\"stream\":true,\"stream_options\":[]", "stream_options", "an object"},
    {C, "\"stream\":true,\"stream_options\":{\"continuous_usage_stats\":true}", NULL, NULL},
    {C, "\"stop\":\"a\"", NULL, NULL},
    {C, "\"stop\":[\"a\",\"b\"]", NULL, NULL},
    {C, "\"stop\":[]", NULL, NULL},
    {C, "\"stop\":null", NULL, NULL},
    {C, "\"stop\":\"\"", "stop", "1 to 1024 bytes"},
    {C, "\"stop\":[\"a\",\"\"]", "stop[1]", "1 to 1024 bytes"},
    {C, "\"stop\":3", "stop", "a string or a list"},
    {C, "\"stop\":[3]", "stop[0]", "a string"},
    {C, "\"stop_token_ids\":[2]", NULL, NULL},
    {C, "\"stop_token_ids\":[]", NULL, NULL},
    {C, "\"stop_token_ids\":[1000]", "stop_token_ids[0]", "out of vocabulary"},
    {C, "\"stop_token_ids\":2", "stop_token_ids", "a list"},
    {C, "\"logit_bias\":{\"5\":-100,\"7\":100}", NULL, NULL},
    {C, "\"logit_bias\":{}", NULL, NULL},
    {C, "\"logit_bias\":null", NULL, NULL},
    {C, "\"logit_bias\":{\"5\":100.5}", "logit_bias", "-100 to 100"},
    {C, "\"logit_bias\":{\"5\":\"1\"}", "logit_bias", "-100 to 100"},
    {C, "\"logit_bias\":{\"five\":1}", "logit_bias", "'five' is not a token id"},
    {C, "\"logit_bias\":{\"\":1}", "logit_bias", "not a token id"},
    {C, "\"logit_bias\":{\"-1\":1}", "logit_bias", "not a token id"},
    {C, "\"logit_bias\":{\"05\":1}", "logit_bias", "not a token id"},
    {C, "\"logit_bias\":{\"1000\":1}", "logit_bias", "out of vocabulary"},
    {C, "\"logit_bias\":{\"2147483648\":1}", "logit_bias", "not a token id"},
    {C, "\"logit_bias\":[1]", "logit_bias", "a map"},
    {C, "\"response_format\":{\"type\":\"text\"}", NULL, NULL},
    {C, "\"response_format\":{\"type\":\"json_object\"}", "response_format", "not supported"},
    {C, "\"guided_json\":{}", "guided_json", "not supported"},
    {C, "\"bad_words\":[]", NULL, NULL},
    {C, "\"bad_words\":[\"x\"]", "bad_words", "not supported"},
    {C, "\"use_beam_search\":true", "use_beam_search", "not supported"},
    {C, "\"skip_special_tokens\":false", "skip_special_tokens", "not supported"},
    {C, "\"include_stop_str_in_output\":true", "include_stop_str_in_output", "not supported"},
    {C, "\"truncate_prompt_tokens\":5", "truncate_prompt_tokens", "not supported"},
    {C, "\"user\":[1,2]", NULL, NULL},
    {C, "\"no_such_field\":{\"a\":[1]}", NULL, NULL},
};

/* Members, put behind "messages":[{"role":"user","content":"x"}]. */
static const struct bad_or_good chat_cases[] = {
    {H, "\"max_tokens\":1", NULL, NULL},
    {H, "\"max_tokens\":0", "max_tokens", "1 to"},
    {H, "\"max_completion_tokens\":5", NULL, NULL},
    {H, "\"max_completion_tokens\":0", "max_completion_tokens", "1 to"},
    {H, "\"max_completion_tokens\":null", NULL, NULL},
    {H, "\"logprobs\":true,\"top_logprobs\":20", NULL, NULL},
    {H, "\"logprobs\":true,\"top_logprobs\":21", "top_logprobs", "0 to 20"},
    {H, "\"logprobs\":1", "logprobs", "true or false"},
    {H, "\"top_logprobs\":2", "top_logprobs", "\"logprobs\": true"},
    {H, "\"top_logprobs\":0", NULL, NULL},
    {H, "\"echo\":true", "echo", "not supported"},
    {H, "\"tools\":[]", NULL, NULL},
    {H, "\"tools\":[{\"type\":\"function\"}]", "tools", "not supported"},
    {H, "\"tool_choice\":\"none\"", NULL, NULL},
    {H, "\"tool_choice\":\"required\"", "tool_choice", "not supported"},
    {H, "\"modalities\":[\"text\"]", NULL, NULL},
    {H, "\"modalities\":[\"audio\"]", "modalities", "not supported"},
    {H, "\"chat_template\":\"{{ x }}\"", "chat_template", "not supported"},
    {H, "\"parallel_tool_calls\":true", NULL, NULL},
    {H, "\"min_tokens\":4,\"max_completion_tokens\":3", "min_tokens", "above max_tokens, 3"},
};

static const struct bad_or_good message_cases[] = {
    {H, "{}", "messages", "is missing"},
    {H, "{\"messages\":null}", "messages", "null"},
    {H, "{\"messages\":[]}", "messages", "0 messages"},
    {H, "{\"messages\":\"hi\"}", "messages", "a list of messages"},
    {H, "{\"messages\":[\"hi\"]}", "messages[0]", "an object"},
    {H, "{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role", "is missing"},
    {H, "{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content", "is missing"},
    {H, "{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "messages[0].content", "a string"},
    {H, "{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "messages[0].content", "a string"},
    {H, "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "messages[0].role",
     "system, developer, user or assistant"},
    {H, "{\"messages\":[{\"role\":1,\"content\":\"x\"}]}", "messages[0].role", "not 1"},
    {H, "{\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}", NULL, NULL},
    {H, "{\"messages\":[{\"role\":\"developer\",\"content\":\"x\",\"name\":\"n\"}]}", NULL, NULL},
    {H, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}]}",
     NULL, NULL},
    {H, "{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "messages[0].content", "0 parts"},
    {H, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
     "messages[0].content[0].type", "not supported"},
    {H, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"x\"}]}]}",
     "messages[0].content[0].type", "is missing"},
    {H, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
     "messages[0].content[0].text", "is missing"},
    {H, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":1}]}]}",
     "messages[0].content[0].text", "a string"},
    {H, "{\"messages\":[{\"role\":\"user\",\"content\":[\"x\"]}]}", "messages[0].content[0]",
     "an object"},
    {H,
     "{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"a\"}]}]}",
     "messages[0].tool_calls", "not supported"},
    {H, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\",\"tool_calls\":[]}]}", NULL,
     NULL},
};

static const struct bad_or_good token_cases[] = {
    {T, "{\"prompt\":\"x\"}", NULL, NULL},
    {T, "{\"prompt\":\"\"}", NULL, NULL},
    {T, "{\"prompt\":[1]}", "prompt", "a string"},
    {T, "{}", "prompt", "either prompt or messages"},
    {T, "{\"prompt\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "prompt",
     "either prompt or messages"},
    {T, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", NULL, NULL},
    {T, "{\"messages\":[]}", "messages", "0 messages"},
    {T, "{\"prompt\":\"x\",\"add_special_tokens\":1}", "add_special_tokens", "true or false"},
    {T, "{\"prompt\":\"x\",\"return_token_strs\":true}", NULL, NULL},
    {D, "{\"tokens\":[1,2]}", NULL, NULL},
    {D, "{\"tokens\":[]}", NULL, NULL},
    {D, "{}", "tokens", "is missing"},
    {D, "{\"tokens\":null}", "tokens", "null"},
    {D, "{\"tokens\":\"x\"}", "tokens", "a list"},
    {D, "{\"tokens\":[1,-1]}", "tokens[1]", "negative"},
    {D, "{\"tokens\":[1000]}", "tokens[0]", "out of vocabulary"},
};

static const struct bad_or_good body_cases[] = {
    {C, "", "", "not valid JSON"},
    {C, " ", "", "not valid JSON"},
    {C, "[]", "", "must be a JSON object, not []"},
    {C, "null", "", "must be a JSON object, not null"},
    {C, "5", "", "must be a JSON object, not 5"},
    {C, "\"prompt\"", "", "must be a JSON object, not \"prompt\""},
    {C, "{\"prompt\":\"x\"", "", "not valid JSON"},
    {C, "{\"prompt\":\"x\"}}", "", "not valid JSON"},
    {C, "{\"prompt\":\"x\",}", "", "not valid JSON"},
    {C, "{'prompt':'x'}", "", "not valid JSON"},
    {C, "{\"prompt\":\"x\",\"n\":1,\"n\":2}", "", "duplicate"},
    {C, "{\"prompt\":\"x\",\"stream_options\":{\"a\":1,\"a\":1}}", "", "duplicate"},
    {C, "{\"prompt\":\"\\u0000\"}", "", "not valid JSON"},
    {C, "{\"prompt\":\"\\ud800\"}", "", "not valid JSON"},
    {C, "{\"prompt\":\"\xff\"}", "", "not valid JSON"},
    {C, "{\"prompt\":\"x\",\"temperature\":NaN}", "", "not valid JSON"},
    {C, "{\"prompt\":\"x\",\"temperature\":Infinity}", "", "not valid JSON"},
    {C, "{\"prompt\":\"x\",\"temperature\":1e999}", "", "not valid JSON"},
    {C, "{\"prompt\":\"x\"} // hi", "", "not valid JSON"},
};

static size_t cases_run;

static void check(const struct bad_or_good *c, const char *body)
{
    struct api_request r = {0};
    struct api_errors errors;
    enum status s = api_request_parse(c->endpoint, body, strlen(body), &limits, &r, &errors);
    cases_run++;
    if (c->param == NULL) {
        if (s != STATUS_OK) {
            fail_msg("%s: %s", body, errors.items[0].message);
        }
        assert_int_equal(errors.total, 0);
        api_request_deinit(&r);
        return;
    }
    if (s != STATUS_BAD_DATA || errors.count == 0) {
        fail_msg("%s: status %s, %u errors; expected one about '%s'", body, status_name(s),
                 errors.count, c->param);
    }
    assert_int_equal(errors.items[0].http_status, 400);
    assert_string_equal(errors.items[0].param, c->param);
    assert_contains(errors.items[0].message, c->part);
    assert_int_equal(errors.total, 1);
    assert_null(r.arena.head);
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void run_whole(const struct bad_or_good *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        check(&cases[i], cases[i].body);
    }
}

static void run_members(const struct bad_or_good *cases, size_t n, enum api_endpoint endpoint)
{
    for (size_t i = 0; i < n; i++) {
        struct bad_or_good c = cases[i];
        char body[512];
        c.endpoint = endpoint;
        snprintf(body, sizeof body, "{%s,%s}",
                 endpoint == C ? "\"prompt\":\"x\""
                               : "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]",
                 c.body);
        check(&c, body);
    }
}

static void every_case_of_the_tables(void **state)
{
    (void)state;
    run_whole(prompt_cases, COUNT(prompt_cases));
    run_members(completion_cases, COUNT(completion_cases), C);
    run_members(shared_cases, COUNT(shared_cases), C);
    run_members(shared_cases, COUNT(shared_cases), H);
    run_members(chat_cases, COUNT(chat_cases), H);
    run_whole(message_cases, COUNT(message_cases));
    run_whole(token_cases, COUNT(token_cases));
    run_whole(body_cases, COUNT(body_cases));
    print_message("%zu bodies\n", cases_run);
}

static enum status parse(enum api_endpoint e, const char *body, struct api_request *r,
                         struct api_errors *errors)
{
    return api_request_parse(e, body, strlen(body), &limits, r, errors);
}

static struct api_request parsed(enum api_endpoint e, const char *body)
{
    struct api_request r;
    struct api_errors errors;
    if (parse(e, body, &r, &errors) != STATUS_OK) {
        fail_msg("%s: %s", body, errors.items[0].message);
    }
    return r;
}

static void defaults_are_those_of_the_reference(void **state)
{
    (void)state;
    struct api_request r = parsed(C, "{\"prompt\":\"x\",\"max_tokens\":null,\"stop\":null}");
    assert_int_equal(r.max_tokens, 16);
    assert_int_equal(r.n, 1);
    assert_true(r.temperature == 1.0 && r.top_p == 1.0 && r.repetition_penalty == 1.0);
    assert_true(r.min_p == 0.0 && r.frequency_penalty == 0.0 && r.presence_penalty == 0.0);
    assert_true(r.top_k == 0 && r.min_tokens == 0 && r.priority == 0);
    assert_false(r.has_seed || r.ignore_eos || r.echo || r.stream || r.want_logprobs);
    assert_false(r.include_usage || r.continuous_usage_stats || r.return_token_ids);
    assert_true(r.add_special_tokens);
    assert_null(r.model.data);
    assert_int_equal(r.n_stops + r.n_stop_ids + r.n_logit_bias + r.n_unknown, 0);
    api_request_deinit(&r);
    r = parsed(H, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}");
    assert_int_equal(r.max_tokens, API_REST_OF_CONTEXT);
    assert_true(r.add_generation_prompt && !r.add_special_tokens && !r.want_logprobs);
    api_request_deinit(&r);
    r = parsed(T, "{\"prompt\":\"x\"}");
    assert_true(r.add_special_tokens && r.add_generation_prompt && !r.return_token_strs);
    api_request_deinit(&r);
    r = parsed(T, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}");
    assert_false(r.add_special_tokens);
    api_request_deinit(&r);
}

static const char full_completion[] =
    "{\"model\":\"m\",\"prompt\":[\"one\",\"zwei \\u00fc\"],\"max_tokens\":7,\"min_tokens\":2,"
    "\"n\":3,\"best_of\":3,\"temperature\":0.5,\"top_p\":0.9,\"top_k\":-1,\"min_p\":0.05,"
    "\"repetition_penalty\":1.5,\"frequency_penalty\":-1,\"presence_penalty\":2,\"seed\":-42,"
    "\"stop\":[\"\\n\\n\",\"END\"],\"stop_token_ids\":[5,6],\"logit_bias\":{\"9\":1.5,\"3\":-100},"
    "\"logprobs\":4,\"echo\":true,\"stream\":true,\"ignore_eos\":true,\"priority\":-2,"
    "\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true,\"odd\":1},"
    "\"request_id\":\"r-1\",\"user\":\"u\",\"strange\":null,\"add_special_tokens\":false,"
    "\"return_token_ids\":true}";

static bool is_text(struct api_text t, const char *expected)
{
    return t.data != NULL && t.len == strlen(expected) && strcmp(t.data, expected) == 0;
}

static void every_value_arrives(void **state)
{
    (void)state;
    struct api_request r = parsed(C, full_completion);
    assert_true(is_text(r.model, "m") && is_text(r.request_id, "r-1"));
    assert_int_equal(r.n_prompts, 2);
    assert_true(is_text(r.prompts[0].text, "one") && is_text(r.prompts[1].text, "zwei ü"));
    assert_true(r.max_tokens == 7 && r.min_tokens == 2 && r.n == 3 && r.top_k == 0);
    assert_true(r.temperature == 0.5 && r.top_p == 0.9 && r.min_p == 0.05);
    assert_true(r.repetition_penalty == 1.5 && r.frequency_penalty == -1.0);
    assert_true(r.presence_penalty == 2.0 && r.has_seed && r.seed == -42 && r.priority == -2);
    assert_int_equal(r.n_stops, 2);
    assert_true(is_text(r.stops[0], "\n\n") && is_text(r.stops[1], "END"));
    assert_int_equal(r.n_stop_ids, 2);
    assert_true(r.stop_ids[0] == 5 && r.stop_ids[1] == 6);
    assert_int_equal(r.n_logit_bias, 2);
    assert_true(r.logit_bias[0].id == 3 && r.logit_bias[0].bias == -100.0F);
    assert_true(r.logit_bias[1].id == 9 && r.logit_bias[1].bias == 1.5F);
    assert_true(r.want_logprobs && r.top_logprobs == 4 && r.echo && r.stream && r.ignore_eos);
    assert_true(r.include_usage && r.continuous_usage_stats && !r.add_special_tokens);
    assert_true(r.return_token_ids);
    assert_int_equal(r.n_unknown, 2);
    assert_true(is_text(r.unknown[0], "stream_options.odd"));
    assert_true(is_text(r.unknown[1], "strange"));
    api_request_deinit(&r);
}

static void ids_and_messages_arrive(void **state)
{
    (void)state;
    struct api_request r = parsed(C, "{\"prompt\":[7,8,9]}");
    assert_true(r.n_prompts == 1 && r.prompts[0].n_ids == 3 && r.prompts[0].ids[2] == 9);
    assert_null(r.prompts[0].text.data);
    api_request_deinit(&r);
    r = parsed(C, "{\"prompt\":[[7],[8,9]]}");
    assert_true(r.n_prompts == 2 && r.prompts[1].n_ids == 2 && r.prompts[1].ids[0] == 8);
    api_request_deinit(&r);
    r = parsed(D, "{\"tokens\":[3,1]}");
    assert_true(r.n_tokens == 2 && r.tokens[0] == 3);
    api_request_deinit(&r);
    r = parsed(H, "{\"messages\":[{\"role\":\"developer\",\"content\":\"s\"},"
                  "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                  "{\"type\":\"text\",\"text\":\"\"},{\"type\":\"text\",\"text\":\"b\"}]},"
                  "{\"role\":\"assistant\",\"content\":\"c\"}],"
                  "\"max_tokens\":9,\"max_completion_tokens\":4,\"logprobs\":true,"
                  "\"top_logprobs\":2}");
    assert_int_equal(r.n_messages, 3);
    assert_int_equal(r.messages[0].role, API_ROLE_SYSTEM);
    assert_int_equal(r.messages[2].role, API_ROLE_ASSISTANT);
    assert_true(is_text(r.messages[1].content, "a\n\nb"));
    assert_true(r.max_tokens == 4 && r.want_logprobs && r.top_logprobs == 2);
    api_request_deinit(&r);
}

/* {"prompt":"x","FIELD":[ITEM,ITEM,...]} */
static char *list_body(const char *head, const char *item, size_t n, const char *tail)
{
    size_t room = strlen(head) + n * (strlen(item) + 1) + strlen(tail) + 1;
    char *body = mem_alloc(room, 1);
    assert_non_null(body);
    char *at = stpcpy(body, head);
    for (size_t i = 0; i < n; i++) {
        at = stpcpy(at, i == 0 ? "" : ",");
        at = stpcpy(at, item);
    }
    stpcpy(at, tail);
    return body;
}

static void lists_stop_at_their_limits(void **state)
{
    (void)state;
    static const struct {
        enum api_endpoint endpoint;
        const char *head, *item, *tail;
        size_t limit;
        const char *param;
    } lists[] = {
        {C, "{\"prompt\":[", "\"x\"", "]}", API_MAX_PROMPTS, "prompt"},
        {C, "{\"prompt\":\"x\",\"stop\":[", "\"a\"", "]}", API_MAX_STOPS, "stop"},
        {C, "{\"prompt\":\"x\",\"stop_token_ids\":[", "1", "]}", API_MAX_STOP_IDS,
         "stop_token_ids"},
        {H, "{\"messages\":[", "{\"role\":\"user\",\"content\":\"x\"}", "]}", API_MAX_MESSAGES,
         "messages"},
        {H, "{\"messages\":[{\"role\":\"user\",\"content\":[", "{\"type\":\"text\",\"text\":\"\"}",
         "]}]}", API_MAX_PARTS, "messages[0].content"},
        {C, "{\"n\":4,\"prompt\":[", "\"x\"", "]}", API_MAX_CHOICES / 4, "prompt"},
        {C, "{\"n\":8,\"prompt\":[", "\"x\"", "]}", API_MAX_CHOICES / 8, "n"},
    };
    for (size_t i = 0; i < COUNT(lists); i++) {
        for (size_t n = lists[i].limit; n <= lists[i].limit + 1; n++) {
            char *body = list_body(lists[i].head, lists[i].item, n, lists[i].tail);
            struct bad_or_good c = {lists[i].endpoint, body,
                                    n == lists[i].limit ? NULL : lists[i].param, ""};
            check(&c, body);
            mem_free(body);
        }
    }
    char *stop = list_body("{\"prompt\":\"x\",\"stop\":\"", "aa", 342, "\"}"); /* 3 * 342 - 1 */
    struct bad_or_good c = {C, stop, "stop", "this one has 1025"};
    check(&c, stop);
    memmove(strstr(stop, "aa"), strstr(stop, "aa") + 1, strlen(strstr(stop, "aa")));
    c.param = NULL;
    check(&c, stop);
    mem_free(stop);
}

static void logit_bias_and_depth_stop_at_their_limits(void **state)
{
    (void)state;
    struct api_limits open = {0};
    for (uint32_t n = API_MAX_LOGIT_BIAS; n <= API_MAX_LOGIT_BIAS + 1; n++) {
        char *body = mem_alloc(64 + (size_t)n * 16, 1);
        assert_non_null(body);
        char *at = stpcpy(body, "{\"prompt\":[2147483647],\"logit_bias\":{");
        for (uint32_t i = 0; i < n; i++) {
            at += sprintf(at, "%s\"%u\":1", i == 0 ? "" : ",", n - i);
        }
        stpcpy(at, "}}");
        struct api_request r;
        struct api_errors errors;
        enum status s = api_request_parse(C, body, strlen(body), &open, &r, &errors);
        if (n == API_MAX_LOGIT_BIAS) {
            assert_int_equal(s, STATUS_OK);
            for (uint32_t i = 0; i < n; i++) {
                assert_int_equal(r.logit_bias[i].id, i + 1);
            }
            api_request_deinit(&r);
        } else {
            assert_int_equal(s, STATUS_BAD_DATA);
            assert_string_equal(errors.items[0].param, "logit_bias");
        }
        mem_free(body);
    }
    for (size_t depth = API_MAX_DEPTH; depth <= API_MAX_DEPTH + 1; depth++) {
        char body[256] = "{\"prompt\":\"x\",\"odd\":";
        memset(body + strlen(body), '[', depth - 1);
        memset(body + strlen(body), ']', depth - 1);
        body[strlen(body)] = '}';
        struct bad_or_good c = {C, body, depth == API_MAX_DEPTH ? NULL : "", "nested more than 32"};
        check(&c, body);
    }
}

static void bodies_stop_at_their_limits(void **state)
{
    (void)state;
    struct api_request r;
    struct api_errors errors;
    char *body = list_body("{\"prompt\":[", "1", API_MAX_VALUES - 1, "]}");
    assert_int_equal(parse(C, body, &r, &errors), STATUS_OK);
    assert_int_equal(r.prompts[0].n_ids, API_MAX_VALUES - 1);
    api_request_deinit(&r);
    mem_free(body);
    body = list_body("{\"prompt\":[", "1", API_MAX_VALUES, "]}");
    assert_int_equal(parse(C, body, &r, &errors), STATUS_BAD_DATA);
    assert_contains(errors.items[0].message, "more than 262144 values");
    mem_free(body);
    char *text = mem_alloc(API_MAX_BODY_BYTES + 2, 1);
    assert_non_null(text);
    memset(text, 'x', API_MAX_BODY_BYTES + 1);
    memcpy(text, "{\"prompt\":\"", 11);
    memcpy(text + API_MAX_BODY_BYTES - 2, "\"}", 2);
    assert_int_equal(api_request_parse(C, text, API_MAX_BODY_BYTES, &limits, &r, &errors),
                     STATUS_OK);
    api_request_deinit(&r);
    text[API_MAX_BODY_BYTES] = ' ';
    assert_int_equal(api_request_parse(C, text, API_MAX_BODY_BYTES + 1, &limits, &r, &errors),
                     STATUS_BAD_DATA);
    assert_int_equal(errors.items[0].http_status, 413);
    mem_free(text);
}

static void errors_are_few_and_short(void **state)
{
    (void)state;
    struct api_request r;
    struct api_errors errors;
    char *long_text = mem_alloc(5000, 1);
    char *body = mem_alloc(200000, 1);
    assert_non_null(long_text);
    assert_non_null(body);
    for (size_t i = 0; i < 1600; i++) {
        memcpy(long_text + 3 * i, "世", 3);
    }
    static const char *const fields[] = {"n",        "seed",        "top_k",          "top_p",
                                         "min_p",    "temperature", "stream",         "ignore_eos",
                                         "echo",     "min_tokens",  "stop_token_ids", "max_tokens",
                                         "logprobs", "logit_bias",  "prompt",         "priority"};
    char *at = stpcpy(body, "{");
    for (size_t i = 0; i < COUNT(fields); i++) {
        at += sprintf(at, "%s\"%s\":%s\"%s\"%s", i == 0 ? "" : ",", fields[i],
                      strcmp(fields[i], "prompt") == 0 ? "[[" : "", long_text,
                      strcmp(fields[i], "prompt") == 0 ? "]]" : "");
    }
    stpcpy(at, "}");
    assert_int_equal(parse(C, body, &r, &errors), STATUS_BAD_DATA);
    assert_int_equal(errors.count, API_MAX_ERRORS);
    assert_int_equal(errors.total, COUNT(fields));
    for (uint32_t i = 0; i < errors.count; i++) {
        size_t n = 0;
        for (const char *c = errors.items[i].message; (c = strstr(c, "世")) != NULL; c += 3) {
            n++;
        }
        assert_true(n >= 60 && n * 3 <= API_ECHO_BYTES);
        assert_true(utf8_is_valid(errors.items[i].message, strlen(errors.items[i].message)));
        assert_contains(errors.items[i].message, "...");
    }
    struct strbuf b = {0};
    api_write_errors(&b, &errors);
    assert_contains(strbuf_text(&b), "; and 6 more");
    assert_true(b.len < API_MAX_ERRORS * API_MESSAGE_BYTES);
    strbuf_deinit(&b);
    mem_free(body);
    mem_free(long_text);
}

static void unknown_fields_are_listed_once_and_bounded(void **state)
{
    (void)state;
    struct strbuf body = {0};
    char name[200];
    memset(name, 'k', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    strbuf_printf(&body, "{\"prompt\":\"x\",\"%s\":1", name);
    for (int i = 0; i < 30; i++) {
        strbuf_printf(&body, ",\"odd%d\":1", i);
    }
    strbuf_putc(&body, '}');
    struct api_request r = parsed(C, body.data);
    strbuf_deinit(&body);
    assert_int_equal(r.n_unknown, 31);
    assert_int_equal(r.unknown[0].len, 64);
    assert_true(is_text(r.unknown[API_MAX_UNKNOWN - 1], "odd14"));
    api_request_deinit(&r);
}

static void names_and_lengths_are_checked_against_the_model(void **state)
{
    (void)state;
    static const char *const names[] = {"smol", "alias"};
    struct api_errors errors = {0};
    struct api_request r = parsed(C, "{\"prompt\":\"x\",\"model\":\"alias\",\"max_tokens\":10}");
    assert_true(api_request_check_model(&r, names, 2, &errors));
    assert_false(api_request_check_model(&r, names, 1, &errors));
    assert_int_equal(errors.items[0].http_status, 404);
    assert_string_equal(errors.items[0].param, "model");
    assert_contains(errors.items[0].message, "The model `alias` does not exist");
    uint32_t max_new = 0;
    errors.count = errors.total = 0;
    assert_true(api_request_fit(&r, 90, 100, &max_new, &errors));
    assert_int_equal(max_new, 10);
    assert_false(api_request_fit(&r, 91, 100, &max_new, &errors));
    assert_contains(errors.items[0].message, "91 tokens and max_tokens is 10: together 101");
    assert_contains(errors.items[0].message, "context length is 100");
    assert_false(api_request_fit(&r, 0, 100, &max_new, &errors));
    api_request_deinit(&r);
    r = parsed(H, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}");
    assert_true(api_request_check_model(&r, names, 0, &errors));
    assert_true(api_request_fit(&r, 99, 100, &max_new, &errors));
    assert_int_equal(max_new, 1);
    assert_false(api_request_fit(&r, 100, 100, &max_new, &errors));
    assert_false(api_request_fit(&r, UINT32_MAX, 100, &max_new, &errors));
    api_request_deinit(&r);
}

/* Each prefix lies at the end of its allocation, so that the sanitizer sees a read beyond it. */
static void a_cut_body_is_refused_at_every_byte(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof full_completion - 1; len++) {
        struct api_request r;
        struct api_errors errors;
        char *cut = mem_alloc(len + (len == 0), 1);
        assert_non_null(cut);
        memcpy(cut, full_completion, len);
        assert_int_equal(api_request_parse(C, cut, len, &limits, &r, &errors), STATUS_BAD_DATA);
        assert_int_equal(errors.items[0].http_status, 400);
        mem_free(cut);
    }
}

/* A refused allocation never gives a request with something left out, and nothing leaks (ASan). */
static void refused_memory_is_503(void **state)
{
    (void)state;
    static const char chat[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},"
        "{\"role\":\"assistant\",\"content\":\"b\"}],\"stop\":[\"x\"],\"odd\":{\"a\":[1.5,true]},"
        "\"response_format\":{\"type\":\"text\"}}";
    static const char bad[] = "{\"prompt\":{\"a\":[1]},\"n\":[2]}";
    static const char *const bodies[] = {full_completion, chat, bad, "{\"prompt\":[[1,2],[3]]}"};
    size_t refused = 0;
    for (size_t k = 0; k < 2 * COUNT(bodies); k++) {
        enum api_endpoint e = k / 2 == 1 ? H : C;
        const char *body = bodies[k / 2];
        struct api_request r = {0};
        struct api_errors errors;
        enum status plain = parse(e, body, &r, &errors);
        api_request_deinit(&r);
        for (uint64_t n = 1;; n++) {
            uint64_t before = mem_refused_count();
            mem_fail_at(n, k % 2 == 1);
            enum status s = parse(e, body, &r, &errors);
            mem_fail_at(0, false);
            if (mem_refused_count() == before) {
                assert_int_equal(s, plain);
                api_request_deinit(&r);
                break;
            }
            refused++;
            assert_int_equal(s, STATUS_NO_MEMORY);
            assert_int_equal(errors.items[0].http_status, 503);
            assert_int_equal(errors.total, 1);
        }
    }
    print_message("%zu refusals\n", refused);
    assert_true(refused > 100);
}

/* Two parts of the program use jansson, each watching for refusals in its own way, in any order. */
static void another_reader_of_json_does_no_harm(void **state)
{
    static const char text[] = "{\"a\":[1,{\"b\":\"c\"}]}";
    static const struct json_limits wide = {.max_depth = 9, .max_values = 99};
    for (uint64_t n = 1;; n++) {
        json_t *root = NULL;
        struct error err = ERROR_INIT;
        uint64_t before = mem_refused_count();
        mem_fail_at(n, false);
        enum status s = json_text_parse(text, sizeof text - 1, &wide, "x", 0, &root, &err);
        mem_fail_at(0, false);
        if (mem_refused_count() == before) {
            assert_ok(s);
            json_decref(root);
            assert_true(n > 3);
            break;
        }
        assert_status(s, STATUS_NO_MEMORY);
    }
    refused_memory_is_503(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_of_the_tables),
        cmocka_unit_test(defaults_are_those_of_the_reference),
        cmocka_unit_test(every_value_arrives),
        cmocka_unit_test(ids_and_messages_arrive),
        cmocka_unit_test(lists_stop_at_their_limits),
        cmocka_unit_test(logit_bias_and_depth_stop_at_their_limits),
        cmocka_unit_test(bodies_stop_at_their_limits),
        cmocka_unit_test(errors_are_few_and_short),
        cmocka_unit_test(unknown_fields_are_listed_once_and_bounded),
        cmocka_unit_test(names_and_lengths_are_checked_against_the_model),
        cmocka_unit_test(a_cut_body_is_refused_at_every_byte),
        cmocka_unit_test(refused_memory_is_503),
        cmocka_unit_test(another_reader_of_json_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
