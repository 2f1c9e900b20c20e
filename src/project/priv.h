/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share: the table of fields in memory, and the walk over a tree. */
#pragma once

#include "project/project.h"

enum kind {
#define SCALAR_KIND(name, noun, normal) KIND_##name,
#define LIST_KIND(name, noun, normal, element) KIND_##name,
#define TREE_KIND(name, noun, normal) KIND_##name,
#include "project/kinds.def"
#undef SCALAR_KIND
#undef LIST_KIND
#undef TREE_KIND
    KIND_COUNT
};

enum effect {
#define EFFECT(name, word, help) EFFECT_##name,
#include "project/effects.def"
#undef EFFECT
    EFFECT_COUNT
};

enum section_id {
    SECTION_none, /* a field without .sub */
#define SECTION(id, path, help) SECTION_##id,
#define FIELD(...)
#define END(id)
#include "project/fields.def"
#undef SECTION
#undef FIELD
#undef END
    SECTION_COUNT
};

/* One line of fields.def, which explains the members. Absent texts are NULL. */
struct field {
    const char *key, *out;
    enum kind kind;
    enum effect effect;
    const char *help;
    const char *def, *lo, *hi, *word, *of, *when, *as, *alone;
    enum section_id sub;
};

struct section {
    const char *id, *path, *help;
    const struct field *fields;
    size_t field_count;
};

extern const struct section project_sections[SECTION_COUNT];

struct kind_info {
    const char *noun;   /* "a duration such as 30s" */
    const char *normal; /* "integer, nanoseconds" */
    enum kind element;  /* of a list kind, else KIND_COUNT */
    bool is_scalar;
};
extern const struct kind_info project_kinds[KIND_COUNT];

struct effect_info {
    const char *word, *help;
};
extern const struct effect_info project_effects[EFFECT_COUNT];

struct preset {
    const char *name, *steps, *shadow, *help;
};
extern const struct preset project_presets[];
extern const size_t project_preset_count;
const struct preset *project_preset_find(str name); /* or NULL */

/* The field of that key (or, in normal form, of that name in the normalised tree), or NULL. */
const struct field *section_field(const struct section *s, str key, bool normal);
/* The keys, for suggestions; *ret_n of them, in the arena. */
const str *section_keys(const struct section *s, bool normal, struct arena *a, size_t *ret_n);
/* Whether the field exists, given the members of its section that come before it. */
bool field_exists(const struct field *f, const struct section *s, const struct json *norm);
/* Pieces of "a|b|c", in the arena. */
const str *choices_of(const char *list, struct arena *a, size_t *ret_n);

/* --- Values (value.c) ---------------------------------------------------------------------- */

/* A scalar of the field's kind, or an element of its list: fills type and value of *out, or returns
 * false and, when it can tell, a hint of what was meant. The strings are those of src or of the
 * arena. No references are looked up here. */
NODISCARD bool value_read(const struct field *f, enum kind kind, bool normal,
                          const struct json *src, struct json *out, struct arena *a, str *ret_hint);
/* The default as the file would hold it; def must not be NULL. */
struct json *value_default(const struct field *f, struct arena *a);
/* "a duration such as 30s or 15min, from 1ms to 10min, or off" */
str value_expected(const struct field *f, enum kind kind, struct arena *a);
/* A value of the file for a message: "'2x'", "a list". */
str value_shown(const struct json *src, struct arena *a);
/* A normalised value as the file would hold it: exact, and read back equal. */
str value_text(const struct field *f, enum kind kind, const struct json *norm, struct arena *a);

/* --- The walk (normal.c, rules.c) ---------------------------------------------------------- */

/* The members of a large object in the order of their keys. */
struct names {
    const struct json *object;
    const struct json **sorted;
    size_t n;
};
#define NAMES_MAX 16 /* objects that are looked up in during one walk */

struct walk {
    struct project_result *result;
    struct arena *a;
    const struct json *source; /* the whole tree */
    struct json *norm;         /* of the root: what could be read, whole items only */
    bool normal;               /* the tree is in normalised form */
    struct names names[NAMES_MAX];
    size_t names_n;
    str *watched; /* models that a monitor watches, sorted; made when first asked for */
    size_t watched_n;
    bool watch_unknown; /* a monitor could not be read, and may watch any model */
};

/* json_get for the big sections: by bisection, so that ten thousand items which refer to ten
 * thousand others are read in a moment. */
const struct json *names_get(struct walk *w, const struct json *object, str key);

/* Where the walk is: from the leaf to the root. */
struct path {
    const struct path *up;
    str key;               /* empty for an item of a list */
    size_t index;          /* of an item of a list */
    const struct json *at; /* the value of the file, or NULL */
};

str path_text(const struct path *p, struct arena *a);

/* Adds a problem at the value of `at` (at its key, if at_key), or at the nearest place above that
 * has one. Texts must live in the arena or for ever. */
void problem_add(struct walk *w, const struct path *at, bool at_key, str what, str expected,
                 str suggestion);

/* Whether one more problem would not be kept: it is then counted, and its text need not be made. */
bool problem_is_full(struct walk *w);

/* The checks that a table cannot state; each returns after adding its problems. `norm` is complete
 * in itself: no problem was found in it by the walk. */
typedef void rule_fn(struct walk *w, const struct path *p, struct json *norm);
/* The rule of a section, or NULL. */
rule_fn *rule_of(enum section_id id);
/* Between items: labels from datasets, models from endpoints, presets into rollouts. */
void rules_across(struct walk *w, const struct path *root);
/* What a preset adds to a rollout of the file before it is read; returns src or a copy. */
const struct json *rollout_prepare(struct walk *w, const struct json *src);

/* An object of a section, or NULL after adding problems. src may be NULL: all defaults. */
struct json *section_read(struct walk *w, enum section_id id, const struct json *src,
                          const struct path *p);
