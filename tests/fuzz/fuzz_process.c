/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what a program says to its runtime: read in frames as a run reads them, each frame's
 * header as greeting, manifest and answer. A tensor that comes out lies within the frame.
 */
#include "fuzz.h"

#include "base/mem.h"
#include "serve/runtime/process.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define BYTES_MAX 65536

static struct tensor_spec specs[] = {
    {.name = S_INIT("y"), .datatype = TENSOR_FP32, .rank = 2, .shape = {-1, 2}},
    {.name = S_INIT("t"), .datatype = TENSOR_BYTES, .rank = 1, .shape = {-1}},
};

static uint64_t sum;

static void look_at(const struct tensor *t)
{
    int64_t count;

    if (!tensor_shape_fits(t->spec, t->shape, t->rank) ||
        !tensor_shape_count(t->shape, t->rank, &count) || (size_t)count != t->count)
        abort();
    if (t->spec->datatype == TENSOR_FP32)
        for (size_t i = 0; i < t->bytes; i++)
            sum += ((const unsigned char *)t->data)[i];
    else
        for (size_t i = 0; i < t->count; i++)
            for (size_t k = 0; k < ((const str *)t->data)[i].n; k++)
                sum += (unsigned char)((const str *)t->data)[i].p[k];
}

static void frame(const struct process_reader *r, const char *data)
{
    AUTO(arena_done) struct arena a = {0};
    struct tensor tensors[2] = {{.spec = &specs[0]}, {.spec = &specs[1]}};
    struct process_manifest manifest;
    struct tensor_spec *declared;
    struct json *root;
    struct err e;
    uint32_t n;

    arena_init(&a, 8 << 20);
    if (json_parse(process_reader_header(r), &a, &root, &e))
        return;
    if (!process_manifest_read(root, &a, &manifest, &e) && !manifest.command[0])
        abort();
    if (!tensor_specs_read(json_get(root, S("inputs")), "inputs", 64, &a, &declared, &n, &e))
        sum += n;
    if (tensor_frame_tensors(root, (str){data, (size_t)r->head.data_bytes}, tensors, 2, &a, &e))
        return;
    look_at(&tensors[0]);
    look_at(&tensors[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(mem_freep) char *room = NULL;
    struct process_reader r;
    enum process_event ev;
    int ends[2];
    struct err e;

    if (size > BYTES_MAX)
        return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) ||
        send(ends[0], data, size, MSG_NOSIGNAL) != (ssize_t)size)
        abort();
    close(ends[0]);
    process_reader_init(&r, BYTES_MAX);
    while ((ev = process_read(&r, ends[1], &e)) == PROCESS_HEADER || ev == PROCESS_FRAME)
        if (ev == PROCESS_HEADER) {
            mem_free(room);
            room = mem_alloc((size_t)r.head.data_bytes + 1);
            r.data = room;
        } else {
            frame(&r, room);
        }
    if (ev == PROCESS_MORE)
        abort(); /* the other end is closed */
    process_reader_done(&r);
    close(ends[1]);
    return 0;
}
