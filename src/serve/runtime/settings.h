/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers and times out of the documents that describe a model which lives elsewhere, by a table.
 * Strict: an unknown member is an error with a suggestion, for a limit that is misspelt would be a
 * limit that is not there.
 */
#pragma once

#include "base/json.h"

struct setting {
    const char *section; /* "" = the document itself */
    const char *name;
    size_t at, bytes;    /* of the field, an integer */
    int64_t least, most; /* as written */
    int64_t value;       /* the default, as written */
    int64_t unit;        /* what is written is multiplied with it; 0: a time like "30s" */
};

#define SETTINGS_MAX 64

/* A row of the table, for the member `field` of `type`. */
#define SETTING(type, section, name, field, least, most, value, unit)                              \
    {                                                                                              \
        section, name, offsetof(type, field), sizeof(((type *)0)->field), least, most, value, unit \
    }

/* Every member of the object has one of these names. INVALID_ARGUMENT. */
NODISCARD int settings_names(const struct json *object, const str *names, size_t n, struct err *e);
/* Sets the fields of *to. Sections may only hold what the table names. INVALID_ARGUMENT. */
NODISCARD int settings_read(const struct json *root, const struct setting *settings, size_t n,
                            void *to, struct err *e);
