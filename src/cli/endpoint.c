/* endpoint.c - see endpoint.h. */
#include "cli/endpoint.h"

#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "cli/common.h"

#define DEFAULT_HOST "localhost"
#define DEFAULT_PORT "8000"

void endpoint_store_deinit(struct endpoint_store *store)
{
    strbuf_deinit(&store->endpoint);
    mem_free(store->api_key);
}

/* From VLLM_HOST and VLLM_PORT, each with its default; an IPv6 address gets its brackets. */
static const char *from_host_and_port(struct strbuf *out)
{
    const char *host = variable("VLLM_HOST");
    const char *port = variable("VLLM_PORT");
    host = host != NULL ? host : DEFAULT_HOST;
    bool bare = strchr(host, ':') != NULL && host[0] != '[';
    strbuf_printf(out, "http://%s%s%s:%s/v1/completions", bare ? "[" : "", host, bare ? "]" : "",
                  port != NULL ? port : DEFAULT_PORT);
    return out->failed ? NULL : out->data;
}

enum status endpoint_options_from(const struct endpoint_flags *flags, struct endpoint_store *store,
                                  struct remote_options *out, struct error *err)
{
    const char *endpoint = flags->endpoint != NULL ? flags->endpoint : variable("VLLM_ENDPOINT");
    endpoint = endpoint != NULL ? endpoint : from_host_and_port(&store->endpoint);
    if (endpoint == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the endpoint");
    }
    enum status s = api_key_read(flags->api_key_file, "OPENAI_API_KEY", &store->api_key, err);
    if (s != STATUS_OK) {
        return s;
    }
    *out = (struct remote_options){
        .endpoint = endpoint,
        .api_key = store->api_key,
        .ca_file = flags->ca_file,
        .served_model = flags->served_model,
        .request_timeout_ns = monotime_from_seconds(flags->request_timeout),
    };
    return STATUS_OK;
}
