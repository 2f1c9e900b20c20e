/* SPDX-License-Identifier: Apache-2.0 */
/* `weir trainer-xgboost`: the body is the retrain module's; see retrain/xgboost.c. */
#include "cli/cli.h"
#include "retrain/retrain.h"

int command_trainer_xgboost(int argc, char **argv)
{
    return retrain_xgboost_main(argc, argv);
}
