/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processes of Weir: what `weir up`, `weir gateway` and `weir control` run. Each takes its
 * options, runs until SIGTERM or SIGINT, and returns an exit status (0, or that of the error it
 * logged).
 */
#pragma once

#include "base/err.h"
#include "base/log.h"

struct server_options {
    const char *project_dir; /* where weir.yaml lies */
    const char *state_dir;   /* <project>/.weir */
    const char *listen;      /* gateway address, NULL: as the project says */
    const char *control;     /* control address, NULL: as the project says */
    uint32_t loops;          /* 0: as the project says */
    bool no_records;         /* gateway: neither store nor watch what is answered */
    bool no_monitors;        /* gateway: store, but do not count */
    bool no_control;         /* up: run the gateway alone */
    int handover;            /* gateway: descriptor that leads to the supervisor; 0: none */
    enum log_level log_level;
    enum log_format log_format;
};

int server_gateway_main(const struct server_options *o);
int server_control_main(const struct server_options *o);
/* The supervisor: starts both, restarts what dies (with back-off), stops both on a signal. */
int server_up_main(const struct server_options *o);
