/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole terminal: the alternate screen, keys as they are pressed, and the way back, which is
 * taken on every end of the program but kill -9, a crash included.
 */
#pragma once

#include "base/err.h"

enum screen_key {
    SCREEN_NONE, /* the time is over, or the size has changed */
    SCREEN_END,  /* the program was asked to end */
    SCREEN_UP = 1000,
    SCREEN_DOWN,
};

/* FAILED_PRECONDITION when stdin or stdout is no terminal. */
NODISCARD int screen_enter(struct err *e);
void screen_leave(void); /* any number of times */
/* Waits until then for a key: its character, or enum screen_key. */
int screen_key(int64_t until_ns);
void screen_size(size_t *ret_columns, size_t *ret_lines);
/* How the program was asked to end: the number of the signal, or 0. */
int screen_signal(void);
