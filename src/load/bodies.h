/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests rendered before the clock starts: head and body of every row, with a place for the id.
 */
#pragma once

#include "load/rows.h"

#define LOAD_ID_BYTES 36 /* a UUID */
#define LOAD_BODIES_BYTES_MAX ((size_t)4 << 30)

enum load_api { LOAD_PREDICT, LOAD_OIP };

/* An input of the model: `count` columns from `first` on, in the order of the rows. */
struct load_tensor {
    str name, datatype;
    size_t first, count;
};

struct load_form {
    enum load_api api;
    str target;                        /* path of the request, encoded */
    str host;                          /* of the Host line */
    str extra;                         /* more header lines, each with its CRLF; or empty */
    const struct load_tensor *tensors; /* LOAD_OIP */
    size_t tensor_count;
};

struct load_text {
    uint64_t at;
    uint32_t n, id_at; /* the id lies at `at + id_at` */
};

struct load_bodies {
    char *bytes; /* owned */
    size_t size;
    struct load_text *rows; /* owned, one for each row */
};

/* RESOURCE_EXHAUSTED past LOAD_BODIES_BYTES_MAX. `columns` are the values to send, of rows->n rows.
 */
NODISCARD int load_bodies_render(const struct load_form *form, const struct load_rows *rows,
                                 const struct load_column *columns, struct load_bodies **ret_bodies,
                                 struct err *e);
void load_bodies_free(struct load_bodies *b); /* accepts NULL */
DEFINE_AUTO_PTR(struct load_bodies, load_bodies_free)
