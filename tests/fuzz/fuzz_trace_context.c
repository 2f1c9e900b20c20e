/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the header of a request: what is read of its trace is valid, and reads back the same
 * when it is written. */
#include "fuzz.h"

#include "wire/trace_context.h"

#include <stdlib.h>

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void check_state(str state)
{
    uint32_t n = 0;

    for (; state.p && state.n; n++)
        require(trace_state_member_is_valid(str_cut(&state, ',')));
    require(n <= TRACE_STATE_MEMBERS_MAX);
}

static bool read_head(str head, struct trace_context *t, char *state, size_t *state_bytes)
{
    struct http1_limits limits = HTTP1_LIMITS_DEFAULT;
    struct http1_request req;
    enum http1_refusal why;
    size_t seen = 0;

    return http1_head_parse(head.p, head.n, &limits, &seen, &req, &why) == HTTP1_HEAD &&
           trace_context_read(&req.fields, t, state, state_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(buf_done) struct buf head = {0};
    char state[TRACE_STATE_BYTES_MAX], again_state[TRACE_STATE_BYTES_MAX];
    size_t state_bytes, again_bytes;
    struct trace_context t, again;

    if (size > 20000)
        return 0;
    buf_init(&head, 64 << 10);
    buf_add_str(&head, S("GET / HTTP/1.1\r\nHost: h\r\n"));
    buf_add(&head, data, size);
    buf_add_str(&head, S("\r\n\r\n"));
    if (!read_head(buf_str(&head), &t, state, &state_bytes))
        return 0;
    require(state_bytes <= sizeof(state));
    check_state((str){state, state_bytes});
    buf_clear(&head);
    buf_add_str(&head, S("GET / HTTP/1.1\r\nHost: h\r\n"));
    trace_context_write(&head, &t, (str){state, state_bytes});
    buf_add_str(&head, S("\r\n"));
    require(read_head(buf_str(&head), &again, again_state, &again_bytes));
    require(memcmp(&t, &again, sizeof(t)) == 0);
    require(again_bytes == state_bytes && memcmp(state, again_state, state_bytes) == 0);
    return 0;
}
