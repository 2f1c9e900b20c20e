/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rendering requests. The generator must be much cheaper than what it measures, so that all text is
 * made before the run; sending is one copy and 36 bytes of id written over a placeholder. The id
 * comes first in a body, which makes its place easy to know.
 */
#include "load/bodies.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/num.h"
#include "wire/http1_client.h"

#include <math.h>

static const str predict_head = S_INIT("{\"metadata\":{\"request_id\":\"");
static const str oip_head = S_INIT("{\"id\":\"");
static const char placeholder[] = "00000000-0000-7000-8000-000000000000";

static void write_value(struct buf *to, const struct load_column *c, size_t row)
{
    char text[NUM_TEXT_MAX];
    double v;

    if (c->kind == LOAD_TEXT) {
        if (c->texts[row].p)
            json_escape(to, c->texts[row]);
        else
            buf_add_str(to, S("null"));
        return;
    }
    v = c->numbers[row];
    if (!isfinite(v))
        buf_add_str(to, S("null"));
    else if (c->kind == LOAD_BOOL)
        buf_add_str(to, v != 0 ? S("true") : S("false"));
    else
        buf_add(to, text, num_f64_text(v, text));
}

static void write_predict(struct buf *to, const struct load_rows *rows,
                          const struct load_column *columns, size_t row)
{
    buf_add_str(to, predict_head);
    buf_add(to, placeholder, LOAD_ID_BYTES);
    buf_add_str(to, S("\"},\"features\":{"));
    for (size_t i = 0; i < rows->column_count; i++) {
        if (i)
            buf_add_char(to, ',');
        json_escape(to, columns[i].name);
        buf_add_char(to, ':');
        write_value(to, &columns[i], row);
    }
    buf_add_str(to, S("}}"));
}

static void write_oip(struct buf *to, const struct load_form *form,
                      const struct load_column *columns, size_t row)
{
    buf_add_str(to, oip_head);
    buf_add(to, placeholder, LOAD_ID_BYTES);
    buf_add_str(to, S("\",\"inputs\":["));
    for (size_t t = 0; t < form->tensor_count; t++) {
        const struct load_tensor *tensor = &form->tensors[t];

        buf_add_str(to, t ? S(",{\"name\":") : S("{\"name\":"));
        json_escape(to, tensor->name);
        buf_add_str(to, S(",\"datatype\":"));
        json_escape(to, tensor->datatype);
        buf_add_str(to, S(",\"shape\":[1,"));
        buf_add_u64(to, tensor->count);
        buf_add_str(to, S("],\"data\":["));
        for (size_t i = 0; i < tensor->count; i++) {
            if (i)
                buf_add_char(to, ',');
            write_value(to, &columns[tensor->first + i], row);
        }
        buf_add_str(to, S("]}"));
    }
    buf_add_str(to, S("]}"));
}

static NODISCARD int render_row(const struct load_form *form, const struct load_rows *rows,
                                const struct load_column *columns, size_t row, struct buf *body,
                                struct buf *all, struct load_text *ret_text, struct err *e)
{
    size_t from = all->n;
    str text;

    buf_clear(body);
    if (form->api == LOAD_OIP)
        write_oip(body, form, columns, row);
    else
        write_predict(body, rows, columns, row);
    text = buf_str(body);
    http1_write_request(all, S("POST"), form->target, form->host, S("application/json"), text.n,
                        true, form->extra);
    *ret_text = (struct load_text){
        .at = from,
        .n = (uint32_t)(all->n - from + text.n),
        .id_at = (uint32_t)(all->n - from + (form->api == LOAD_OIP ? oip_head.n : predict_head.n)),
    };
    buf_add_str(all, text);
    if (body->overflowed || all->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED,
                    "the rendered requests take more than %zu MiB at row %zu: send fewer rows with "
                    "--rows",
                    LOAD_BODIES_BYTES_MAX >> 20, row);
    return 0;
}

int load_bodies_render(const struct load_form *form, const struct load_rows *rows,
                       const struct load_column *columns, struct load_bodies **ret_bodies,
                       struct err *e)
{
    AUTO(load_bodies_freep) struct load_bodies *b = mem_zalloc(sizeof(*b));
    AUTO(buf_done) struct buf all = {0}, body = {0};

    buf_init(&all, LOAD_BODIES_BYTES_MAX);
    buf_init(&body, (size_t)64 << 20);
    b->rows = mem_zalloc(MAX(rows->n, (size_t)1) * sizeof(*b->rows));
    for (size_t row = 0; row < rows->n; row++) {
        TRY(render_row(form, rows, columns, row, &body, &all, &b->rows[row], e));
        ASSERT(memcmp(all.p + b->rows[row].at + b->rows[row].id_at, placeholder, LOAD_ID_BYTES) ==
               0);
    }
    b->size = all.n;
    b->bytes = TAKE(all.p);
    *ret_bodies = TAKE(b);
    return 0;
}

void load_bodies_free(struct load_bodies *b)
{
    if (!b)
        return;
    mem_free(b->bytes);
    mem_free(b->rows);
    mem_free(b);
}
