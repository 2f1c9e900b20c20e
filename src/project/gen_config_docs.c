/* SPDX-License-Identifier: Apache-2.0 */
/* Writes docs/configuration.md to stdout; scripts/gen-config calls it. */
#include "project/project.h"

#include <stdio.h>

int main(void)
{
    AUTO(buf_done) struct buf out = {0};

    buf_init(&out, BUF_MAX_DEFAULT);
    project_docs_write(&out);
    return fputs(buf_z(&out), stdout) < 0 || fflush(stdout) != 0;
}
