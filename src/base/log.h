/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logging: one line per event on stderr, logfmt (`ts=… level=info event=plan.loaded plan=1f3c… `)
 * or JSON. An event has a dotted name and key-value pairs; secrets have no key here. Only the outer
 * layers log (handlers, server wiring, command line); a lower function returns its error.
 * Safe from any thread; a line is one write(2).
 */
#pragma once

#include "base/err.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_LOGFMT, LOG_JSON };

void log_setup(enum log_level least, enum log_format format, const char *process);

/* log_event(LOG_INFO, "plan.loaded", "plan=%s endpoints=%zu", hash, n): fmt is `key=%x key=%x …`;
 * text values that may hold blanks are written key="%s" by the caller. */
void log_event(enum log_level level, const char *event, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The line for an error that stops here: code, message and place. */
void log_err(const char *event, const struct err *e);
