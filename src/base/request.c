/* request.c - names of the enums in request.h, as they stand in results. */
#include "base/request.h"

const char *finish_reason_name(enum finish_reason r)
{
    switch (r) {
    case FINISH_NONE:
        return "none";
    case FINISH_STOP:
        return "stop";
    case FINISH_LENGTH:
        return "length";
    case FINISH_ERROR:
        return "error";
    }
    return "unknown";
}

const char *reject_reason_name(enum reject_reason r)
{
    switch (r) {
    case REJECT_NONE:
        return "none";
    case REJECT_QUEUE_FULL:
        return "queue full";
    case REJECT_TOO_LONG:
        return "longer than the model's context";
    case REJECT_NO_BLOCKS:
        return "needs more KV blocks than there are";
    case REJECT_POLICY:
        return "shed by the policy";
    case REJECT_SHUTDOWN:
        return "shutting down";
    }
    return "unknown";
}
