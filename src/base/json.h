/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tree of values in an arena, read from JSON here and from YAML in base/yaml.h, so that
 * everything above sees one kind of document. Nodes remember line and column. The hot path has its
 * own reader (wire/tensor_json.h); this one is for documents.
 *
 * Strict RFC 8259: UTF-8 only, no duplicate keys, no trailing bytes, depth and size limited.
 * Numbers keep int64 exactly; others are doubles.
 */
#pragma once

#include "base/arena.h"
#include "base/buf.h"

#define JSON_DEPTH_MAX 64

enum json_type { JSON_NULL, JSON_BOOL, JSON_INT, JSON_REAL, JSON_STR, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_type type;
    uint32_t line, col; /* 1-based; 0 when built by a program */
    str key;            /* when it is a member of an object */
    uint32_t key_line, key_col;
    struct json *next; /* sibling */
    union {
        bool boolean;
        int64_t integer;
        double real;
        str string;
        struct {
            struct json *first, *last;
            size_t count;
        };
    };
};

/* Parses one document; the tree owns nothing of `text`. Columns count characters. Errors:
 * INVALID_ARGUMENT "line:col: what, expected what"; RESOURCE_EXHAUSTED at the arena's cap. */
NODISCARD int json_parse(str text, struct arena *a, struct json **ret_root, struct err *e);

/* Looking: all accept NULL and the wrong type, and then give NULL or the default. */
struct json *json_get(const struct json *object, str key);
struct json *json_path(const struct json *root, const char *dotted); /* "model.signature.inputs" */
struct json *json_at(const struct json *array, size_t i);
str json_str_or(const struct json *node, str def);
int64_t json_int_or(const struct json *node, int64_t def);
double json_real_or(const struct json *node, double def); /* ints too */
bool json_bool_or(const struct json *node, bool def);
#define JSON_EACH(child, parent) \
    for (struct json *child = (parent) ? (parent)->first : NULL; child; child = child->next)
/* JSON_EACH is for arrays and objects only; json_is_container() tells. */
static inline bool json_is_container(const struct json *n)
{
    return n && (n->type == JSON_ARRAY || n->type == JSON_OBJECT);
}
const char *json_type_name(enum json_type type); /* "string", "integer", ... */

/* Demanding: fail with a message that names the path. */
NODISCARD int json_need_str(const struct json *object, str key, str *ret, struct err *e);
NODISCARD int json_need_int(const struct json *object, str key, int64_t *ret, struct err *e);
NODISCARD int json_need_real(const struct json *object, str key, double *ret, struct err *e);
NODISCARD int json_need_object(const struct json *object, str key, struct json **ret,
                               struct err *e);
NODISCARD int json_need_array(const struct json *object, str key, struct json **ret, struct err *e);

/* Building trees. Strings are borrowed: copy them into the arena first if they do not outlive it.
 * When a capped arena is full these give NULL and accept NULL: test a->overflowed at the end. */
struct json *json_new_null(struct arena *a);
struct json *json_new_bool(struct arena *a, bool v);
struct json *json_new_int(struct arena *a, int64_t v);
struct json *json_new_real(struct arena *a, double v);
struct json *json_new_str(struct arena *a, str v);
struct json *json_new_array(struct arena *a);
struct json *json_new_object(struct arena *a);
struct json *json_push(struct json *array, struct json *value); /* returns value */
struct json *json_set(struct json *object, str key,
                      struct json *value); /* replaces; returns value */
struct json *json_set_str(struct arena *a, struct json *object, str key, str v); /* v borrowed */
struct json *json_set_int(struct arena *a, struct json *object, str key, int64_t v);
struct json *json_set_real(struct arena *a, struct json *object, str key, double v);
struct json *json_set_bool(struct arena *a, struct json *object, str key, bool v);
/* Leaves a number that is not finite out: a reader need not tell null from zero. NULL then. */
struct json *json_set_finite(struct arena *a, struct json *object, str key, double v);
struct json *json_copy(struct arena *a, const struct json *node); /* deep, strings too */
/* Member order is free; numbers compare by value: 1 equals 1.0. */
bool json_equal(const struct json *a, const struct json *b);

/* Text of a tree. Canonical (RFC 8785 in spirit): sorted keys, no blanks, shortest numbers; equal
 * documents give equal bytes, which is what content addresses need. NaN and infinities become null.
 */
void json_write(struct buf *out, const struct json *node);        /* compact, own order */
void json_write_pretty(struct buf *out, const struct json *node); /* two blanks of indent */
void json_write_canonical(struct buf *out, const struct json *node);

/* Streaming writer, for answers and logs: commas and nesting are kept by the writer. */
struct json_out {
    struct buf *to; /* borrowed */
    uint32_t depth;
    bool need_comma;
};
void jo_begin(struct json_out *o, struct buf *to);
void jo_object(struct json_out *o); /* { */
void jo_object_end(struct json_out *o);
void jo_array(struct json_out *o);
void jo_array_end(struct json_out *o);
void jo_key(struct json_out *o, str key);
void jo_str(struct json_out *o, str v); /* escapes; invalid UTF-8 becomes U+FFFD */
void jo_int(struct json_out *o, int64_t v);
void jo_real(struct json_out *o, double v);
void jo_bool(struct json_out *o, bool v);
void jo_null(struct json_out *o);
void jo_raw(struct json_out *o, str json_text); /* a value already in JSON form */
void jo_node(struct json_out *o, const struct json *node);
/* key and value at once */
void jo_kstr(struct json_out *o, str key, str v);
void jo_kint(struct json_out *o, str key, int64_t v);
void jo_kreal(struct json_out *o, str key, double v);
void jo_kbool(struct json_out *o, str key, bool v);
void jo_kfinite(struct json_out *o, str key, double v); /* nothing when it is not finite */

/* A string with quotes and escapes, appended. */
void json_escape(struct buf *out, str s);
