/*
 * api_error.h - what an OpenAI-compatible server answers when it cannot do what was asked.
 *
 *   {"error":{"message":"...","type":"BadRequestError","param":"top_p","code":400}}
 *
 * One table maps HTTP numbers to type names (vLLM's where it has one); openai-python chooses its
 * exception class by the number. Validation collects at most API_MAX_ERRORS, and no message repeats
 * more than API_ECHO_BYTES of the input, so that a small body cannot make a large answer.
 */
#ifndef LLMSCHED_NET_API_ERROR_H
#define LLMSCHED_NET_API_ERROR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/request.h"
#include "base/status.h"
#include "base/strbuf.h"

/* HTTP status, type, default message */
#define API_ERROR_LIST(X)                                                                          \
    X(400, "BadRequestError", "the request is not valid")                                          \
    X(401, "AuthenticationError", "missing or wrong API key; send 'Authorization: Bearer KEY'")    \
    X(404, "NotFoundError", "there is nothing at this path")                                       \
    X(405, "MethodNotAllowedError", "this path does not answer this method")                       \
    X(408, "RequestTimeoutError", "the request took too long to arrive")                           \
    X(413, "RequestTooLargeError", "the request body is too large")                                \
    X(415, "UnsupportedMediaTypeError", "send 'Content-Type: application/json'")                   \
    X(422, "UnprocessableEntityError", "the request cannot be carried out")                        \
    X(429, "RateLimitError", "too many requests are waiting; try again later")                     \
    X(431, "HeadersTooLargeError", "the request's header fields are too large")                    \
    X(500, "InternalServerError", "the engine failed")                                             \
    X(501, "NotImplementedError", "not implemented")                                               \
    X(503, "ServiceUnavailableError", "the server is loading or shutting down")

#define API_MAX_ERRORS    10
#define API_ECHO_BYTES    200
#define API_MESSAGE_BYTES 512
#define API_PARAM_BYTES   96

struct api_error {
    int http_status;
    char param[API_PARAM_BYTES]; /* the field at fault, "messages[2].content"; "" for none */
    char message[API_MESSAGE_BYTES];
};

struct api_errors {
    uint32_t count; /* entries of items */
    uint32_t total; /* errors seen; may exceed count */
    struct api_error items[API_MAX_ERRORS];
};

/* Type name of an HTTP status; one that the table lacks reads as 400 (below 500) or 500. */
const char *api_error_type(int http_status);

/* Fills *e. fmt NULL: the table's message. param may be NULL. Text that does not fit is cut at a
 * whole UTF-8 character. */
void api_error_set(struct api_error *e, int http_status, const char *param, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

/* Adds an error while there is room; always counts it. */
void api_errors_add(struct api_errors *errors, int http_status, const char *param, const char *fmt,
                    ...) PRINTF_LIKE(4, 5);

/* The HTTP status of an operating error, and of a request that the engine turned away. */
int api_http_status(enum status s);
int api_http_status_of_reject(enum reject_reason r);

/* Seconds for Retry-After: 429 and 503 have one, others 0 (send none). */
uint32_t api_retry_after_s(int http_status);

/* The body of one error, one line without a line end. */
void api_write_error(struct strbuf *b, const struct api_error *e);

/* The body of a list: status and param are the first one's, the message joins all with "; " and
 * says how many more there were. errors->count >= 1. */
void api_write_errors(struct strbuf *b, const struct api_errors *errors);

#endif
