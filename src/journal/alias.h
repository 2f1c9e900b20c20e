/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Aliases: names that point at versions of a model, and the history of where they pointed.
 *
 * The history is the truth about the past: what was champion at an instant is the last move before
 * it. People, flows and rollouts all move aliases by this one function, each in a transaction of
 * its own (or of its caller) that holds the row, its history and the fact alias.moved, by which the
 * plan compiler hears of it. Which names are allowed, and whether the version exists, is for the
 * callers to check.
 */
#pragma once

#include "journal/journal.h"

struct alias_move {
    str model, alias;
    int64_t version; /* 0 removes the alias */
    str actor, reason, correlation;
};

/* 0 = the alias does not exist. */
NODISCARD int alias_get(struct meta *m, str model, str alias, int64_t *ret_version, struct err *e);
/* Nothing when it is there already. *ret_previous (may be NULL) is where it pointed. */
NODISCARD int alias_move(struct meta *m, const struct alias_move *mv, int64_t *ret_previous,
                         struct err *e);
/* The latest `limit` moves, newest first:
 * [{"alias","seq","version","previous","at","at_ns","actor","reason","correlation"}] */
NODISCARD int alias_history(struct meta *m, str model, uint32_t limit, struct arena *a,
                            struct json **ret_list, struct err *e);
