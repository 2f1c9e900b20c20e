/* SPDX-License-Identifier: Apache-2.0 */
/* `weir probe`: for Weir's own use; see registry/probe.h. */
#include "cli/cli.h"
#include "registry/probe.h"

int command_probe(int argc, char **argv)
{
    return probe_main(argc, argv);
}
